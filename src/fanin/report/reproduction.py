"""Published numbers against our seeds: each point inside or outside the spread; is the arm reproduced?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fanin.report.trials import BySeed, Trials
from fanin.report.words import LABELS, RATES
from fanin.statistics import SEEDS_FOR_A_BAND, spread_band
from fanin.study import Arm, Published

# the fields of fanin.study.Published, and the metric of an epoch that each one speaks of
SERIES = {"train_cost": "train_cost", "train_loss": "train_loss", "train_accuracy": "train_accuracy"}
SERIES |= {"test_loss": "test_loss", "test_accuracy": "test_accuracy"}
ROUNDED = "the rounding of the printed number, within which it lies inside"
FINAL = {"accuracy": "test_accuracy", "accuracy_on_raw_pixels": "accuracy_on_raw_pixels"}
# What `fanin.datasets` computes for the data that numbers were published for. The name alone proves nothing: the files
# of Fashion-MNIST are called like those of MNIST, and the real MNIST may lie in a folder of any name.
FINGERPRINTS = {"mnist": "2ca13d58b859dc92"}


@dataclass(frozen=True)
class Point:
    """One published number and the band of our seeds; no band where no seed of ours measured it."""

    series: str
    epoch: int | None  # from 1; None for a number printed once, at the end
    value: float
    low: float | None
    high: float | None
    reason: str = ""  # for a point outside: what is known about why, empty if nothing

    @property
    def inside(self) -> bool:
        """Low <= value <= high."""
        return self.low is not None and self.high is not None and self.low <= self.value <= self.high


@dataclass(frozen=True)
class Comparison:
    """An arm's published numbers against its seeds; without a verdict `why_not` says why, no `points`.

    `same_data`: whether the seeds were trained on the data that the numbers were published for.
    """

    published: Published
    points: tuple[Point, ...]
    why_not: str = ""
    same_data: bool = True

    @property
    def inside(self) -> int:
        """How many points lie inside."""
        return sum(point.inside for point in self.points)

    @property
    def score(self) -> str:
        """Points inside of all points, such as "15/15"; empty without a verdict."""
        return f"{self.inside}/{len(self.points)}" if self.points else ""

    @property
    def outside(self) -> tuple[Point, ...]:
        """The points that are not inside."""
        return tuple(point for point in self.points if not point.inside)

    @property
    def reproduced(self) -> bool | None:
        """Whether all points lie inside; None without a verdict."""
        return not self.outside if self.points else None


def compare(arm: Arm, trials: Trials, data: Mapping[str, Any]) -> Comparison | None:
    """The arm's published numbers against its finished seeds; None if nothing was published.

    `data`: what the seeds were trained on, with its `name` and `fingerprint`.
    """
    if arm.published is None or not _printed(arm.published):
        return None
    done = trials.done & (trials.lengths > 0)
    if other := _other_data(arm.published.data, data):
        why = f"the published numbers are for {arm.published.data}, this ran on {other}"
        return Comparison(arm.published, (), why, same_data=False)
    if done.sum() < SEEDS_FOR_A_BAND:
        why = f"published numbers need at least {SEEDS_FOR_A_BAND} finished seeds, {done.sum()} finished"
        return Comparison(arm.published, (), why)
    points = tuple(_point(series, epoch, value, trials, done) for series, epoch, value in _printed(arm.published))
    return Comparison(arm.published, tuple(_explained(p, points, arm.published.if_outside) for p in points))


def distances(trials: Trials, printed: Sequence[float]) -> BySeed:
    """By seed, the mean over the printed epochs of |ln(train_cost / printed)|, of trials that finished all of them.

    exp(distance) is the factor by which the two curves differ on (geometric) average.
    """
    found = np.full(len(trials.heads), np.nan)
    curves = trials.curves["train_cost"]
    if printed and min(printed) > 0 and curves.shape[1] >= len(printed):
        ours = curves[:, : len(printed)]
        for i in np.flatnonzero(trials.done & (ours > 0).all(axis=1)):  # NaN is not > 0
            pairs = zip(ours[i].tolist(), printed, strict=True)
            found[i] = math.fsum(abs(math.log(a / b)) for a, b in pairs) / len(printed)
    return trials.by_seed(found, trials.done)


def _other_data(wanted: str, data: Mapping[str, Any]) -> str:
    """What the data is called if it is not the wanted data; empty if it is."""
    name, fingerprint = str(data.get("name", "unknown data")), data.get("fingerprint")
    if wanted not in FINGERPRINTS:
        return "" if name == wanted else name
    if fingerprint == FINGERPRINTS[wanted]:
        return ""
    return name if name != wanted else f"other data of that name (fingerprint {fingerprint})"


def _printed(published: Published) -> list[tuple[str, int | None, float]]:
    curves = [(name, i, value) for name in SERIES for i, value in enumerate(getattr(published, name), 1)]
    finals = [(name, None, value) for name in FINAL if (value := getattr(published, name)) is not None]
    return [*curves, *finals]


def _point(series: str, epoch: int | None, value: float, trials: Trials, done: np.ndarray) -> Point:
    field = (SERIES | FINAL)[series]
    curve = trials.curves[field]
    if epoch is None:
        found = trials.last(field)
    else:
        found = curve[:, epoch - 1] if epoch <= curve.shape[1] else np.full(len(curve), np.nan)
    ours = found[done & np.isfinite(found)].tolist()
    band = spread_band(ours, value, cost=field not in RATES)
    return Point(series, epoch, value, *(band or (None, None)))


def _explained(point: Point, points: Sequence[Point], if_outside: str) -> Point:
    if point.inside:
        return point
    if point.low is None or point.high is None:
        return dataclasses.replace(point, reason=f"this study did not measure the {LABELS[point.series]} there")
    half = _rounding([p.value for p in points if p.series == point.series])
    rounded = point.low - half <= point.value <= point.high + half
    return dataclasses.replace(point, reason=ROUNDED if rounded else if_outside)


def _rounding(values: Sequence[float]) -> float:
    """Half a unit of the last digit that was printed in a series."""
    return 0.5 * 10.0 ** -max(len(f"{v!r}".partition(".")[2]) if "e" not in f"{v!r}" else 12 for v in values)
