"""Data: a data set as tensors on one device, bytes kept as bytes; a batch is an index."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fanin.datasets import Dataset
from fanin.engine.sparse import SparseInputs, SparseParts, density, pays
from fanin.recipe import Recipe


@dataclass(frozen=True)
class Data:
    """Inputs (N, features) uint8 or float32 as stored, labels (N,); training sees inputs * scale.

    room: a folder, the same for all workers of a run, for what trials of equal seeds share. image_shape: height and
    width of the picture that a row is, None if it is none.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    scale: float
    classes: int
    room: Path | None = None
    image_shape: tuple[int, int] | None = None

    @classmethod
    def of(cls, dataset: Dataset, device: torch.device, *, room: Path | None = None) -> Data:
        """The data set on `device`; on the CPU its memory is shared, not copied."""
        parts = (dataset.train.inputs, dataset.train.labels, dataset.test.inputs, dataset.test.labels)
        return cls(
            *(_shared(p).to(device) for p in parts),
            scale=dataset.scale,
            classes=dataset.n_classes,
            room=room,
            image_shape=dataset.image_shape,
        )

    @property
    def features(self) -> int:
        """Width of a row."""
        return self.train_inputs.shape[1]

    def sparse(self, recipe: Recipe) -> SparseParts | None:
        """Inputs in sparse form, if the recipe's first hidden layer gains by it."""
        if not recipe.hidden:
            return None
        sizes = recipe.batch_size, self.features, recipe.hidden[0]
        # first by sizes alone, as if the data were all zero: only where that could pay are they looked through
        return self._sparse if pays(*sizes, 0.0) and pays(*sizes, self._density) else None

    @cached_property
    def _density(self) -> float:
        """Share of filled inputs, of the fuller part; 1 where a sparse form is not to be had."""
        return max(density(inputs) for inputs in (self.train_inputs, self.test_inputs))

    @cached_property
    def _sparse(self) -> SparseParts:
        return SparseParts(*(SparseInputs(inputs, self.scale) for inputs in (self.train_inputs, self.test_inputs)))


def _shared(array: np.ndarray) -> Tensor:
    """The array's own memory as a tensor."""
    with warnings.catch_warnings():
        # a user's file is mapped read-only, of which torch warns; nothing here writes to data
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


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

    def inputs(self, index: Tensor, out: Tensor) -> None:
        """out (M, B, D) = stored rows `index` (M * B,) * scale."""
        torch.index_select(self._inputs, 0, index, out=self._rows)
        out.copy_(self._stacked)
        if self._scale is not None:
            out.mul_(self._scale)

    def labels(self, index: Tensor, out: Tensor) -> None:
        """out (M, B) = labels of the rows `index` (M * B,)."""
        torch.index_select(self._labels, 0, index, out=out.view(-1))
