"""Plain data checked strictly: lists as tuples and back, and pydantic's errors in fanin's words."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import ConfigDict, ValidationError

from fanin.errors import RecipeError, nearest

# no conversions, no unknown keys, no NaN; Choices are types of our own
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

_MOST = 20  # problems of one thing that are told


def as_tuples(value: Any) -> Any:
    """Lists, and lists within them, as tuples, which can be hashed; anything else as it is."""
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


def as_lists(value: Any) -> Any:
    """Tuples, and tuples within them, as lists, which TOML has; anything else as it is."""
    return [as_lists(item) for item in value] if isinstance(value, tuple) else value


def problems(error: ValidationError, prefix: str, known: Collection[str], *, of: str) -> list[str]:
    """One line per problem of a pydantic error: key path, what was expected, what was given, the nearest spelling."""
    lines, found = [], error.errors()
    for item in found[:_MOST]:
        where = prefix + ".".join(str(part) for part in item["loc"])
        if item["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
            allowed = ", ".join(known) or "no options"
            hint = nearest(str(item["loc"][-1]), known)
            lines.append(f"{where}: unknown key; {of} takes {allowed}{hint}")
        elif isinstance(cause := item.get("ctx", {}).get("error"), RecipeError):
            lines += [
                _rooted(line, prefix, str(item["loc"][0]) if item["loc"] else "") for line in str(cause).splitlines()
            ]
        elif item["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
            lines.append(f"{where}: required, and not given")
        else:
            lines.append(f"{where}: {_lower(item['msg'])}; got {item['input']!r}")
    if len(found) > _MOST:  # such as one for every layer
        lines.append(f"{prefix}...: and {len(found) - _MOST:,} more problems")
    return lines


def _rooted(line: str, prefix: str, field: str) -> str:
    """A nested message names its table first; show the same path from the root, without saying the field twice."""
    return f"{prefix}{line}" if line.startswith(field) else f"{prefix}{field}: {line}"


def _lower(message: str) -> str:
    """pydantic's "Input should be less than 1" as "expected less than 1"."""
    message = message.removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}".replace("input should be", "expected", 1)
