"""Losses of a stack: each member's mean over its own batch, and the gradient by the outputs.

Outputs come class by class, (M, C, B): reductions over a handful of classes then run along the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fanin.engine.buffers import buffer, pitch, whole


class Loss(ABC):
    """`compute` makes `losses` (M,) and their gradient `deltas` (M, C, B) of `scores` (M, C, B) and `labels` (M, B)."""

    def __init__(self, members: int, classes: int, batch: int, *, like: Tensor) -> None:
        self.scores, self.deltas, self._scratch = (buffer(like, members, classes, batch) for _ in range(3))
        self.labels = torch.zeros(members, batch, dtype=torch.int64, device=like.device)
        self.losses = like.new_zeros(members)
        self._batch, self._classes = batch, classes
        starts = torch.arange(members, device=like.device) * pitch(classes * batch)
        self._starts = starts.unsqueeze(1) + torch.arange(batch, device=like.device)
        self._places = torch.empty_like(self.labels)  # of each example's own class in a flat buffer
        self._flat_deltas, self._flat_scratch = whole(self.deltas), whole(self._scratch)
        self._minus_one = like.new_full((members * batch,), -1)

    @abstractmethod
    def compute(self) -> None:
        """Fill `losses` and `deltas`; `scores` is left as it is."""

    def _subtract_one_hot(self) -> None:
        torch.add(self._starts, self.labels, alpha=self._batch, out=self._places)
        self._flat_deltas.index_add_(0, self._places.view(-1), self._minus_one)


class CrossEntropy(Loss):
    """loss = mean of -log softmax(z)[label]; gradient = (softmax(z) - one_hot(label)) / B."""

    def __init__(self, members: int, classes: int, batch: int, *, like: Tensor) -> None:
        super().__init__(members, classes, batch, like=like)
        self._picked = like.new_empty(members, batch)
        self._share = like.new_tensor(1 / batch)  # a tensor: a number is wrapped and converted anew at every call

    def compute(self) -> None:
        """Fill `losses` and `deltas`."""
        torch.log_softmax(self.scores, 1, out=self._scratch)
        torch.exp(self._scratch, out=self.deltas)
        self._subtract_one_hot()
        self.deltas.mul_(self._share)
        torch.index_select(self._flat_scratch, 0, self._places.view(-1), out=self._picked.view(-1))
        torch.mean(self._picked, 1, out=self.losses).neg_()


class MeanSquaredError(Loss):
    """loss = mean over batch and outputs of (z - one_hot(label))^2; gradient = 2 (z - one_hot(label)) / (B C)."""

    def __init__(self, members: int, classes: int, batch: int, *, like: Tensor) -> None:
        super().__init__(members, classes, batch, like=like)
        self._share = like.new_tensor(2 / (batch * classes))

    def compute(self) -> None:
        """Fill `losses` and `deltas`."""
        self.deltas.copy_(self.scores)
        self._subtract_one_hot()
        torch.mul(self.deltas, self.deltas, out=self._scratch)
        torch.mean(self._scratch, (1, 2), out=self.losses)
        self.deltas.mul_(self._share)


LOSSES: dict[str, type[Loss]] = {"cross_entropy": CrossEntropy, "mse": MeanSquaredError}
