"""Python source laid out as formatters lay it out: what fits on a line, and text that stays text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 120


def fitted(opening: str, items: Sequence[str], closing: str, *, indent: int) -> list[str]:
    """`opening`, items with commas between, `closing`: on one line if it fits, else an item a line."""
    margin = " " * indent
    line = f"{margin}{opening}{', '.join(items)}{closing}"
    if len(line) <= WIDTH:
        return [line]
    return [margin + opening, *(f"{margin}    {item}," for item in items), margin + closing]


def paragraph(text: str, *, indent: int = 4) -> list[str]:
    """A text as the lines of a docstring or a comment that is indented so far."""
    return textwrap.wrap(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False)


def docstring(first: str, *more: str, indent: int = 4) -> list[str]:
    """A docstring of paragraphs, the first of which is one line."""
    margin = " " * indent
    if not more:
        return [f'{margin}"""{first}"""']
    lines = [f'"""{first}']
    for text in more:
        lines += ["", *paragraph(text, indent=indent)]
    return [margin + line if line else "" for line in (*lines, '"""')]


def inert(text: str, *, longest: int = 80) -> str:
    """A text from a file as it may stand in a docstring: no quote, backslash or control character can end or bend it.

    A name of a study or of a data set may be anybody's, and what is written here is run.
    """
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(c if c.isprintable() else "?" for c in cut).replace("\\", "/").replace('"', "'")
