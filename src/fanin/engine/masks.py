"""Dropout masks of a stack: 0 with probability p, else 1 / (1 - p); p is rounded to a multiple of 2^-16.

Noise u is keyed by seed, epoch, step and layer, and an activation is dropped where u < p: of two arms with equal seeds,
the one with the larger p drops what the other drops, and more. Drawn on the host or on a card, the masks are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from fanin.engine import philox
from fanin.recipe import Trial
from fanin.streams import BLOCK, Stream

_LEVELS = 2**16
_PER_BLOCK = 4 * BLOCK  # 16-bit numbers in a block of 64-bit words


def draw_masks(trials: Sequence[Trial], masks: Sequence[Tensor], epoch: int, step: int) -> None:
    """Fill the masks (M, B, H) of one step on the host, layer by layer."""
    for m, trial in enumerate(trials):
        cut, keep = _threshold(trial.recipe.dropout)
        for i, mask in enumerate(masks):
            noise = Stream(trial.seed, "dropout", epoch=epoch, step=step, layer=i).uint16(mask[m].numel())
            kept = torch.from_numpy(noise >= cut).view(mask[m].shape)
            mask[m].copy_(kept).mul_(keep)


def _threshold(p: float) -> tuple[int, float]:
    """What 16 bits must reach to be kept, and by how much a kept activation grows."""
    cut = min(round(p * _LEVELS), _LEVELS - 1)
    return cut, _LEVELS / (_LEVELS - cut)


class DeviceMasks:
    """Draws the masks (M, B, H) of M slots where they lie, each slot at its own epoch."""

    def __init__(self, masks: Sequence[Tensor], *, kernels: bool | None = None) -> None:
        self._masks, device, members = masks, masks[0].device, len(masks[0])
        self._keys = torch.zeros(members, 2, dtype=torch.int64, device=device)
        # 16-bit numbers are compared as signed ones, with their highest bit turned
        self._cut = torch.zeros(members, 1, dtype=torch.int16, device=device)
        self._keep = torch.zeros(members, 1, dtype=masks[0].dtype, device=device)
        blocks = max(-(-mask[0].numel() // _PER_BLOCK) for mask in masks)
        self._words = torch.zeros(members * blocks * BLOCK, dtype=torch.int64, device=device)
        self._kernels = device.type == "cuda" and find_spec("triton") is not None if kernels is None else kernels

    def admit(self, m: int, trial: Trial) -> None:
        """Slot m draws for this trial from now on."""
        cut, keep = _threshold(trial.recipe.dropout)
        self._keys[m] = philox.keys([trial.seed], "dropout")[0]
        self._cut[m], self._keep[m] = cut - _LEVELS // 2, keep

    def draw(self, epoch: Tensor, step: Tensor) -> None:
        """Fill the masks of one step, a tensor of one, at the slots' epochs (M,)."""
        for i, mask in enumerate(self._masks):
            count = mask[0].numel()
            noise = self._noise(-(-count // _PER_BLOCK) * BLOCK, i, epoch, step)
            kept = (noise[:, :count] ^ -(_LEVELS // 2)) >= self._cut
            mask.copy_((kept * self._keep).view(mask.shape))

    def _noise(self, count: int, layer: int, epoch: Tensor, step: Tensor) -> Tensor:
        """16-bit numbers (M, 4 * count), as int16."""
        if not self._kernels:
            return philox.words(self._keys, count, layer=layer, step=step, epoch=epoch).view(torch.int16)
        from fanin.engine import kernels  # loads Triton

        words = self._words[: len(self._keys) * count].view(-1, count)
        kernels.words(self._keys, words, layer=layer, step=step, epoch=epoch)
        return words.view(torch.int16)
