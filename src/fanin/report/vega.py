"""From Vega-Lite layers to an inline SVG that follows the page's theme; palette and axes of all charts."""

from __future__ import annotations

import hashlib
import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import vl_convert

# Stand-ins that vl-convert draws with; in the SVG they become CSS variables, with a fallback outside the page.
INK, PAPER = "#010203", "#040506"
# Okabe and Ito's colours (2008), distinct for the common kinds of colour blindness, fitted to each theme.
ARM_COLOURS = tuple(f"#0a0b{i:02x}" for i in range(1, 9))
_FALLBACK = ("#0072b2", "#d55e00", "#009e73", "#b3589a", "#a67c00", "#2f9bd8", "#6b6b6b", "#8c4a2f")
_THEME = {INK: "currentColor", PAPER: "var(--paper, #fff)"} | {
    colour: f"var(--arm-{i}, {value})" for i, (colour, value) in enumerate(zip(ARM_COLOURS, _FALLBACK, strict=True), 1)
}

Layer = dict[str, Any]

_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "aria": False,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "tickColor": INK,
        "domainColor": INK,
        "gridColor": INK,
        "gridOpacity": 0.1,
        "domainOpacity": 0.4,
        "tickOpacity": 0.4,
        "labelOpacity": 0.75,
        "titleOpacity": 0.85,
        "labelFontSize": 11,
        "titleFontSize": 11.5,
        "titleFontWeight": "normal",
        "titlePadding": 7,
        "tickSize": 4,
    },
    "text": {"color": INK, "fontSize": 11.5},
}


@dataclass(frozen=True)
class Frame:
    """A chart's size in pixels and its inner margins; what is left is the plot."""

    width: int = 470
    height: int = 270
    left: int = 56
    right: int = 18
    top: int = 10
    bottom: int = 42

    @property
    def inner_width(self) -> int:
        """Width of the plot."""
        return self.width - self.left - self.right

    @property
    def inner_height(self) -> int:
        """Height of the plot."""
        return self.height - self.top - self.bottom


@dataclass(frozen=True)
class Axis:
    """A scale fixed in advance, so that labels can be set in pixels: domain, ticks and their texts."""

    kind: str  # "linear", "log" or "symlog"
    low: float
    high: float
    ticks: tuple[float, ...]
    texts: tuple[str, ...]
    title: str
    reverse: bool = False
    constant: float = 1.0  # of symlog: linear within, logarithmic beyond

    def x(self, field: str = "x") -> dict[str, Any]:
        """As the horizontal channel of a layer, without grid lines."""
        return self._channel(field, {"grid": False})

    def y(self, field: str = "y", *, side: str = "left") -> dict[str, Any]:
        """As the vertical channel of a layer: grid lines instead of a rule and ticks."""
        return self._channel(field, {"domain": False, "ticks": False, "orient": side})

    def _channel(self, field: str, look: dict[str, Any]) -> dict[str, Any]:
        # "nice" and "zero" off, and exactly these ticks and texts: labels are placed in pixels and must fit
        domain = [self.high, self.low] if self.reverse else [self.low, self.high]
        scale: dict[str, Any] = {"type": self.kind, "domain": domain, "nice": False, "zero": False}
        if self.kind == "symlog":
            scale["constant"] = self.constant
        cases = "".join(
            f"abs(datum.value - {tick!r}) <= {abs(tick) * 1e-9 + 1e-15!r} ? '{text}' : "
            for tick, text in zip(self.ticks, self.texts, strict=True)
        )
        axis = {
            "values": list(self.ticks),
            "labelExpr": f"{cases}''",
            "labelOverlap": False,
            "title": self.title,
        }
        return {"field": field, "type": "quantitative", "scale": scale, "axis": axis | look}

    def at(self, value: float) -> float:
        """Position in [0, 1] of a value on a linear or log axis, from left to right or from below."""
        if self.kind == "log":
            found = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            found = (value - self.low) / (self.high - self.low)
        return 1 - found if self.reverse else found


def colour(index: int) -> str:
    """The colour of the arm at that place of a study (stand-in; eight of them, then from the start again)."""
    return ARM_COLOURS[index % len(ARM_COLOURS)]


def layer(rows: Sequence[Mapping[str, Any]], mark: str, look: Mapping[str, Any], name: str, **encoding: Any) -> Layer:
    """One Vega-Lite layer: a mark for the rows; `name` becomes a class in the SVG."""
    return {
        "data": {"values": list(rows)},
        "mark": {"type": mark, **look},
        "name": name,
        "encoding": encoding,
    }


def text(words: str, ink: str, frame: Frame, *, x: float, at: float, align: str) -> Layer:
    """A direct label at pixel x and a height in [0, 1]; names are cut to fit before they come here."""
    look = {"align": align, "baseline": "middle", "text": words, "color": ink, "fontWeight": "bold"}
    place = {"x": {"value": x}, "y": {"value": frame.inner_height * (1 - at)}}
    return {"data": {"values": [{}]}, "mark": {"type": "text", **look}, "encoding": place}


def spec(layers: Sequence[Layer], frame: Frame) -> dict[str, Any]:
    """The complete Vega-Lite specification of a chart of exactly the frame's size."""
    return {
        "layer": list(layers),
        "width": frame.inner_width,
        "height": frame.inner_height,
        "padding": {"left": frame.left, "right": frame.right, "top": frame.top, "bottom": frame.bottom},
        "autosize": {"type": "none"},
        "config": _CONFIG,
    }


def svg(layers: Sequence[Layer], frame: Frame, title: str) -> str:
    """The layers as an SVG element with a title, transparent, coloured by the page; nothing is fetched."""
    return _inline(vl_convert.vegalite_to_svg(spec(layers, frame), allowed_base_urls=[]), title)


def start() -> None:
    """Start what draws: the first chart takes half a second longer than the others, and this is it."""
    vl_convert.vegalite_to_svg({"mark": "point", "data": {"values": [{}]}}, allowed_base_urls=[])


_NUMBER = re.compile(r"\d+\.\d+(?:e-?\d+)?")


def _tenths(match: re.Match[str]) -> str:
    """A coordinate rounded to a tenth of a pixel: a third of the bytes, no visible change."""
    return f"{float(match[0]):.1f}".removesuffix(".0")


def _inline(text: str, title: str) -> str:
    body = text[text.index(">", text.index("<svg")) + 1 :]
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    width, height = size.groups() if size else ("470", "270")
    body = re.sub(r' (?:d|transform)="[^"]*"', lambda m: _NUMBER.sub(_tenths, m[0]), body)
    body = re.sub(r' (?:aria-[a-z]+|role|pointer-events|font-family|class="mark-[^"]*background)="[^"]*"', "", body)
    for stand_in, colour_name in _THEME.items():
        body = body.replace(stand_in, colour_name)
    # several charts share one page: their clip paths must not share names
    key = hashlib.sha256((title + body).encode()).hexdigest()[:8]
    body = re.sub(r'(id="|url\(#)', rf"\g<1>c{key}-", body)
    label = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{label}"><title>{label}</title>{body}'
    )
