"""Whether products in a stack are the bits that they are alone, or in another slot: asked of the machine itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from fanin.engine.buffers import buffer
from fanin.engine.products import Products, dense


def stacks_exactly(
    sizes: Sequence[int],
    batch: int,
    members: int,
    *,
    precision: str = "fp32",
    device: torch.device | str = "cpu",
    sparse: bool = False,
) -> bool:
    """Whether products of a stack equal each member's own, bit for bit, for these shapes on this machine.

    sparse: the first layer's products are sparse, which are computed member by member.
    """
    for compute, operands in list(_layers(sizes, batch, members, precision, device))[1 if sparse else 0 :]:
        together = compute(*operands)
        for m in range(members):
            alone = compute(*(t[m : m + 1] for t in operands))
            if not all(torch.equal(t[m : m + 1], a) for t, a in zip(together, alone, strict=True)):
                return False
    return True


def slots_alike(
    sizes: Sequence[int], batch: int, slots: int, *, precision: str = "fp32", device: torch.device | str = "cpu"
) -> bool:
    """Whether products in a stack of this size are the same bits in whatever slot they are computed."""
    for compute, operands in _layers(sizes, batch, slots, precision, device):
        here = compute(*operands)
        elsewhere = compute(*(t.roll(1, 0) for t in operands))
        if not all(torch.equal(a.roll(1, 0), b) for a, b in zip(here, elsewhere, strict=True)):
            return False
    return True


def _layers(
    sizes: Sequence[int], batch: int, members: int, precision: str, device: torch.device | str
) -> Iterator[tuple[Callable[..., list[Tensor]], list[Tensor]]]:
    """Each layer's three products as a function of random operands, and those."""
    generator = torch.Generator().manual_seed(0)
    layers = dense(len(sizes) - 1, precision)
    for i, (layer, (fan_in, fan_out)) in enumerate(zip(layers, pairwise(sizes), strict=True)):
        shapes = (members, batch, fan_in), (members, fan_out, fan_in), (members, batch, fan_out)
        operands = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
        yield partial(_products, layer, first=i == 0 and len(sizes) > 2, last=i == len(sizes) - 2), operands


def _products(layer: Products, x: Tensor, weight: Tensor, delta: Tensor, *, first: bool, last: bool) -> list[Tensor]:
    """A layer's three products of operands that are placed in memory as the engine places them."""
    x, weight, delta = _placed(x), _placed(weight, turned=first), _placed(delta, turned=last)
    outs = _placed(delta, turned=last), _placed(weight, turned=first), _placed(x)
    layer.forward(x, weight, delta.new_zeros(len(delta), 1, delta.shape[2]), outs[0])
    layer.by_weight(delta, outs[1])
    layer.by_input(outs[2])
    return list(outs)


def _placed(t: Tensor, *, turned: bool = False) -> Tensor:
    """A copy of t in a buffer of the engine's, with its last two axes exchanged in memory if `turned`."""
    if turned:
        return _placed(t.transpose(1, 2)).transpose(1, 2)
    return buffer(t, *t.shape).copy_(t)
