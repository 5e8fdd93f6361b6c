"""Ticks and domains: linear, logarithmic, and accuracy by its error where arms differ by decades."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from fanin.report.vega import Axis
from fanin.report.words import MINUS, SUPERSCRIPT

DECADES_FOR_LOG = 1.5


def spans_decades(values: Iterable[float], decades: float = DECADES_FOR_LOG) -> bool:
    """Whether the positive values span more than so many powers of ten."""
    positive = [v for v in values if v > 0]
    return bool(positive) and math.log10(max(positive) / min(positive)) > decades


def value_axis(values: Iterable[float], title: str, *, ticks: int = 5) -> Axis:
    """Logarithmic if the values are positive and span more than 1.5 decades, else linear."""
    known = list(values)
    if known and min(known) > 0 and spans_decades(known):
        return log_axis(known, title, ticks=ticks)
    return linear_axis(known, title, ticks=ticks)


def linear_axis(values: Iterable[float], title: str, *, ticks: int = 5) -> Axis:
    """Round ticks around the values."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    air = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - air, high + air
    step = _round_step((high - low) / ticks)
    places = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    texts = tuple(f"{p:.{decimals}f}".replace("-", MINUS) for p in places)
    return Axis("linear", low, high, tuple(places), texts, title)


def log_axis(values: Iterable[float], title: str, *, ticks: int = 6) -> Axis:
    """Powers of ten, thinned to about `ticks`; 1, 2, 5 within less than two decades."""
    positive = [v for v in values if v > 0 and math.isfinite(v)] or [0.1, 1.0]
    air = max((max(positive) / min(positive)) ** 0.04, 1.2)
    low, high = min(positive) / air, max(positive) * air
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    if last - first < 2:
        exponents = range(math.floor(math.log10(low)), last + 1)
        places: list[float] = []
        halves = [n / 2 for n in range(2, 20)]
        for mantissas in ([1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7], halves):
            if len(places) < 3:
                places = [m * 10.0**e for e in exponents for m in mantissas if low <= m * 10.0**e <= high]
        return Axis("log", low, high, tuple(places), tuple(f"{p:g}" for p in places), title)
    step = math.ceil((last - first + 1) / ticks)
    chosen = [e for e in range(first, last + 1) if e % step == 0]
    plain = min(chosen) >= -4 and max(chosen) <= 4
    texts = tuple(f"{10.0**e:g}" if plain else "10" + str(e).translate(SUPERSCRIPT) for e in chosen)
    return Axis("log", low, high, tuple(10.0**e for e in chosen), texts, title)


def error(accuracy: float) -> float:
    """1 - accuracy, at least 1e-4: where an accuracy sits on a scale of the error."""
    return max(1 - accuracy, 1e-4)


def accuracy_axis(values: Iterable[float], title: str) -> tuple[Axis, Callable[[float], float]]:
    """The axis and what is plotted on it: percent, or the error on a log scale if errors differ tenfold."""
    known = list(values)
    if known and spans_decades([error(v) for v in known], 1.0):
        base = log_axis([error(v) for v in known], title)
        marks = (0.9, 0.8, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
        ticks: tuple[float, ...] = ()
        for mark in marks:  # from the worst accuracy to the best, none so near to the last that texts would touch
            if base.low <= mark <= base.high and (not ticks or base.at(ticks[-1]) - base.at(mark) > 0.075):
                ticks = (*ticks, mark)
        texts = tuple(f"{100 * (1 - m):g} %" for m in ticks)
        return Axis("log", base.low, base.high, ticks, texts, title, reverse=True), error
    base = linear_axis([100 * v for v in known], title)
    texts = tuple(f"{text} %" for text in base.texts)
    return Axis("linear", base.low, base.high, base.ticks, texts, title), lambda v: 100 * v


def points_axis(values: Iterable[float], title: str) -> Axis:
    """Differences in points around 0: linear, or symmetric-logarithmic if one dwarfs the others."""
    known = [*values, 0.0]
    sizes = sorted(abs(v) for v in known if v)
    if not sizes or sizes[-1] < 10 or sizes[-1] < 20 * sizes[0]:
        return linear_axis(known, title)
    places = [s * m for s in (-1, 1) for m in (0.1, 1, 10, 100)] + [0.0]
    low, high = min(known) * 1.3 - 0.05, max(known) * 1.3 + 0.05
    ticks = tuple(p for p in sorted(places) if low <= p <= high)
    texts = tuple(f"{p:g}".replace("-", MINUS) for p in ticks)
    return Axis("symlog", low, high, ticks, texts, title, constant=0.1)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
