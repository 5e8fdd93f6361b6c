"""Where in a file an array lies, so that another process can map it there instead of being given a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fanin.datasets.arrays import Array
from fanin.errors import DataError

_SHARED = ("r", "r+", "w+")  # but not "c": what was written to such an array is in no file
_DTYPES = ("uint8", "float32", "int64")  # of a Split


def place_of(array: Array) -> dict[str, Any] | None:
    """Plain data by which `at_place` finds the array again; None if it is not mapped from a file as it is."""
    mapped = array  # as far as it goes: the parts of a mapped array are memmaps too, with the offset of the whole
    while isinstance(mapped.base, np.ndarray):
        mapped = mapped.base
    if not isinstance(mapped, np.memmap) or not mapped.filename or mapped.mode not in _SHARED:
        return None
    if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
        return None
    path = Path(mapped.filename).absolute()
    if not path.is_file():  # deleted: its pages live on in this process only
        return None
    return {
        "file": str(path),
        "offset": mapped.offset + _address(array) - _address(mapped),
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        **_unchanged(path, mapped),
    }


def at_place(place: dict[str, Any]) -> Array:
    """The array that was found to lie there, mapped read-only: its file may be larger than memory.

    Mapped copy-on-write it could not be, since the system would count all of it as memory that might be needed.
    """
    path = Path(place["file"])
    try:
        if any(place[key] != value for key, value in stamp(path).items()):
            raise DataError(f"{path}: changed while it was in use; run again")
        if place["dtype"] not in _DTYPES:
            raise DataError(f"{path}: expected an array of {', '.join(_DTYPES)}, given {place['dtype']!r}; run again")
        dtype, shape = np.dtype(place["dtype"]), tuple(place["shape"])
        return np.memmap(path, dtype, "r", place["offset"], shape).view(np.ndarray)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: cannot be mapped any more ({error})") from error


def _address(array: Array) -> int:
    return array.__array_interface__["data"][0]


def _unchanged(path: Path, mapped: np.memmap) -> dict[str, int]:
    """The file's stamp; DataError if another file has taken its name, or its content, since it was mapped."""
    now = stamp(path)
    if getattr(mapped, "stamp", now) != now:  # arrays that a caller mapped bear none
        raise DataError(f"{path}: changed since it was opened; run again")
    return now


def stamp(path: Path) -> dict[str, int]:
    """What shows that a file is still the one it was."""
    status = path.stat()
    return {"size": status.st_size, "modified": status.st_mtime_ns, "inode": status.st_ino}
