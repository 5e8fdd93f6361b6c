"""A user's own function by its full name, `package.module:factory`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from fanin.errors import FaninError, nearest


def named(spec: str, *, expected: str = "a function") -> Any:
    """What `package.module:name` is; the current folder is looked in first, and stays on sys.path.

    Security: importing a module runs its code with your rights. FaninError with the nearest spelling.
    """
    module, colon, attribute = spec.partition(":")
    if not colon or not module or not attribute:
        raise FaninError(f"{spec}: expected {expected} as package.module:name, such as models:make_model")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    value = _imported(module, spec)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise FaninError(f"{spec}: {module} has no {part!r}{nearest(part, dir(value))}")
        value = getattr(value, part)
    return value


def _imported(module: str, spec: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            known = [entry.stem for entry in Path.cwd().glob("*.py")]
            raise FaninError(
                f"{spec}: no module named {error.name!r} in {Path.cwd()} or among the installed packages"
                f"{nearest(module, known)}"
            ) from error
        raise FaninError(f"{spec}: importing {module} failed: {error}; install what it needs") from error
    except Exception as error:
        raise FaninError(f"{spec}: importing {module} failed: {type(error).__name__}: {error}") from error
