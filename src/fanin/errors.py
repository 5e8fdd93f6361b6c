"""The errors a user can meet: each says what was expected, what was given, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FaninError(Exception):
    """Something the user can mend; the command line prints the message and exits with code 2."""


class DataError(FaninError):
    """A data set that cannot be read, fetched or trusted."""


class RecipeError(FaninError, ValueError):
    """A recipe, study or override that does not make sense; lists every problem found, one a line."""


class StoreError(FaninError):
    """A study folder that cannot be opened, written or understood."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'relu'?"` for the closest known spelling, or an empty string if none is close."""
    match = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
