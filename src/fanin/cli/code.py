"""Python objects that a command names as MODULE:ATTR: imported, and made where they are classes or functions."""

from __future__ import annotations

from typing import Any

from fanin import code
from fanin.errors import FaninError


def named(flag: str, spec: str) -> Any:
    """What `package.module:name` is; FaninError, with the nearest spelling, if it cannot be had.

    This RUNS the module's code, with the current directory first on sys.path.
    """
    if not code.looks_like_attribute(spec):
        raise FaninError(f"{flag}: expected MODULE:ATTR, such as package.module:make_model; got {spec!r}")
    return code.named(spec, where=flag)


def made(flag: str, spec: str, make: Any) -> Any:
    """make(), told as the user's code where it raises."""
    with code.first_on_path():
        try:
            return make()
        except Exception as error:
            raise FaninError(
                f"{flag} {spec}: called without arguments it raised {type(error).__name__}: {error}; expected a "
                "function or class that needs none"
            ) from error
