"""Signal by depth: second moments of activations and gradients layer by layer, one line per arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fanin.report.axes import linear_axis, log_axis
from fanin.report.labels import Label, shortened, spread
from fanin.report.measures import Band, LayerBand
from fanin.report.results import ArmSummary, StudySummary
from fanin.report.vega import ARM_COLOURS, PAPER, Axis, Frame, Layer, colour, layer, svg, text
from fanin.report.words import power_of_ten

Take = Callable[[LayerBand], Band | None]
LABEL_LENGTH = 24
# a factor between first and last layer from which on the label says it
NOTABLE = 100.0
MOST_DOTS = 64  # layers in a chart, beyond which dots would run into one another
NOTABLE_SHARE = 0.05  # of dead or saturated units, from which on an arm is shown


def forward(summary: StudySummary, title: str) -> str:
    """E[h^2] layer by layer before training, read from left to right; labels where the signal leaves."""
    return _chart(summary, lambda b: b.activation, "E[h²], activations", title, backward=False)


def backward(summary: StudySummary, title: str) -> str:
    """E[(dl/dz)^2] layer by layer before training, read from the right; labels where the gradient arrives."""
    return _chart(summary, lambda b: b.gradient, "E[(∂ℓ/∂z)²], gradients", title, backward=True)


def share(summary: StudySummary, field: str, title: str) -> str:
    """Share of dead units or saturated activations by layer after training, in percent."""
    shown = [i for i, arm in enumerate(summary.arms) if largest_share(arm, field) >= NOTABLE_SHARE]
    rows = {i: bands_at(summary.arms[i], last_epoch(summary.arms[i])) for i in shown}
    lines = {i: _line(bands, lambda b: getattr(b, field)) for i, bands in rows.items()}
    y = linear_axis([0.0, *(100 * b.high for line in lines.values() for _, b in line)], f"{field} units, %")
    scaled = {i: [(n, Band(100 * b.mean, 100 * b.low, 100 * b.high)) for n, b in line] for i, line in lines.items()}
    return _draw(summary, scaled, y, title, backward=False, suffix=lambda i: "")


def bands_at(arm: ArmSummary, epoch: int) -> list[LayerBand]:
    """The arm's layers at an epoch, first to last."""
    return [band for band in arm.signal if band.epoch == epoch]


def last_epoch(arm: ArmSummary) -> int:
    """The last epoch in which the arm's signal was observed (0: before training only)."""
    return max((band.epoch for band in arm.signal), default=0)


def largest_share(arm: ArmSummary, field: str) -> float:
    """The largest mean share of dead or saturated units in a layer after training; 0 if none was observed."""
    last = last_epoch(arm)
    found = [getattr(band, field) for band in bands_at(arm, last) if last > 0]
    return max((band.mean for band in found if band), default=0.0)


def decay(arm: ArmSummary) -> float | None:
    """Mean gradient of the first layer over that of the last, before training; None if unknown."""
    found = [b.gradient for b in bands_at(arm, 0) if b.gradient]
    return found[0].mean / found[-1].mean if len(found) > 1 and found[-1].mean > 0 else None


def _chart(summary: StudySummary, take: Take, y_title: str, title: str, *, backward: bool) -> str:
    lines = {i: _line(bands_at(arm, 0), take) for i, arm in enumerate(summary.arms)}
    values = [v for line in lines.values() for _, b in line for v in (b.mean, b.low, b.high)]
    positive = [v for v in values if v > 0]
    floor = [min(positive) / 10] if positive and min(values) <= 0 else []  # room for the zeros under the rest
    y = log_axis([*positive, *floor], y_title)

    def suffix(i: int) -> str:
        if not lines[i] or all(b.mean == 0 for _, b in lines[i][:1]):
            return " 0"
        factor = decay(summary.arms[i]) if backward else None
        return f" ×{power_of_ten(factor)}" if factor and not 1 / NOTABLE < factor < NOTABLE else ""

    return _draw(summary, lines, y, title, backward=backward, suffix=suffix)


def _line(bands: Sequence[LayerBand], take: Take) -> list[tuple[int, Band]]:
    return [(band.layer, found) for band in bands if (found := take(band)) is not None]


def _draw(
    summary: StudySummary,
    lines: dict[int, list[tuple[int, Band]]],
    y: Axis,
    title: str,
    *,
    backward: bool,
    suffix: Callable[[int], str],
) -> str:
    names = {i: shortened(summary.arms[i].name, LABEL_LENGTH) + suffix(i) for i, line in lines.items() if line}
    room = 18 + int(6.3 * max((len(name) for name in names.values()), default=0))
    frame = Frame(left=room, right=60, height=290) if backward else Frame(right=room, height=290)
    x = _layers([n for line in lines.values() for n, _ in line])
    layers = []
    for i, line in lines.items():
        layers += _arm(i, line, x, y, backward=backward)
    ends = {i: line[0 if backward else -1][1] for i, line in lines.items() if line}
    wanted = [Label(names[i], y.at(max(b.mean, y.low)), colour(i)) for i, b in ends.items()]
    for label in spread(wanted, 14 / frame.inner_height):
        at = -8 if backward else frame.inner_width + 8
        side = "right" if backward else "left"
        layers.append(text(label.text, label.colour, frame, x=at, at=label.placed, align=side))
    return svg(layers, frame, title)


def _layers(numbers: Sequence[int]) -> Axis:
    last = max(numbers, default=1)
    step = max(1, round(last / 10))
    ticks = [n for n in range(1, last + 1) if n in {1, last} or (n % step == 0 and last - n >= step)]
    air = 0.02 * last
    return Axis("linear", 1 - air, last + air, tuple(ticks), tuple(map(str, ticks)), "layer (last: output)")


def _arm(index: int, line: list[tuple[int, Band]], x: Axis, y: Axis, *, backward: bool) -> list[Layer]:
    log = y.kind == "log"
    zeros = [{"x": n, "y": y.low} for n, b in line if b.mean <= 0 and log]
    rows = [
        {"x": n, "y": b.mean, "a": max(b.low, y.low) if log else b.low, "b": b.high}
        for n, b in line
        if b.mean > 0 or not log
    ]
    ink = colour(index)
    x_is, y_is = x.x(), y.y(side="right" if backward else "left")
    low = y_is | {"field": "a"}
    area = {"color": ink, "opacity": 0.16}
    path = {"color": ink, "strokeWidth": 1.8, "strokeDash": [5, 3] if index >= len(ARM_COLOURS) else [1, 0]}
    dots = {"size": 20, "filled": True, "fill": PAPER, "stroke": ink, "strokeWidth": 1.4, "opacity": 1}
    none = {"shape": "triangle-down", "size": 42, "filled": True, "color": ink, "opacity": 1}
    parts = [
        layer(rows, "area", area, f"band{index}", x=x_is, y=low, y2={"field": "b"}),
        layer(rows, "line", path, f"mean{index}", x=x_is, y=y_is),
    ]
    if len(line) <= MOST_DOTS:
        parts.append(layer(rows, "point", dots, f"dots{index}", x=x_is, y=y_is))
    return [*parts, layer(zeros, "point", none, f"zeros{index}", x=x_is, y=y_is)] if zeros else parts
