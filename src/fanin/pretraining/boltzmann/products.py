"""The three products of a machine's weights, in float32 (or float64) or of operands rounded to bfloat16.

Whatever lasts (weights, velocities, offsets) keeps its precision; a product of bfloat16 operands sums in float32 and is
rounded once more when it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

PRECISIONS = ("fp32", "bf16")


class Products:
    """Products with weights W (hidden, visible), which may change between calls of `refresh`."""

    def __init__(self, weights: Tensor, precision: str) -> None:
        self.weights, self._half = weights, precision == "bf16"
        self._rooms: dict[tuple[str, torch.Size], Tensor] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take notice that the weights have changed."""
        self._read = self._operand("weights", self.weights)

    def up(self, v: Tensor, out: Tensor) -> None:
        """out (rows, hidden) = v W^T."""
        self._multiply(self._operand("v", v), self._read.T, out)

    def down(self, h: Tensor, out: Tensor) -> None:
        """out (rows, visible) = h W."""
        self._multiply(self._operand("h", h), self._read, out)

    def outer(self, h: Tensor, v: Tensor, out: Tensor) -> None:
        """out (hidden, visible) = h^T v: summed over rows."""
        self._multiply(self._operand("h", h).T, self._operand("v", v), out)

    def _operand(self, role: str, t: Tensor) -> Tensor:
        return self._room(role, t).copy_(t) if self._half else t

    def _multiply(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        if self._half:
            out.copy_(torch.mm(a, b, out=self._room("result", out)))
        else:
            torch.mm(a, b, out=out)

    def _room(self, role: str, like: Tensor) -> Tensor:
        key = (role, like.shape)
        if key not in self._rooms:
            self._rooms[key] = torch.empty(like.shape, dtype=torch.bfloat16, device=like.device)
        return self._rooms[key]


@contextmanager
def full_precision() -> Iterator[None]:
    """Within, float32 products are float32's, whatever this process allows elsewhere (TF32, bfloat16)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
