"""Python objects that a command names as MODULE:ATTR: imported, and made where they are classes or functions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fanin.errors import FaninError, nearest


def named(flag: str, spec: str) -> Any:
    """What `package.module:name` is; FaninError, with the nearest spelling, if it cannot be had.

    This RUNS the module's code, with the current directory first on sys.path.
    """
    module, _, path = spec.partition(":")
    if not module or not path:
        raise FaninError(f"{flag}: expected MODULE:ATTR, such as package.module:make_model; got {spec!r}")
    with here_first():
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and (module == error.name or module.startswith(f"{error.name}.")):
                known = [entry.stem for entry in Path.cwd().glob("*.py")]
                raise FaninError(
                    f"{flag} {spec}: no module named {error.name!r} in {Path.cwd()} or among the installed "
                    f"packages{nearest(error.name, known)}"
                ) from error
            raise FaninError(f"{flag} {spec}: importing {module} failed: {error}; install what it needs") from error
        except Exception as error:
            raise FaninError(f"{flag} {spec}: importing {module} raised {type(error).__name__}: {error}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise FaninError(f"{flag} {spec}: {module} has no {part!r}{nearest(part, dir(found))}")
        found = getattr(found, part)
    return found


def made(flag: str, spec: str, make: Any) -> Any:
    """make(), told as the user's code where it raises."""
    with here_first():
        try:
            return make()
        except Exception as error:
            raise FaninError(
                f"{flag} {spec}: called without arguments it raised {type(error).__name__}: {error}; expected a "
                "function or class that needs none"
            ) from error


@contextmanager
def here_first() -> Iterator[None]:
    """The current directory is first on sys.path, as for `python -m`."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()  # the file may have been written a moment ago
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
