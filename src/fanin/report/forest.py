"""One row per arm: final accuracies seed by seed, of many seeds a bar, and paired differences to the first arm."""

from __future__ import annotations

from typing import Any

import numpy as np

from fanin.report.axes import accuracy_axis, points_axis
from fanin.report.bounds import MOST_SEEDS, QUANTILES
from fanin.report.labels import shortened
from fanin.report.results import StudySummary
from fanin.report.vega import INK, PAPER, Frame, Layer, colour, layer, svg, text
from fanin.statistics import Difference

LABEL_LENGTH = 26
ROW = 24  # pixels


def accuracies(summary: StudySummary, title: str) -> str:
    """A dot per seed and a bar at the mean of each arm's final test accuracy."""
    arms = summary.arms
    numbers = [arm.accuracy.values.numbers for arm in arms]
    shown = [_ends(found) if len(found) > MOST_SEEDS else found.tolist() for found in numbers]
    values = [v for row in shown for v in row]
    axis, plotted = accuracy_axis(values, "test accuracy, last epoch")
    x, y = axis.x(), _rows(len(arms))
    frame, layers = _names([(i, arm.name) for i, arm in enumerate(arms)])
    for row, arm in enumerate(arms):
        if len(numbers[row]) > MOST_SEEDS:
            low, high = map(plotted, shown[row])
            wide = {"strokeWidth": 5, "opacity": 0.3, "color": colour(row)}
            ends = [{"x": low, "x2": high, "r": row}]
            layers.append(layer(ends, "rule", wide, f"band{row}", x=x, y=y, x2={"field": "x2"}))
        else:
            dots = [{"x": plotted(v), "r": row} for v in shown[row]]
            look = {"filled": True, "size": 26, "opacity": 0.5, "color": colour(row)}
            layers.append(layer(dots, "point", look, f"seeds{row}", x=x, y=y))
        if arm.accuracy.mean is not None:
            mean = [{"x": plotted(arm.accuracy.mean), "r": row}]
            bar = {"thickness": 2, "size": 15, "color": colour(row)}
            layers.append(layer(mean, "tick", bar, f"mean{row}", x=x, y=y))
    return svg(layers, frame, title)


def differences(summary: StudySummary, title: str) -> str:
    """Accuracy minus the first arm's: mean (filled if claimed), simultaneous interval, seeds as ticks."""
    shown = [(i, arm.name, arm.difference) for i, arm in enumerate(summary.arms) if arm.difference]
    ends = [100 * v for _, _, d in shown for v in (d.low, d.high, d.mean, *_ticks(d)) if v is not None]
    axis = points_axis(ends, f"points above or below {shortened(summary.arms[0].name, LABEL_LENGTH)}")
    x, y = axis.x(), _rows(len(shown))
    frame, layers = _names([(i, name) for i, name, _ in shown])
    layers.append(layer([{"x": 0}], "rule", {"color": INK, "opacity": 0.55}, "zero", x=x))
    for row, (i, _, d) in enumerate(shown):
        ink = colour(i)
        seeds = [{"x": 100 * v, "r": row} for v in _ticks(d)]
        tick = {"thickness": 1, "size": 9, "color": ink, "opacity": 0.55}
        layers.append(layer(seeds, "tick", tick, f"seeds{i}", x=x, y=y))
        if d.low is not None and d.high is not None:
            bar = [{"x": 100 * d.low, "x2": 100 * d.high, "r": row}]
            thick = {"strokeWidth": 2, "color": ink}
            layers.append(layer(bar, "rule", thick, f"interval{i}", x=x, y=y, x2={"field": "x2"}))
        fill = ink if d.verdict in {"higher", "lower"} else PAPER
        dot = {"size": 60, "filled": True, "fill": fill, "stroke": ink, "strokeWidth": 1.8, "opacity": 1}
        layers.append(layer([{"x": 100 * d.mean, "r": row}], "point", dot, f"mean{i}", x=x, y=y))
    return svg(layers, frame, title)


def _ends(values: np.ndarray) -> list[float]:
    """From the 5 % to the 95 % quantile."""
    return np.quantile(values, (QUANTILES[0], QUANTILES[-1])).tolist()


def _ticks(found: Difference) -> tuple[float, ...]:
    """The differences seed by seed, of so many seeds that they can be told apart."""
    return found.values if found.n <= MOST_SEEDS else ()


def _names(rows: list[tuple[int, str]]) -> tuple[Frame, list[Layer]]:
    """A frame with a row per arm, and the arms' names at its left in their colours."""
    names = [shortened(name, LABEL_LENGTH) for _, name in rows]
    left = 16 + int(6.3 * max(len(name) for name in names))
    frame = Frame(height=ROW * len(rows) + 56, left=left, right=22, top=8, bottom=48)
    places = [1 - (row + 0.5) / len(rows) for row in range(len(rows))]
    return frame, [
        text(name, colour(i), frame, x=-10, at=at, align="right")
        for (i, _), name, at in zip(rows, names, places, strict=True)
    ]


def _rows(count: int) -> dict[str, Any]:
    scale = {"domain": [count - 0.5, -0.5], "nice": False, "zero": False}
    return {"field": "r", "type": "quantitative", "scale": scale, "axis": None}
