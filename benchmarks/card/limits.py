"""The bound on a card: what its memory and its products allow a trial-step, measured in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch

from bound import Product, step_products
from card.clock import Scale, captured, seconds, wait
from fanin.driver.plan import step_flop
from fanin.engine import matmul
from fanin.engine.data import Data
from fanin.engine.network import widths
from way import BATCH, NN

# Accesses of four bytes to every parameter in a step of Adam that passes once: the products write the gradient (1);
# the optimiser reads parameter, gradient and both moments (4) and writes parameter and both moments (3). What the
# products read of the weights is not counted: they may still lie in a cache.
ACCESSES = 8
_BYTES = 4
_REPEATS = 20  # runs in a sample: a single one is too short for a clock
_COPIED = {"cuda": 2**28, "cpu": 2**22}  # numbers: on a card 1 GiB, many times its cache


@dataclass(frozen=True)
class Limit:
    """What a trial-step takes at least, in microseconds: by memory (Adam in one pass) and by the products alone.

    flops: of the products of a stack of this size, in floating-point operations a second.
    """

    members: int
    precision: str
    memory_us: float
    products_us: float
    flops: float

    @property
    def us(self) -> float:
        """The bound: memory and products may overlap at best."""
        return max(self.memory_us, self.products_us)


def bandwidth(device: torch.device, rounds: int) -> float:
    """Bytes a second that a kernel reads and writes, on arrays much larger than caches."""
    source = torch.ones(_COPIED[device.type], device=device)
    target = torch.empty_like(source)

    def run() -> None:
        for _ in range(_REPEATS):
            torch.neg(source, out=target)  # `copy_` would be the driver's, which need not be a kernel

    run()
    taken = median(seconds(run, device) for _ in range(rounds))
    return 2 * source.numel() * _BYTES * _REPEATS / taken


def adam_bytes(sizes: Sequence[int]) -> int:
    """Bytes that Adam moves in a step of a network of these widths, if it passes once."""
    return ACCESSES * _BYTES * sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(sizes))


def limits(
    data: Data, sizes: Sequence[int], precisions: Sequence[str], speed: float, *, scale: Scale, device: torch.device
) -> Iterator[Limit]:
    """The bound at every size in every precision; `speed` is `bandwidth`'s."""
    layers = widths(NN, data.features, data.classes)
    memory = adam_bytes(layers) / speed * 1e6
    flop = step_flop(NN, data.features, data.classes)
    for precision in precisions:
        matmul.use("tf32" if precision == "tf32" else "blas")
        try:
            for members in sizes:
                each = _products_seconds(layers, members, precision, scale, device) / members
                yield Limit(members, precision, memory, each * 1e6, flop / each)
        finally:
            matmul.use("blas")


def _products_seconds(layers: list[int], members: int, precision: str, scale: Scale, device: torch.device) -> float:
    """Seconds of one step's products of a stack."""
    with device:
        products = step_products(layers, BATCH, members)
    if precision == "bf16":
        products = [(a.bfloat16(), b.bfloat16(), out.bfloat16()) for a, b, out in products]
    # several steps in a graph: launching one costs as much as a step of a small stack
    run = captured(_repeated(products), device)
    run()
    wait(device)
    return median(seconds(run, device) for _ in range(scale.rounds)) / _REPEATS


def _repeated(products: Sequence[Product]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(_REPEATS):
            for left, right, out in products:
                torch.bmm(left, right, out=out)

    return run
