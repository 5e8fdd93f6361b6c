"""Learning curves: a thin line per seed in the arm's colour, of many seeds a band; what was published over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from fanin.report.axes import accuracy_axis, linear_axis, value_axis
from fanin.report.bounds import MOST_SEEDS, QUANTILES
from fanin.report.labels import Label, shortened, spread
from fanin.report.results import ArmSummary, StudySummary
from fanin.report.vega import INK, PAPER, Axis, Frame, Layer, colour, layer, svg, text
from fanin.report.words import LABELS, RATES

LABEL_LENGTH = 22
PANEL = Frame(width=230, height=150, left=44, right=8, top=8, bottom=22)


@dataclass(frozen=True)
class _Plot:
    """What all layers of a chart of curves share: the metric, both axes, and what is plotted for a value."""

    metric: str
    x: Axis
    y: Axis
    plotted: Callable[[float], float]

    @classmethod
    def of(cls, arms: Sequence[ArmSummary], metric: str, *, titled: bool) -> _Plot:
        """Axes that hold all arms, and what was published of them."""
        y, plotted = _axis(arms, metric, LABELS[metric] if titled else "")
        return cls(metric, _epochs(arms, metric, "epoch" if titled else ""), y, plotted)

    def layer(self, rows: Sequence[Mapping[str, Any]], mark: str, look: dict[str, Any], name: str) -> Layer:
        """A layer on these axes, one line per `s` of its rows."""
        split = {"detail": {"field": "s", "type": "nominal"}} if mark == "line" else {}
        return layer(rows, mark, look, name, x=self.x.x(), y=self.y.y(), **split)


def together(summary: StudySummary, metric: str, title: str) -> str:
    """All arms in one chart with direct labels."""
    arms = summary.arms
    plot = _Plot.of(arms, metric, titled=True)
    names = [shortened(arm.name, LABEL_LENGTH) for arm in arms]
    frame = Frame(right=14 + int(6.4 * max(len(name) for name in names)))
    layers = [part for i, arm in enumerate(arms) for part in _seeds(arm, i, plot)]
    layers += [part for i, arm in enumerate(arms) for part in _published(arm, i, plot)]
    return svg([*layers, *_names(arms, names, frame, plot)], frame, title)


def alone(summary: StudySummary, metric: str, index: int, title: str) -> str:
    """One arm of many: its seeds in colour, the other arms' means in grey; all panels share their axes."""
    plot = _Plot.of(summary.arms, metric, titled=False)
    arm = summary.arms[index]
    others = [row for i, other in enumerate(summary.arms) if i != index for row in _means(other, plot)]
    grey = plot.layer(others, "line", {"color": INK, "strokeWidth": 0.8, "opacity": 0.28}, "others")
    return svg([grey, *_seeds(arm, index, plot), *_published(arm, index, plot)], PANEL, title)


def has_curve(summary: StudySummary, metric: str) -> bool:
    """Whether some trial measured the metric in at least two epochs."""
    return any((np.isfinite(arm.curves[metric].values).sum(axis=1) > 1).any() for arm in summary.arms)


def has_band(summary: StudySummary) -> bool:
    """Whether some arm has too many seeds for a line each."""
    return any(_banded(arm) for arm in summary.arms)


def _banded(arm: ArmSummary) -> bool:
    return len(arm.seeds) > MOST_SEEDS


def has_published(summary: StudySummary, metric: str) -> bool:
    """Whether somebody published that curve for one of the arms."""
    return any(_printed(arm, metric) for arm in summary.arms)


def _printed(arm: ArmSummary, metric: str) -> tuple[float, ...]:
    """The curve that was published for the arm; none over runs on other data."""
    found = arm.comparison
    return getattr(found.published, metric, ()) if found and found.same_data else ()


def _values(arms: Sequence[ArmSummary], metric: str) -> list[float]:
    ours = [v for arm in arms for v in _drawn(arm, metric)]
    return [*ours, *(v for arm in arms for v in _printed(arm, metric))]


def _drawn(arm: ArmSummary, metric: str) -> list[float]:
    """All numbers of an arm that a chart has a place for."""
    if _banded(arm):
        return [v for _, *quantiles in _quantiles(arm, metric) for v in quantiles]
    values = arm.curves[metric].values
    return values[np.isfinite(values)].tolist()


def _quantiles(arm: ArmSummary, metric: str) -> list[tuple[int, float, float, float]]:
    """By epoch (from 1), the bounds and the middle of the trials that came so far."""
    columns = _columns(arm, metric)
    return [(t, *np.quantile(values, QUANTILES).tolist()) for t, values in columns if len(values)]


def _columns(arm: ArmSummary, metric: str) -> list[tuple[int, np.ndarray]]:
    curves = arm.curves[metric]
    return [(t, curves.column(t)) for t in range(1, curves.values.shape[1] + 1)]


def _axis(arms: Sequence[ArmSummary], metric: str, title: str) -> tuple[Axis, Callable[[float], float]]:
    values = _values(arms, metric)
    if metric in RATES:
        return accuracy_axis(values, title)
    axis = value_axis(values, title)
    return axis, lambda v: max(v, axis.low) if axis.kind == "log" else v


def _epochs(arms: Sequence[ArmSummary], metric: str, title: str) -> Axis:
    ours = [int(arm.curves[metric].lengths.max(initial=0)) for arm in arms]
    last = max(ours + [len(_printed(arm, metric)) for arm in arms])
    base = linear_axis([1, last], title)
    step = 1 if last <= 6 else 5 if last <= 30 else 5 * round(last / 25)
    ticks = sorted({1, last, *range(step, last, step)})
    if len(ticks) > 2 and ticks[-1] - ticks[-2] < 0.08 * last:
        del ticks[-2]
    return Axis("linear", 1 - 0.02 * last, base.high, tuple(ticks), tuple(map(str, ticks)), title)


def _rows(arm: ArmSummary, plot: _Plot) -> list[dict[str, float]]:
    return [
        {"x": epoch, "y": plot.plotted(value), "s": seed}
        for seed, curve in zip(arm.seeds, arm.curves[plot.metric], strict=True)
        for epoch, value in enumerate(curve, 1)
        if value is not None
    ]


def _means(arm: ArmSummary, plot: _Plot) -> list[dict[str, float | str]]:
    by_epoch = [(t, values.tolist()) for t, values in _columns(arm, plot.metric)]
    return [{"x": t, "y": plot.plotted(fmean(vs)), "s": arm.name} for t, vs in by_epoch if vs]


def _band(arm: ArmSummary, index: int, plot: _Plot) -> list[Layer]:
    found = _quantiles(arm, plot.metric)
    area = [{"x": t, "y": plot.plotted(low), "b": plot.plotted(high)} for t, low, _, high in found]
    line = [{"x": t, "y": plot.plotted(middle), "s": arm.name} for t, _, middle, _ in found]
    pale = {"color": colour(index), "opacity": 0.18}
    thick = {"color": colour(index), "strokeWidth": 1.8, "strokeJoin": "round"}
    return [
        layer(area, "area", pale, f"band{index}", x=plot.x.x(), y=plot.y.y(), y2={"field": "b"}),
        plot.layer(line, "line", thick, f"median{index}"),
    ]


def _seeds(arm: ArmSummary, index: int, plot: _Plot) -> list[Layer]:
    if _banded(arm):
        return _band(arm, index, plot)
    rows = _rows(arm, plot)
    thin = {"color": colour(index), "strokeWidth": 1.2, "opacity": 0.6, "strokeJoin": "round"}
    lines = plot.layer(rows, "line", thin, f"seeds{index}")
    diverged = {t.seed for t in arm.troubles if t.status == "diverged"}
    ends = {row["s"]: row for row in rows if row["s"] in diverged}
    if not ends:
        return [lines]
    cross = {"text": "×", "fontSize": 18, "color": colour(index)}
    return [lines, plot.layer(list(ends.values()), "text", cross, f"diverged{index}")]


def _published(arm: ArmSummary, index: int, plot: _Plot) -> list[Layer]:
    rows = [{"x": e, "y": plot.plotted(v), "s": 0} for e, v in enumerate(_printed(arm, plot.metric), 1)]
    if not rows:
        return []
    dotted = {"color": INK, "strokeWidth": 1.3, "strokeDash": [2, 3], "opacity": 0.9}
    rings = {"size": 22, "fill": PAPER, "stroke": INK, "strokeWidth": 1.3, "opacity": 1, "filled": True}
    return [
        plot.layer(rows, "line", dotted, f"published{index}"),
        plot.layer(rows, "point", rings, f"published{index}dots"),
    ]


def _names(arms: Sequence[ArmSummary], names: Sequence[str], frame: Frame, plot: _Plot) -> list[Layer]:
    wanted = []
    for i, (arm, name) in enumerate(zip(arms, names, strict=True)):
        ends = sorted(arm.curves[plot.metric].ends().tolist())
        if ends:
            wanted.append(Label(name, plot.y.at(plot.plotted(ends[len(ends) // 2])), colour(i)))
    return [
        text(label.text, label.colour, frame, x=frame.inner_width + 6, at=label.placed, align="left")
        for label in spread(wanted, 14 / frame.inner_height)
    ]
