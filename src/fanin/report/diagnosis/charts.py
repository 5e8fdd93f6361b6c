"""Charts of a diagnosis: what each experiment learnt, the loss by step, the loss by learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fanin.report.axes import linear_axis, log_axis, value_axis
from fanin.report.diagnosis.words import GIVEN, percent
from fanin.report.labels import shortened
from fanin.report.vega import INK, Axis, Frame, Layer, colour, layer, svg, text

_ROW = 26  # pixels of a bar and the air around it
_NAME = 38  # characters of an experiment's name
_REST, _OWN, _MARK = 0, 1, 2  # colours: others, as given, what is suggested


def experiments(rows: Sequence[tuple[str, float]]) -> str:
    """A bar for each experiment: the share of the task that it learnt; the training as given stands out."""
    names = [shortened(name, _NAME) for name, _ in rows]
    left = 22 + int(6.4 * max(map(len, names)))
    frame = Frame(width=left + 380, height=_ROW * len(rows) + 52, left=left, right=48, top=6, bottom=46)
    ticks = (0, 0.25, 0.5, 0.75, 1)
    x = Axis("linear", 0.0, 1.0, ticks, tuple(f"{100 * t:g}" for t in ticks), "share of the task learnt, %")
    y = Axis("linear", -0.5, len(rows) - 0.5, (), (), "")
    drawn: list[Layer] = []
    for i, (name, share) in enumerate(rows):
        at = len(rows) - 1 - i
        shown = min(1.0, max(0.0, share))
        look = {"color": colour(_OWN if name == GIVEN else _REST), "strokeWidth": _ROW - 10, "opacity": 1}
        bar = [{"a": 0.0, "b": max(shown, 0.004), "y": at}]
        # the plot has no scale of its own upwards: bars stand at whole numbers
        channel = y.y() | {"axis": None}
        drawn.append(layer(bar, "rule", look, f"bar{i}", x=x.x("a"), x2={"field": "b"}, y=channel))
        height = (at + 0.5) / len(rows)
        drawn.append(_plain(text(names[i], INK, frame, x=-10, at=height, align="right")))
        drawn.append(_plain(text(percent(share), INK, frame, x=frame.inner_width * shown + 7, at=height, align="left")))
    return svg(drawn, frame, "Share of the task learnt: " + ", ".join(f"{n} {percent(s)}" for n, s in rows))


def losses(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """The loss by step, a line for each name; without names where there is one."""
    points = [point for _, line in lines for point in line]
    x, y = linear_axis([0, max(step for step, _ in points)], "step"), value_axis([v for _, v in points], "loss")
    several = len(lines) > 1
    frame = Frame(right=18 + (int(6.6 * max(len(shortened(n, 22)) for n, _ in lines)) if several else 0))
    drawn: list[Layer] = []
    for i, (name, line) in enumerate(lines):
        rows = [{"x": step, "y": value} for step, value in line]
        ink = colour(_OWN if i == 0 else _REST)
        drawn.append(layer(rows, "line", {"color": ink, "strokeWidth": 1.6}, f"loss{i}", x=x.x(), y=y.y()))
        if several:
            at = min(1.0, max(0.0, y.at(line[-1][1]))) + (0.03 if i else -0.03)
            drawn.append(text(shortened(name, 22), ink, frame, x=frame.inner_width + 8, at=at, align="left"))
    return svg(drawn, frame, "Loss by step" + (": " + ", ".join(name for name, _ in lines) if several else ""))


def rates(plain: Mapping[str, Any]) -> str:
    """Smoothed loss by learning rate, a thin line for each seed; a rule at the suggestion, a band over the seeds."""
    lines = [list(zip(plain["rates"], test["losses"], strict=False)) for test in plain["tests"]]
    start = max((line[0][1] for line in lines if line), default=1.0)
    shown = [[(r, v) for r, v in line if v <= 2 * abs(start)] for line in lines]  # what diverges would flatten the rest
    values = [v for line in shown for _, v in line] or [0.0, 1.0]
    x, y = log_axis(plain["rates"], "learning rate", ticks=9), linear_axis(values, "smoothed loss")
    frame = Frame(width=560, height=290, right=22, top=22)
    drawn: list[Layer] = []
    if plain["suggestion"] is not None:
        band = [{"a": plain["low"], "b": plain["high"], "y": y.low, "z": y.high}]
        area = {"color": colour(_MARK), "opacity": 0.16}
        up, top = y.y(), {"field": "z"}
        drawn.append(layer(band, "rect", area, "seeds", x=x.x("a"), x2={"field": "b"}, y=up, y2=top))
        rule = [{"x": plain["suggestion"], "y": y.low, "z": y.high}]
        look = {"color": colour(_MARK), "strokeWidth": 2}
        drawn.append(layer(rule, "rule", look, "suggestion", x=x.x(), y=up, y2=top))
        place = frame.inner_width * x.at(plain["suggestion"])
        drawn.append(text(f"{plain['suggestion']:.1e}", colour(_MARK), frame, x=place, at=1.04, align="center"))
    for i, line in enumerate(shown):
        rows = [{"x": rate, "y": value} for rate, value in line]
        look = {"color": colour(_REST), "strokeWidth": 1.3, "opacity": 0.75}
        drawn.append(layer(rows, "line", look, f"seed{i}", x=x.x(), y=y.y()))
    return svg(drawn, frame, "Smoothed loss by learning rate, a line for each seed")


def _plain(made: Layer) -> Layer:
    made["mark"] |= {"fontWeight": "normal"}
    return made
