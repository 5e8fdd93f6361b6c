"""A user's own Python objects by their full name, `package.module:attr`: looked up, which runs their module's code."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from fanin.errors import FaninError, nearest

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_SPEC = re.compile(f"{_NAME}:{_NAME}")
_loaded: dict[str, tuple[ModuleSpec | None, str | None]] = {}  # modules by name: as loaded, and their file at that time


def looks_like_attribute(text: str) -> bool:
    """Whether a text has the form `package.module:attr`."""
    return _SPEC.fullmatch(text) is not None


def named(
    spec: str,
    *,
    where: str = "",
    expected: str = "a Python object",
    folder: Path | None = None,
    lasting: bool = False,
    error: type[FaninError] = FaninError,
) -> Any:
    """What `package.module:attr` is. It is looked for in `folder` first, by default the current one.

    Security: importing a module runs its code with your rights. Give only names that the user has given, or allowed.
    where: what stands before every message, such as the flag that named it. expected: what it should be, in words.
    lasting: the folder stays on sys.path, as its last entry, for what the object imports once it is called.
    error: raised, with the nearest spelling, if there is no such object.
    """
    at = f"{where} {spec}" if where else spec
    module, _, path = spec.partition(":")
    if not looks_like_attribute(spec):
        raise error(f"{at}: expected {expected} as package.module:name, such as models:make_model")
    folder = folder or Path.cwd()
    with first_on_path(folder):
        value = _imported(module, at, folder, error)
        for part in path.split("."):
            if not hasattr(value, part):
                raise error(f"{at}: {module} has no {part!r}{nearest(part, dir(value))}")
            value = getattr(value, part)
    if lasting and str(folder) not in sys.path:
        sys.path.append(str(folder))
    return value


def source_of(spec: str, folder: Path | None = None) -> str | None:
    """16 hex digits of SHA-256 over the file of `package.module:attr`'s module; None if there is no such file.

    The module itself is not run, only the packages that it is in.
    """
    with first_on_path(folder):
        try:
            found = importlib.util.find_spec(spec.partition(":")[0])
            if found is None or found.origin is None or not found.has_location:
                return None
            return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()[:16]
        except Exception:  # whatever a package raises: who imports it to use it will be told
            return None


def loaded_source(spec: str, folder: Path | None = None) -> str | None:
    """`source_of` an object that was looked up; FaninError if its file is not the one that this process has loaded.

    A process that lives on (a notebook, a cluster's worker) would else go on with the code that it knows, unseen.
    """
    name, now = spec.partition(":")[0], source_of(spec, folder)
    loaded = getattr(sys.modules.get(name), "__spec__", None)  # a new one with every import and reload
    known, first = _loaded.get(name, (None, None))
    if known is not loaded or loaded is None:
        _loaded[name] = loaded, now
    elif first != now:
        raise FaninError(
            f"{spec}: its file has changed, or is another one, since this process imported {name}: start anew (on a "
            "cluster, restart its workers), or use importlib.reload"
        )
    return now


def _imported(module: str, at: str, folder: Path, error: type[FaninError]) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as raised:
        if raised.name and (module == raised.name or module.startswith(f"{raised.name}.")):
            known = [entry.stem for entry in folder.glob("*.py")]
            raise error(
                f"{at}: no module named {raised.name!r} in {folder} or among the installed packages"
                f"{nearest(raised.name, known)}"
            ) from raised
        raise error(f"{at}: importing {module} failed: {raised}; install what it needs") from raised
    except Exception as raised:
        raise error(f"{at}: importing {module} raised {type(raised).__name__}: {raised}") from raised


@contextmanager
def first_on_path(folder: Path | None = None) -> Iterator[None]:
    """A folder, by default the current one, is first on sys.path, as for `python -m`."""
    here = str(folder or Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()  # the file may have been written a moment ago
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
