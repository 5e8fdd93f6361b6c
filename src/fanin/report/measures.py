"""Numbers of one arm over its seeds: a metric's values with their interval, and the signal layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fanin.report.trials import BySeed, Trials
from fanin.statistics import mean_interval

# columns of Trials.signal, and what the numbers in them become
_EPOCH, _LAYER, _FIRST_NUMBER = 1, 2, 3
_NUMBERS = ("activation", "gradient", "weight_gradient", "dead", "saturated")


@dataclass(frozen=True)
class Measure:
    """A metric over seeds: `values` by seed, and mean with a 95 % interval (None where there are too few)."""

    values: BySeed
    mean: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: BySeed) -> Measure:
        """Of at least no value."""
        if not len(values):
            return cls(values, None, None, None)
        found = mean_interval(values.numbers.tolist())
        return cls(values, found.mean, found.low, found.high)


@dataclass(frozen=True)
class Band:
    """Mean over seeds, and the smallest and largest seed."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class LayerBand:
    """The signal through one layer over all seeds; units as in `fanin.record.LayerSignal`."""

    epoch: int
    layer: int
    activation: Band | None
    gradient: Band | None
    weight_gradient: Band | None
    dead: Band | None
    saturated: Band | None


def number(value: float | None) -> float | None:
    """A finite number, or None for NaN, an infinity or nothing (SQLite stores NaN as NULL)."""
    return value if value is not None and math.isfinite(value) else None


def metrics(trials: Trials, name: str) -> BySeed:
    """A metric (`fanin.study.Metric`) by seed: a finished trial's last, unless its name says otherwise.

    Trials without it are absent.
    """
    if name == "train_cost_first_epoch":
        return trials.by_seed(trials.first("train_cost"), ~trials.failed)
    if name == "gradient_ratio":
        return trials.by_seed(_gradient_ratios(trials), ~trials.failed)
    return trials.by_seed(trials.last("test_accuracy" if name == "accuracy" else name), trials.done)


def _gradient_ratios(trials: Trials) -> np.ndarray:
    """E[(dl/dz_1)^2] / E[(dl/dz_L)^2] before training: near 0 where the gradient vanishes on its way."""
    start = trials.signal[trials.signal[:, _EPOCH] == 0]
    owners, first = np.unique(start[:, 0].astype(np.int64), return_index=True)
    last = np.append(first[1:], len(start)) - 1
    gradient = start[:, _FIRST_NUMBER + _NUMBERS.index("gradient")]
    found = np.full(len(trials.heads), np.nan)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found[owners] = gradient[first] / gradient[last] if len(owners) else np.nan
    return found


def signal_bands(trials: Trials) -> tuple[LayerBand, ...]:
    """Layer by layer before training (epoch 0), then at the last epoch that was observed."""
    rows = trials.signal[~trials.failed[trials.signal[:, 0].astype(np.int64)]]
    if not len(rows):
        return ()
    rows = rows[np.isin(rows[:, _EPOCH], (0, rows[:, _EPOCH].max()))]
    places = np.unique(rows[:, _EPOCH:_FIRST_NUMBER], axis=0)
    return tuple(
        LayerBand(int(epoch), int(layer), *_bands(rows[(rows[:, _EPOCH] == epoch) & (rows[:, _LAYER] == layer)]))
        for epoch, layer in places
    )


def _bands(rows: np.ndarray) -> list[Band | None]:
    columns = [rows[:, i][np.isfinite(rows[:, i])].tolist() for i in range(_FIRST_NUMBER, rows.shape[1])]
    return [Band(sum(values) / len(values), min(values), max(values)) if values else None for values in columns]
