"""The three matrix products of a layer: forward, gradient by the weight, gradient by the input.

An `Arithmetic` says in which precision a product is computed: `Exact`, in the tensors' own, or `Half`. A layer's
`Products` say what is multiplied: whole matrices (`Dense`), or only the input columns in which a batch has anything at
all (`LiveColumns`). They keep what a forward has read until its gradients are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from fanin.engine.buffers import buffer, pitch
from fanin.engine.columns import Columns


class Arithmetic(Protocol):
    """How one layer's products are computed."""

    def operand(self, role: str, t: Tensor) -> Tensor:
        """t as a product reads it; valid until the next call with this role."""

    def result(self, like: Tensor) -> Tensor:
        """Where torch can write a product of two operands shaped as `like`: `like` itself or a buffer."""

    def multiply(self, a: Tensor, b: Tensor, out: Tensor, bias: Tensor | None = None) -> None:
        """out (M, i, j) = a (M, i, k) @ b (M, k, j) + bias, for two operands."""


class Exact:
    """Products in the tensors' own precision."""

    def operand(self, role: str, t: Tensor) -> Tensor:
        """t itself."""
        return t

    def result(self, like: Tensor) -> Tensor:
        """`like` itself."""
        return like

    def multiply(self, a: Tensor, b: Tensor, out: Tensor, bias: Tensor | None = None) -> None:
        """out = a @ b + bias."""
        torch.bmm(a, b, out=out)
        if bias is not None:
            out.add_(bias)


class Half:
    """Products of operands that are rounded to bfloat16: sums are float32 inside, the result is rounded once more.

    Whatever lasts (weights, gradients, the optimiser's state) and whatever is not a product stays float32.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.Size], Tensor] = {}

    def operand(self, role: str, t: Tensor) -> Tensor:
        """t rounded."""
        return self._room(role, t).copy_(t)

    def result(self, like: Tensor) -> Tensor:
        """A bfloat16 buffer."""
        return self._room("result", like)

    def multiply(self, a: Tensor, b: Tensor, out: Tensor, bias: Tensor | None = None) -> None:
        """out = a @ b + bias; the sum is not rounded."""
        rounded = self.result(out)
        torch.bmm(a, b, out=rounded)
        if bias is None:
            out.copy_(rounded)
        else:
            torch.add(rounded, bias, out=out)

    def _room(self, role: str, like: Tensor) -> Tensor:
        """A bfloat16 buffer, contiguous along the same axis: a copy that transposes costs as much as the product."""
        turned = like.stride(2) != 1
        key = (role + "^T" if turned else role, like.shape)
        if key not in self._buffers:
            rounded = torch.empty(0, dtype=torch.bfloat16, device=like.device)
            shape = like.transpose(1, 2).shape if turned else like.shape
            room = buffer(rounded, *shape)
            self._buffers[key] = room.transpose(1, 2) if turned else room
        return self._buffers[key]


def arithmetic(precision: str) -> Callable[[], Arithmetic]:
    """Makes the arithmetic of a recipe's `precision`, one for each layer; TF32 is a setting of the device."""
    return Half if precision == "bf16" else Exact


class Products(Protocol):
    """A layer's products: inputs (M, B, in), weight (M, out, in), bias (M, 1, out), delta = d loss / dz (M, B, out)."""

    def forward(self, inputs: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        """out (M, B, out) = inputs @ weight^T + bias."""

    def by_weight(self, delta: Tensor, out: Tensor) -> None:
        """out (M, out, in) = delta^T @ inputs, with the inputs of the last forward."""

    def by_input(self, out: Tensor) -> None:
        """out (M, B, in) = delta @ weight: the delta of the last `by_weight`, the weight of the last forward."""


class Dense:
    """Products of whole matrices."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self._arithmetic = arithmetic
        self._inputs = self._weight = self._delta = torch.empty(0)

    def forward(self, inputs: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        """out = inputs @ weight^T + bias."""
        self._inputs = self._arithmetic.operand("inputs", inputs)
        self._weight = self._arithmetic.operand("weight", weight)
        self._forward(bias, out)

    def _forward(self, bias: Tensor, out: Tensor) -> None:
        self._arithmetic.multiply(self._inputs, self._weight.transpose(1, 2), out, bias)

    def by_weight(self, delta: Tensor, out: Tensor) -> None:
        """out = delta^T @ inputs."""
        self._delta = self._arithmetic.operand("delta", delta)
        self._by_weight(out)

    def _by_weight(self, out: Tensor) -> None:
        self._arithmetic.multiply(self._delta.transpose(1, 2), self._inputs, out)

    def by_input(self, out: Tensor) -> None:
        """out = delta @ weight."""
        self._arithmetic.multiply(self._delta, self._weight, out)


class FirstLayer(Dense):
    """The first hidden layer, whose weight lies in memory input by input: its gradient is written in that order."""

    def _by_weight(self, out: Tensor) -> None:
        self._arithmetic.multiply(self._inputs.transpose(1, 2), self._delta, out.transpose(1, 2))


class ClassesFirst(Dense):
    """The last layer, whose outputs lie in memory class by class: a softmax over few classes is ten times faster so."""

    def _forward(self, bias: Tensor, out: Tensor) -> None:
        turned = bias.transpose(1, 2)
        self._arithmetic.multiply(self._weight, self._inputs.transpose(1, 2), out.transpose(1, 2), turned)


def dense(layers: int, precision: str) -> list[Products]:
    """The dense products of so many layers, first to last; the last one's are exact, as usual in mixed precision."""
    make = arithmetic(precision)
    products: list[Products] = [FirstLayer(make()), *(Dense(make()) for _ in range(layers - 2))]
    return [*products[: layers - 1], ClassesFirst(Exact())]


class LiveColumns:
    """The first layer's products without the input columns that are zero in the whole batch; never one by the input.

    Each member has its own columns, so it is multiplied alone. What is left out are exact zeros: only the order of the
    sums differs from the dense products, and that by the batch alone, not by the stack.
    """

    def __init__(self, weight: Tensor, batch: int, precision: str) -> None:
        members, fan_out, fan_in = weight.shape
        make = arithmetic(precision)
        self._arithmetic = [make() for _ in range(members)]
        self._batch, self._fan_out = batch, fan_out
        self._inputs = weight.new_empty(members, pitch(batch * fan_in))
        self._weight = weight.new_empty(pitch(fan_in * fan_out))
        rounded = self._arithmetic[0].result(weight[:1])
        self._gradient = rounded.new_zeros(pitch((fan_in + 1) * fan_out))  # its first row stays zero
        self._operands = [torch.empty(0)] * members
        self._sized: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self._columns: Sequence[Columns] = ()

    def choose(self, columns: Sequence[Columns]) -> None:
        """The live columns of each member's next batch."""
        self._columns = columns

    def forward(self, inputs: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        """out = inputs @ weight^T + bias."""
        for m, columns in enumerate(self._columns):
            chosen, rows, _, _ = self._views(m, len(columns.live))
            torch.index_select(inputs[m], 1, columns.live, out=chosen[0])
            torch.index_select(weight[m].T, 0, columns.live, out=rows[0])
            arithmetic = self._arithmetic[m]
            self._operands[m] = arithmetic.operand("inputs", chosen)
            rows = arithmetic.operand("weight", rows)
            arithmetic.multiply(self._operands[m], rows, out[m : m + 1], bias[m : m + 1])

    def by_weight(self, delta: Tensor, out: Tensor) -> None:
        """out = delta^T @ inputs: zero in the columns that were left out."""
        for m, columns in enumerate(self._columns):
            _, _, gradient, padded = self._views(m, len(columns.live))
            arithmetic = self._arithmetic[m]
            each = arithmetic.operand("delta", delta[m : m + 1])
            torch.bmm(self._operands[m].transpose(1, 2), each, out=gradient)
            rounded = arithmetic.result(out[m : m + 1])
            torch.index_select(padded, 0, columns.place, out=rounded[0].T)
            if rounded.dtype != out.dtype:
                out[m].copy_(rounded[0])

    def by_input(self, out: Tensor) -> None:
        """Nothing lies below the first layer."""
        raise NotImplementedError

    def _views(self, m: int, live: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Member m's inputs (1, B, live), weight's rows and gradient (1, live, out), gradient behind a row of zeros."""
        key = (m, live)
        if key not in self._sized:
            width = self._fan_out
            self._sized[key] = (
                self._inputs[m, : self._batch * live].view(1, self._batch, live),
                self._weight[: live * width].view(1, live, width),
                self._gradient[width : (live + 1) * width].view(1, live, width),
                self._gradient[: (live + 1) * width].view(live + 1, width),
            )
        return self._sized[key]
