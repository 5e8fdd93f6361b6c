"""One arm's trials column by column: what every number of a report is computed from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from fanin.record import Epoch, Record
from fanin.store import Columns

FIELDS = tuple(field.name for field in dataclasses.fields(Epoch) if field.name not in ("epoch", "seconds"))


class BySeed(Mapping[int, float]):
    """Finite numbers by seed, sixteen bytes each: a dictionary of a million would take a hundred times a table's."""

    def __init__(self, seeds: np.ndarray, values: np.ndarray) -> None:
        """Seeds in rising order, and a value for each; those that are not finite are left out."""
        kept = np.isfinite(values)
        self.seeds, self.numbers = seeds[kept], values[kept]

    def __getitem__(self, seed: int) -> float:
        place = int(np.searchsorted(self.seeds, seed))
        if place == len(self.seeds) or self.seeds[place] != seed:
            raise KeyError(seed)
        return float(self.numbers[place])

    def __iter__(self) -> Iterator[int]:
        return iter(self.seeds.tolist())

    def __len__(self) -> int:
        return len(self.seeds)

    def paired(self, other: BySeed) -> tuple[list[float], list[float]]:
        """The numbers of both at the seeds that both have, in the order of seeds."""
        _, mine, theirs = np.intersect1d(self.seeds, other.seeds, assume_unique=True, return_indices=True)
        return self.numbers[mine].tolist(), other.numbers[theirs].tolist()


class SeedCurves(Sequence[tuple[float | None, ...]]):
    """A metric epoch by epoch: one curve per trial, as long as the trial; None where nothing finite was measured.

    values: (trials, epochs of the longest), NaN for None and beyond a curve's end. lengths: (trials,).
    """

    def __init__(self, values: np.ndarray, lengths: np.ndarray) -> None:
        self.values, self.lengths = values, lengths

    @overload
    def __getitem__(self, index: int) -> tuple[float | None, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> SeedCurves: ...
    def __getitem__(self, index: int | slice) -> tuple[float | None, ...] | SeedCurves:
        if isinstance(index, slice):
            return SeedCurves(self.values[index], self.lengths[index])
        curve = self.values[index, : self.lengths[index]].tolist()
        return tuple(v if v == v else None for v in curve)  # noqa: PLR0124 - only NaN differs from itself

    def __len__(self) -> int:
        return len(self.lengths)

    def ends(self) -> np.ndarray:
        """What each trial measured in its last epoch, where that is finite."""
        at = np.flatnonzero(self.lengths)
        found = self.values[at, self.lengths[at] - 1]
        return found[np.isfinite(found)]

    def column(self, epoch: int) -> np.ndarray:
        """What was measured in an epoch (from 1) of the trials that came so far."""
        found = self.values[:, epoch - 1]
        return found[np.isfinite(found)]


@dataclass(frozen=True)
class Trials:
    """One arm's trials in the order of seeds, finite numbers only, NaN for all others.

    heads: records without epochs and signal. done, failed: of each trial, whether it is. lengths: epochs it measured.
    curves: of each field of an epoch (trials, epochs of the longest). signal: a row per trial, epoch and layer, namely
    the trial's place, epoch, layer, and the five numbers of `fanin.record.LayerSignal`.
    """

    heads: Sequence[Record]
    seeds: np.ndarray
    done: np.ndarray
    failed: np.ndarray
    lengths: np.ndarray
    curves: Mapping[str, np.ndarray]
    signal: np.ndarray

    @classmethod
    def of(cls, columns: Columns) -> Trials:
        """The trials as the store gives them."""
        heads = columns.heads
        seeds = np.array([head.seed for head in heads], dtype=np.int64)
        owner = np.searchsorted(seeds, columns.epochs[:, 0])
        lengths = np.bincount(owner, minlength=len(heads))
        place = np.arange(len(owner)) - (np.cumsum(lengths) - lengths)[owner]  # of an epoch within its trial
        shape = (len(heads), int(lengths.max(initial=0)))
        finite = _finite(columns.epochs)
        curves = {name: _grid(finite[:, 3 + i], owner, place, shape) for i, name in enumerate(FIELDS)}
        signal = _finite(columns.layers)
        signal[:, 0] = np.searchsorted(seeds, columns.layers[:, 0])
        return cls(
            heads=heads,
            seeds=seeds,
            done=np.array([head.status == "done" for head in heads], dtype=bool),
            failed=np.array([head.status == "failed" for head in heads], dtype=bool),
            lengths=lengths,
            curves=curves,
            signal=signal,
        )

    def first(self, field: str) -> np.ndarray:
        """A field in the first epoch of every trial."""
        curve = self.curves[field]
        return curve[:, 0] if curve.shape[1] else np.full(len(curve), np.nan)

    def last(self, field: str) -> np.ndarray:
        """A field in the last measured epoch of every trial."""
        curve = self.curves[field]
        if not curve.shape[1]:
            return np.full(len(curve), np.nan)
        found = curve[np.arange(len(curve)), np.maximum(self.lengths - 1, 0)]
        return np.where(self.lengths > 0, found, np.nan)

    def by_seed(self, values: np.ndarray, among: np.ndarray) -> BySeed:
        """One number per trial of those that a mask selects."""
        return BySeed(self.seeds, np.where(among, values, np.nan))


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _grid(values: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Values at their places, NaN elsewhere; a metric that nobody measured takes no memory."""
    if not np.isfinite(values).any():
        return np.broadcast_to(np.nan, shape)
    grid = np.full(shape, np.nan)
    grid[row, column] = values
    return grid
