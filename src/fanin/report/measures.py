"""Numbers of one arm over its seeds: a metric's values with their interval, and the signal layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fanin.record import LayerSignal, Record
from fanin.statistics import mean_interval


@dataclass(frozen=True)
class Measure:
    """A metric over seeds: `values` by seed, and mean with a 95 % interval (None where there are too few)."""

    values: Mapping[int, float]
    mean: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Mapping[int, float]) -> Measure:
        """Of at least no value; values that are not finite are left out."""
        kept = {seed: value for seed, value in values.items() if math.isfinite(value)}
        if not kept:
            return cls({}, None, None, None)
        found = mean_interval(list(kept.values()))
        return cls(kept, found.mean, found.low, found.high)


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


def metric(record: Record, name: str) -> float | None:
    """One trial's metric (`fanin.study.Metric`): a finished trial's last, unless its name says otherwise."""
    if name == "train_cost_first_epoch":
        return number(record.epochs[0].train_cost) if record.status != "failed" and record.epochs else None
    if name == "gradient_ratio":
        return gradient_ratio(record)
    if record.final is None:
        return None
    return number(getattr(record.final, "test_accuracy" if name == "accuracy" else name))


def metrics(records: Iterable[Record], name: str) -> dict[int, float]:
    """A metric by seed; trials without it are absent."""
    return {r.seed: value for r in records if (value := metric(r, name)) is not None}


def gradient_ratio(record: Record) -> float | None:
    """E[(dl/dz_1)^2] / E[(dl/dz_L)^2] before training: near 0 where the gradient vanishes on its way."""
    start = [s for s in record.signal if s.epoch == 0]
    if record.status == "failed" or not start:
        return None
    first, last = number(start[0].gradient_second_moment), number(start[-1].gradient_second_moment)
    return number(first / last) if first is not None and last else None


def signal_bands(records: Sequence[Record]) -> tuple[LayerBand, ...]:
    """Layer by layer before training (epoch 0), then at the last epoch that was observed."""
    rows = [s for r in records if r.status != "failed" for s in r.signal]
    if not rows:
        return ()
    shown = {0, max(s.epoch for s in rows)}
    places: dict[tuple[int, int], list[LayerSignal]] = {}
    for row in rows:
        if row.epoch in shown:
            places.setdefault((row.epoch, row.layer), []).append(row)
    return tuple(_layer(epoch, layer, here) for (epoch, layer), here in sorted(places.items()))


def _layer(epoch: int, layer: int, rows: list[LayerSignal]) -> LayerBand:
    def band(take: Callable[[LayerSignal], float | None]) -> Band | None:
        values = [v for row in rows if (v := number(take(row))) is not None]
        return Band(sum(values) / len(values), min(values), max(values)) if values else None

    return LayerBand(
        epoch=epoch,
        layer=layer,
        activation=band(lambda s: s.activation_second_moment),
        gradient=band(lambda s: s.gradient_second_moment),
        weight_gradient=band(lambda s: s.weight_gradient_norm),
        dead=band(lambda s: s.dead),
        saturated=band(lambda s: s.saturated),
    )
