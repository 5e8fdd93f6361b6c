"""Sparse inputs: batches by their entries that are not zero.

Four fifths of MNIST's pixels are zero. A first layer that only touches the others does a fifth of the operations, by
gathering and adding rows of the weight (forward) and of the deltas (gradient by the weight): at half the rate of a
dense product, since it is the cache that limits it, but in less than half of the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LARGEST = 2**27  # entries of a part that is kept in sparse form too: four bytes and its own for each that is not zero
_ROWS = 512  # converted at a time
_BATCHES = 16  # made at a time: enough to share the cost of a call, few enough to stay in the cache

# What a core does (measured, docs/design/engine.md): dense and sparse operations a second, and seconds to make a batch.
_DENSE, _SPARSE, _MAKING = 9.5e10, 4.2e10, 1e-4


@dataclass(frozen=True)
class Entries:
    """The entries of a matrix (n, m) that are not zero, row by row: row i has those from starts[i] to starts[i + 1]."""

    starts: Tensor
    columns: Tensor
    values: Tensor

    def times(self, matrix: Tensor) -> Tensor:
        """The product with a dense matrix (m, k)."""
        # what functional.embedding_bag(mode="sum", include_last_offset=True) calls, without its checks
        return torch.embedding_bag(matrix, self.columns, self.starts, False, 0, False, self.values, True)[0]


@dataclass(frozen=True)
class SparseBatch:
    """One member's batch (B, D), and its transpose."""

    inputs: Entries
    transposed: Entries


class SparseInputs:
    """Stored inputs (N, D) by their entries that are not zero; batches are scaled."""

    def __init__(self, inputs: Tensor, scale: float) -> None:
        from scipy import sparse  # 70 ms, which a worker without sparse data need not wait for

        self._matrix = sparse.csr_array
        every = np.broadcast_to(np.arange(inputs.shape[1], dtype=np.int32), (_ROWS, inputs.shape[1]))
        starts, columns, values = [np.zeros(1, np.int64)], [], []
        for start in range(0, len(inputs), _ROWS):  # masks find entries four times faster than scipy does
            part = inputs[start : start + _ROWS].numpy()
            filled = part != 0
            starts.append(filled.sum(1))
            columns.append(every[: len(part)][filled])
            values.append(part[filled])
        content = np.concatenate(values), np.concatenate(columns), np.concatenate(starts).cumsum().astype(np.int32)
        self._rows: Any = self._matrix(content, shape=tuple(inputs.shape))
        self._scale = scale

    def block(self, start: int, stop: int, dtype: torch.dtype) -> Entries:
        """The rows from `start` to `stop`, scaled."""
        rows = self._rows[start:stop]
        return Entries(*map(torch.from_numpy, (rows.indptr, rows.indices, self._scaled(rows.data, dtype))))

    def _scaled(self, values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
        return values.astype(torch.empty(0, dtype=dtype).numpy().dtype) * self._scale

    def batches(self, index: Tensor, members: int, dtype: torch.dtype) -> Iterator[Sequence[SparseBatch]]:
        """Each member's batch, step by step; `index` (steps, M * B) as dense batches are gathered."""
        rows = index.numpy().reshape(len(index) * members, -1)
        step: list[SparseBatch] = []
        for start in range(0, len(rows), _BATCHES):
            for batch in self._make(rows[start : start + _BATCHES], dtype):
                step.append(batch)
                if len(step) == members:
                    yield step
                    step = []

    def _make(self, rows: np.ndarray, dtype: torch.dtype) -> Iterator[SparseBatch]:
        """Batches of the examples rows[i], i = 0 .. n - 1."""
        (count, size), width = rows.shape, self._rows.shape[1]
        block = self._rows[rows.ravel()]
        values = self._scaled(block.data, dtype)
        ends = block.indptr[::size]  # of each batch
        # One matrix in which every batch has columns of its own: its transpose is that of each batch, one by one.
        apart = block.indices + np.repeat(np.arange(count, dtype=np.int32) * width, np.diff(ends))
        turned: Any = self._matrix((values, apart, block.indptr), shape=(count * size, count * width)).tocsc()
        for i in range(count):
            part = slice(ends[i], ends[i + 1])
            starts, turned_starts = (
                torch.from_numpy(pointers[i * n : (i + 1) * n + 1] - ends[i])
                for pointers, n in ((block.indptr, size), (turned.indptr, width))
            )
            columns, examples = block.indices[part], turned.indices[part] - np.int32(i * size)
            yield SparseBatch(
                Entries(starts, torch.from_numpy(columns), torch.from_numpy(values[part])),
                Entries(turned_starts, torch.from_numpy(examples), torch.from_numpy(turned.data[part])),
            )


@dataclass(frozen=True)
class SparseParts:
    """Both parts of a data set."""

    train: SparseInputs
    test: SparseInputs


def density(inputs: Tensor) -> float:
    """Share of entries that are not zero; 1 for what is too large to be kept twice, or not in main memory."""
    if inputs.device.type != "cpu" or inputs.numel() > _LARGEST:
        return 1.0
    parts = (inputs[start : start + _ROWS].numpy() for start in range(0, len(inputs), _ROWS))
    return sum(int(np.count_nonzero(part)) for part in parts) / inputs.numel()


def pays(batch: int, features: int, width: int, density: float) -> bool:
    """Whether a first layer of `width` units gains: a question of recipe and data, never of how trials are packed.

    Counted are a step's forward and gradient by the weight, and what making a batch costs.
    """
    flop = 4.0 * batch * features * width
    return flop / _DENSE - density * flop / _SPARSE > _MAKING
