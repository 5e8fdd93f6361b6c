"""The keyed streams' Philox4x64-10 words, computed on a tensor's device: the same bits as `fanin.streams` draws.

64-bit words are held in int64 tensors, whose sums and products wrap as unsigned ones do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from fanin.streams import BLOCK, key_of

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)  # Salmon et al. (2011)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # added to the key in every round
_ROUNDS = 10
_LOW = 0xFFFFFFFF


def signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - 2**64 if word >= 2**63 else word


def keys(seeds: Sequence[int], purpose: str, *, device: torch.device | str = "cpu") -> Tensor:
    """(M, 2) keys of the streams of this purpose, one row a seed."""
    rows = [[signed(key_of(seed, purpose) % 2**64), signed(key_of(seed, purpose) >> 64)] for seed in seeds]
    return torch.tensor(rows, dtype=torch.int64, device=device)


def words(key: Tensor, count: int, *, layer: int, step: Tensor, epoch: Tensor) -> Tensor:
    """(M, count) words of M streams with keys (M, 2), at one layer and step (a tensor of one) and their epochs (M,)."""
    blocks = -(-count // BLOCK)
    # numpy counts before it draws: the first block is number 1
    first = torch.arange(1, blocks + 1, device=key.device).expand(len(key), -1)
    place = [torch.full_like(first, layer), step.view(1, 1).expand_as(first), epoch.view(-1, 1).expand_as(first)]
    x0, x1, x2, x3 = first, *place
    k0, k1 = key[:, :1], key[:, 1:]
    for i in range(_ROUNDS):
        if i:
            k0, k1 = k0 + signed(_WEYL[0]), k1 + signed(_WEYL[1])
        high0, low0 = _product(_MULTIPLIERS[0], x0)
        high1, low1 = _product(_MULTIPLIERS[1], x2)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
    return torch.stack([x0, x1, x2, x3], 2).view(len(key), -1)[:, :count]


def triton_for(device: torch.device) -> bool:
    """Whether Triton kernels are used on this device: on a card, where Triton is installed."""
    return device.type == "cuda" and find_spec("triton") is not None


def drawer(device: torch.device, *, kernels: bool | None = None) -> Callable[..., None]:
    """`draw(key, out, layer=, step=, epoch=)`, which fills out (M, count) with words; count in whole blocks.

    kernels: by a Triton kernel; by default where there is one.
    """
    if triton_for(device) if kernels is None else kernels:
        from fanin.engine.card import kernels as triton_kernels  # loads Triton

        return triton_kernels.words
    return _fill


def _fill(key: Tensor, out: Tensor, *, layer: int, step: Tensor, epoch: Tensor) -> None:
    out.copy_(words(key, out.shape[1], layer=layer, step=step, epoch=epoch))


def _product(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of the 128-bit product of unsigned words, by halves of 32 bits."""
    a_high, a_low = a >> 32, a & _LOW
    b_high, b_low = _shifted(b), b & _LOW
    middle = _shifted(a_low * b_low) + (a_high * b_low & _LOW) + a_low * b_high
    return a_high * b_high + _shifted(a_high * b_low) + _shifted(middle), b * signed(a)


def _shifted(x: Tensor) -> Tensor:
    """x >> 32 without its sign."""
    return (x >> 32) & _LOW
