"""Data: a data set as tensors on one device, bytes kept as bytes; a batch is an index."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fanin.datasets import Dataset
from fanin.engine.columns import ColumnMap, might_pay


@dataclass(frozen=True)
class Data:
    """Inputs (N, features) uint8 or float32 as stored, labels (N,); training sees inputs * scale."""

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    scale: float
    classes: int

    @classmethod
    def of(cls, dataset: Dataset, device: torch.device) -> Data:
        """The data set on `device`; on the CPU its memory is shared, not copied."""
        parts = (dataset.train.inputs, dataset.train.labels, dataset.test.inputs, dataset.test.labels)
        return cls(*(torch.from_numpy(p).to(device) for p in parts), scale=dataset.scale, classes=dataset.n_classes)

    @property
    def features(self) -> int:
        """Width of a row."""
        return self.train_inputs.shape[1]

    def columns(self, batch: int, width: int) -> ColumnMap | None:
        """Where training inputs are not zero, if a first layer of `width` units gains by leaving empty columns out."""
        if might_pay(self.train_inputs, batch, width) and self._column_map.pays(batch, width):
            return self._column_map
        return None

    @cached_property
    def _column_map(self) -> ColumnMap:
        return ColumnMap(self.train_inputs)


class Gatherer:
    """Gathers the batches of all members in one go, as bytes if stored so, and scales them; without allocating."""

    def __init__(
        self, inputs: Tensor, labels: Tensor, scale: float, members: int, batch: int, *, dtype: torch.dtype
    ) -> None:
        self._inputs, self._labels = inputs, labels
        # a tensor, not a number: a number is wrapped and converted anew at every call
        self._scale = None if scale == 1 else torch.tensor(scale, dtype=dtype, device=inputs.device)
        self._rows = inputs.new_empty(members * batch, inputs.shape[1])
        self._stacked = self._rows.view(members, batch, -1)

    def __call__(self, index: Tensor, inputs: Tensor, labels: Tensor) -> None:
        """inputs (M, B, D) = stored rows `index` (M * B,) * scale; labels (M, B) = their labels."""
        torch.index_select(self._inputs, 0, index, out=self._rows)
        inputs.copy_(self._stacked)
        if self._scale is not None:
            inputs.mul_(self._scale)
        torch.index_select(self._labels, 0, index, out=labels.view(-1))
