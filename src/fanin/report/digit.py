"""A grey image in the terminal: two pixels a character with half blocks, or ASCII shades without colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.style import Style
from rich.text import Text

from fanin.errors import DataError

_SHADES = " .:-=+*#%@"


def print_digit(image: ArrayLike, console: Console) -> None:
    """Draw a 2-D image of brightness (any scale: its own smallest value is black, its largest white)."""
    grey = _scaled(image)
    colours = console.color_system in {"truecolor", "256"} and _has_blocks(console)
    draw = _half_blocks if colours else _ascii
    for line in draw(grey):
        console.print(line, no_wrap=True, overflow="crop", crop=True)


def _scaled(image: ArrayLike) -> np.ndarray:
    """Brightness from 0 to 1; an image of one brightness is black."""
    values = np.asarray(image, dtype=float)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise DataError(f"an image: expected a 2-D array of finite numbers; got shape {values.shape}")
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _has_blocks(console: Console) -> bool:
    try:
        "▀".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _half_blocks(grey: np.ndarray) -> list[Text]:
    """The upper pixel as foreground of "▀", the lower as background; an odd last row stands on black."""
    rows = np.vstack([grey, np.zeros((1, grey.shape[1]))]) if len(grey) % 2 else grey
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        line = Text()
        for a, b in zip(upper, lower, strict=True):
            line.append("▀", Style(color=_colour(a), bgcolor=_colour(b)))
        lines.append(line)
    return lines


def _ascii(grey: np.ndarray) -> list[Text]:
    """One row of two pixels a line, since a character is about twice as high as wide; brighter is denser."""
    pairs = [grey[i : i + 2].mean(axis=0) for i in range(0, len(grey), 2)]
    return [Text(_shaded(row)) for row in pairs]


def _shaded(row: Sequence[float] | np.ndarray) -> str:
    return "".join(_SHADES[min(int(v * len(_SHADES)), len(_SHADES) - 1)] for v in row)


def _colour(value: float) -> str:
    level = round(255 * float(value))
    return f"rgb({level},{level},{level})"
