"""Data from Python code, `module:attr`: arrays, a function that returns them, or torch-style data sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fanin.code import first_on_path, named
from fanin.datasets.arrays import Array, Dataset, check_values
from fanin.datasets.assemble import Examples, assemble
from fanin.datasets.fetch import Progress, silent
from fanin.errors import DataError

_FORMS = (
    "(X, y), (X_train, y_train, X_test, y_test), ((X_train, y_train), (X_test, y_test)), a fanin Dataset, "
    "a torch-style data set of (x, y), or a pair of them"
)


def load_attribute(spec: str, progress: Progress | None = None) -> Dataset:
    """The data set that `module:attr` is, or returns when called without arguments.

    Security: this imports the module and calls the function, that is, it RUNS their code with your rights.
    Give only names of code that you trust. The current directory is on sys.path while this happens.
    """
    with first_on_path():
        value = named(spec, expected="a data set", error=DataError)
        with _blame(spec):
            if callable(value) and not _is_torch_style(value):
                value = value()
            if isinstance(value, Dataset):
                return check_values(value)
            return _from_value(value, spec, progress or silent)


@contextmanager
def _blame(spec: str) -> Iterator[None]:
    """Whatever the user's code raises is told as the user's, with the cause kept."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{spec}: its code raised {type(error).__name__}: {error}; expected it to be, or return "
            "when called "
            f"without arguments, {_FORMS}"
        ) from error


def _from_value(value: Any, spec: str, progress: Progress) -> Dataset:
    source = f"the Python attribute {spec}"
    if _is_torch_style(value):
        return assemble(spec, source, _drained(value, source, progress), classes=_class_names([value]))
    if not isinstance(value, (tuple, list)):
        raise DataError(f"{source}: expected {_FORMS}; given {type(value).__name__}")
    parts = list(value)
    if len(parts) == 2 and all(_is_torch_style(part) for part in parts):
        train, test = (_drained(part, source, progress) for part in parts)
        return assemble(spec, source, train, test, classes=_class_names(parts))
    if len(parts) == 2 and all(_is_pair(part) for part in parts):
        parts = [array for pair in parts for array in pair]
    if len(parts) not in (2, 4):
        raise DataError(f"{source}: expected {_FORMS}; given a {type(value).__name__} of {len(parts)}")
    arrays = [_as_array(part) for part in parts]
    return assemble(spec, source, Examples(*arrays[:2]), Examples(*arrays[2:]) if len(arrays) == 4 else None)


def _is_array(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or hasattr(value, "numpy") or hasattr(value, "__array__")


def _is_torch_style(value: Any) -> bool:
    """By duck typing, so that torch need not be installed: a length and items, but no array of any kind."""
    methods = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    return methods and not (_is_array(value) or isinstance(value, (str, bytes, dict, type)))


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and _is_array(value[0]) and np.ndim(value[0]) >= 2


def _as_array(value: Any) -> Array:
    """A numpy array from an array, a list, a frame, or a tensor on any device."""
    for step in ("detach", "cpu", "numpy"):
        if hasattr(value, step):
            value = getattr(value, step)()
    return np.asarray(value)


def _drained(items: Any, source: str, progress: Progress) -> Examples:
    """All (x, y) of a torch-style data set, each read once, in order."""
    count = len(items)
    if count == 0:
        raise DataError(f"{source}: expected at least one example, given an empty data set")
    inputs: Array | None = None
    labels = []
    for i in range(count):
        item = items[i]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(f"{source}: expected item {i} to be (x, y), given {type(item).__name__}")
        x = _as_array(item[0])
        if inputs is None:
            inputs = np.empty((count, *(x.shape or (1,))), x.dtype)
        if x.shape != inputs.shape[1:] and x.shape:
            raise DataError(
                f"{source}: expected item {i} of shape {inputs.shape[1:]} as the first, given {x.shape}; resize it"
            )
        inputs[i] = x
        labels.append(_as_array(item[1]))
        if i % 1024 == 0 or i + 1 == count:
            progress(f"reading {source}", (i + 1) * x.nbytes, count * x.nbytes)
    assert inputs is not None, "count > 0"
    return Examples(inputs, np.asarray(labels))


def _class_names(parts: Sequence[Any]) -> tuple[str, ...] | None:
    """torchvision's `classes`, when every part agrees on it."""
    found = [getattr(part, "classes", None) for part in parts]
    if all(isinstance(names, (list, tuple)) and names for names in found) and all(n == found[0] for n in found):
        return tuple(str(name) for name in found[0])  # type: ignore[union-attr]
    return None
