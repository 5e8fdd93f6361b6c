"""Losses of a stack: each member's mean over its own batch, and the gradient by the outputs."""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch
from torch import Tensor


class Loss(Protocol):
    """(outputs (M, B, C), labels (M, B), scratch (M, B, C)) -> gradient (M, B, C) and losses (M,), in place."""

    def __call__(self, outputs: Tensor, labels: Tensor, scratch: Tensor, gradient: Tensor, losses: Tensor) -> None:
        """Fill `gradient` and `losses`; `scratch` is overwritten, `outputs` is not."""


def cross_entropy(outputs: Tensor, labels: Tensor, scratch: Tensor, gradient: Tensor, losses: Tensor) -> None:
    """loss = mean of -log softmax(z)[label]; gradient = (softmax(z) - one_hot(label)) / B."""
    index = labels.unsqueeze(2)
    torch.log_softmax(outputs, 2, out=scratch)
    torch.mean(scratch.gather(2, index).squeeze(2), 1, out=losses).neg_()
    torch.exp(scratch, out=gradient)
    _subtract_one_hot(gradient, index)
    gradient.mul_(_constant(1 / outputs.shape[1], outputs.dtype, outputs.device))


def mse(outputs: Tensor, labels: Tensor, scratch: Tensor, gradient: Tensor, losses: Tensor) -> None:
    """loss = mean over batch and outputs of (z - one_hot(label))^2; gradient = 2 (z - one_hot(label)) / (B C)."""
    gradient.copy_(outputs)
    _subtract_one_hot(gradient, labels.unsqueeze(2))
    torch.mul(gradient, gradient, out=scratch)
    torch.mean(scratch, (1, 2), out=losses)
    gradient.mul_(_constant(2 / (outputs.shape[1] * outputs.shape[2]), outputs.dtype, outputs.device))


def _subtract_one_hot(gradient: Tensor, index: Tensor) -> None:
    gradient.scatter_add_(2, index, _constant(-1, gradient.dtype, gradient.device).expand(index.shape))


@cache
def _constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number as a tensor: wrapping and converting it anew would cost more than the operation on a small batch."""
    return torch.full((1, 1, 1), value, dtype=dtype, device=device)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse}
