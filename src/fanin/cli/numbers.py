"""Numbers on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token

from fanin.errors import FaninError

_MOST = 2**63 - 1  # what torch, numpy and SQLite take


def whole(_: type, tokens: Sequence[Token]) -> Any:
    """An integer as it is written; the library's own conversion would take 2.5 for 2."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number; got {_shown(text)}") from None


def bounded(_: type, tokens: Sequence[Token]) -> Any:
    """The same, if torch can count so far."""
    number = whole(_, tokens)
    if abs(number) > _MOST:
        raise ValueError(f"expected a whole number of at most {_MOST}; got {_shown(tokens[0].value)}")
    return number


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


Whole = Annotated[int, Parameter(converter=bounded, allow_leading_hyphen=True)]
Seeds = Annotated[int, Parameter(converter=whole, allow_leading_hyphen=True)]  # a study says how many are too many


def check_range(flag: str, value: int | None, least: int, most: int | None = None) -> None:
    """FaninError where a number is given and outside of what its option takes."""
    if value is not None and (value < least or (most is not None and value > most)):
        expected = f"at least {least}" if most is None or value < least else f"at most {most:,}"
        raise FaninError(f"{flag}: expected {expected}; got {value}")
