"""Live columns: the input columns in which a batch has anything but zeros.

In a batch of 100 digits a third of the pixels are zero throughout (in MNIST 67 of 784 are in every picture). A product
need not multiply them, and their weights' gradients are zero without being computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_LARGEST = 2**31  # entries of a training set that is looked through: beyond, its map of zeros is itself a burden
_ROWS = 8192  # looked through at a time
_STEPS = 64  # whose columns are found at a time
_MULTIPLE = 16  # of so many columns: few different shapes (oneDNN prepares each once), rows on whole registers
# Gathering costs about as much as a product over a batch of ten, and some 30 microseconds whatever the size.
_SMALLEST_BATCH = 32
_WORTH_FLOP = 1e7


@dataclass(frozen=True)
class Columns:
    """live: columns with anything in a batch, and a few others. place (D,): 1 + a column's position there, else 0."""

    live: Tensor
    place: Tensor


class ColumnMap:
    """Where the rows of `inputs` (N, D) are not zero, one bit an entry."""

    def __init__(self, inputs: Tensor) -> None:
        self._features = inputs.shape[1]
        parts, counts = [], np.zeros(self._features, np.int64)
        for rows in inputs.split(_ROWS):
            filled = (rows != 0).numpy()
            counts += filled.sum(0)
            parts.append(np.packbits(filled, axis=1))
        self._bits = np.concatenate(parts)
        self._filled = counts / len(inputs)

    def pays(self, batch: int, width: int) -> bool:
        """Whether batches of this size have enough empty columns for a first layer of `width` units to gain."""
        live = 1 - (1 - self._filled) ** batch
        return _saved_flop(batch, self._features, width, float(live.mean())) >= _WORTH_FLOP

    def of(self, index: Tensor, members: int) -> Iterator[Sequence[Columns]]:
        """The columns of each member, step by step; `index` (steps, M * B) as the batches are gathered."""
        for part in index.split(_STEPS):
            found = self._find(part.numpy().reshape(len(part) * members, -1))
            yield from (found[start : start + members] for start in range(0, len(found), members))

    def _find(self, rows: np.ndarray) -> list[Columns]:
        """Columns of each row of `rows` (n, B), example numbers."""
        # example by example, and not step by step: the reduction then runs along whole rows of bits
        bits = np.bitwise_or.reduce(self._bits.take(rows.T, axis=0), axis=0)
        live = np.unpackbits(bits, axis=1, count=self._features).view(bool)
        empty = np.cumsum(~live, axis=1, dtype=np.int32)
        live |= empty <= -live.sum(1, keepdims=True) % _MULTIPLE  # the first empty columns fill up
        places = np.cumsum(live, axis=1, dtype=np.int32) * live
        return [
            Columns(torch.from_numpy(np.flatnonzero(each)), torch.from_numpy(place))
            for each, place in zip(live, places, strict=True)
        ]


def might_pay(inputs: Tensor, batch: int, width: int) -> bool:
    """Whether leaving columns out could pay, by sizes alone: so that only then the data are looked through."""
    possible = batch >= _SMALLEST_BATCH and inputs.numel() <= _LARGEST and inputs.device.type == "cpu"
    return possible and _saved_flop(batch, inputs.shape[1], width, live=0.0) >= _WORTH_FLOP


def _saved_flop(batch: int, features: int, width: int, live: float) -> float:
    """Operations of a step that are left out with this share of live columns: forward and gradient by the weight."""
    return 4.0 * batch * features * width * (1 - live)
