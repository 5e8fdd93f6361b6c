"""Numbers on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token


def whole(_: type, tokens: Sequence[Token]) -> Any:
    """An integer as it is written; the library's own conversion would take 2.5 for 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"expected a whole number; got {tokens[0].value!r}") from None


Whole = Annotated[int, Parameter(converter=whole)]
