"""What is kept of a training that is watched: numbers that are added to for ever, in bounded memory."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

POINTS = 128  # of a curve: when there are twice as many, neighbours are merged
_WINDOW = 10  # looks: a unit is dead that was zero in this window and in the one before


@dataclass
class Running:
    """The first, the last, the largest and the mean of the finite values that were added."""

    count: int = 0
    mean: float = math.nan
    first: float = math.nan
    last: float = math.nan
    most: float = -math.inf

    def add(self, value: float) -> None:
        """One more value; what is not finite is left out."""
        if not math.isfinite(value):
            return
        self.count += 1
        self.first = value if self.count == 1 else self.first
        self.mean = value if self.count == 1 else self.mean + (value - self.mean) / self.count
        self.last, self.most = value, max(self.most, value)


@dataclass
class LossCurve:
    """The loss of every step as at most 2 * POINTS means, each over `stride` steps; start: that of the first step."""

    points: list[float] = field(default_factory=list)
    stride: int = 1
    steps: int = 0
    start: float = math.nan
    _open: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def add(self, value: float) -> None:
        """The loss of one more step; what is not finite counts as a step, and not in the means."""
        self.steps += 1
        if not math.isfinite(value):
            return
        if math.isnan(self.start):
            self.start = value
        self._open[0] += value
        self._open[1] += 1
        if self._open[1] >= self.stride:
            self.points.append(self._open[0] / self._open[1])
            self._open = [0.0, 0.0]
        if len(self.points) >= 2 * POINTS:
            self.points = [(a + b) / 2 for a, b in zip(self.points[::2], self.points[1::2], strict=True)]
            self.stride *= 2

    def part(self, low: float, high: float) -> tuple[float, float]:
        """Mean of the points between two shares of the curve, and its standard error (0 of a single point)."""
        n = len(self.points)
        chosen = self.points[int(low * n) : max(int(low * n) + 1, int(high * n))]
        error = statistics.stdev(chosen) / math.sqrt(len(chosen)) if len(chosen) > 1 else 0.0
        return statistics.fmean(chosen), error


@dataclass
class DeadUnits:
    """Units that were zero for every example of the looked-at batches, of the last ten looks and of up to ten more."""

    looks: int = 0
    _now: Tensor | None = None
    _before: Tensor | None = None

    def add(self, zero: Tensor) -> None:
        """Which units were zero throughout, one more batch. Other units than before start it anew."""
        if self._now is not None and self._now.shape != zero.shape:
            self._now, self._before, self.looks = None, None, 0
        if self.looks and self.looks % _WINDOW == 0:
            self._before, self._now = self._now, None
        self._now = zero if self._now is None else self._now & zero
        self.looks += 1

    @property
    def share(self) -> float:
        """Of all units; NaN before the first look."""
        if self._now is None:
            return math.nan
        dead = self._now if self._before is None else self._now & self._before
        return float(dead.double().mean())


@dataclass
class Layer:
    """One module's outputs h. output: E[h^2]; gradient: E[(d loss / dh)^2]; flat: the share of saturated entries.

    kind: "weighted", or the nonlinearity "relu", "tanh" or "sigmoid"; of a function called in forward, `name` is the
    layer that takes its result, and type says so.
    """

    name: str
    type: str
    kind: str
    output: Running = field(default_factory=Running)
    gradient: Running = field(default_factory=Running)
    flat: Running = field(default_factory=Running)
    dead: DeadUnits = field(default_factory=DeadUnits)

    def to_dict(self) -> dict[str, Any]:
        """As plain data: means over looks; None where nothing was seen."""
        return {
            "name": self.name,
            "type": self.type,
            "kind": self.kind,
            "activation": known(self.output.mean),
            "gradient": known(self.gradient.mean),
            "dead": known(self.dead.share),
            "saturated": known(self.flat.mean),
        }


@dataclass
class Weight:
    """One parameter. gradient: E[g^2] at the step; update: |change| / |weights| in it; silent: looks without either."""

    name: str
    matrix: bool
    gradient: Running = field(default_factory=Running)
    update: Running = field(default_factory=Running)
    silent: int = 0


@dataclass
class Seen:
    """All that is known of a training. looks: steps that were looked at; lrs: the largest rate at the last two."""

    steps: int = 0
    looks: int = 0
    every: int = 1
    losses: LossCurve = field(default_factory=LossCurve)
    layers: dict[str, Layer] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    lrs: list[float] = field(default_factory=list)
    evaluation_mode: int = 0
    order_matters: bool = False  # whether the network has parts that differ between modes


def known(value: float) -> float | None:
    """None for what is not finite, as JSON wants it."""
    return value if math.isfinite(value) else None


def second_moment(t: Tensor) -> float:
    """E[x^2], in float64, over at most about a million entries (the first examples)."""
    t = part(t.detach())
    wide = torch.float32 if t.device.type == "mps" else torch.float64
    return float(torch.linalg.vector_norm(t, dtype=wide)) ** 2 / t.numel()


def part(t: Tensor, most: int = 2**20) -> Tensor:
    """As many of the first examples as have about so many entries."""
    return t if t.numel() <= most or t.dim() < 2 else t[: max(1, len(t) * most // t.numel())]
