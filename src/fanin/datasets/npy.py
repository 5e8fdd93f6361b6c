"""The reader of a folder of .npy arrays: mapped, not read, so that a data set may be larger than memory.

Inputs that lie there as training takes them (uint8 or float32 of this machine's byte order, rows one after another)
and labels of int64 are never copied. Anything else is converted in memory, up to `limits.max_bytes()` an array.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from fanin.datasets.arrays import Array, Dataset
from fanin.datasets.assemble import Examples, assemble
from fanin.datasets.header import read_header
from fanin.datasets.limits import BYTES_VARIABLE, max_bytes
from fanin.datasets.naming import Pair, training_and_test
from fanin.datasets.place import stamp
from fanin.datasets.unpack import require_file
from fanin.errors import DataError

_INPUTS = ("uint8", "float32")
_LABELS = ("int64",)


def find_npy(folder: Path) -> list[str]:
    """The names of the .npy files in a folder."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".npy"))


def named_as_data(folder: Path, files: list[str]) -> bool:
    """Whether the names of these files say which are inputs and which are labels."""
    try:
        training_and_test(files, folder, "")
    except DataError:
        return False
    return True


def load_npy(folder: Path, files: list[str]) -> Dataset:
    """The data set in a folder's .npy files: x_train, y_train, x_test, y_test; or X, y, without a test part.

    Without a test part the held-out fifth is taken from all over the set, so its inputs are read into memory.
    """
    train, test = training_and_test(files, folder, "x_train.npy, y_train.npy, x_test.npy, y_test.npy")
    parts = _examples(folder, train), test and _examples(folder, test)
    if test is None and parts[0].inputs.nbytes > max_bytes():
        raise DataError(
            f"{folder / train[0]}: expected a test part beside so large an array ({parts[0].inputs.nbytes:,} bytes; "
            f"without one it is read into memory, at most {max_bytes():,}); "
            f"save x_train.npy, y_train.npy, x_test.npy and y_test.npy, or raise {BYTES_VARIABLE}"
        )
    return assemble(folder.resolve().name, f"the arrays in {folder}", *parts)


def _examples(folder: Path, pair: Pair) -> Examples:
    inputs, labels = (folder / name for name in pair)
    return Examples(_mapped(inputs, _INPUTS), _mapped(labels, _LABELS))


def _mapped(path: Path, as_they_are: tuple[str, ...]) -> Array:
    """The file's array, read only; DataError if it is not whole, or too large for the copy that it would need."""
    require_file(path)
    try:
        with path.open("rb") as stream:
            shape, fortran, dtype = read_header(stream, str(path))
            header = stream.tell()
        _check_whole(path, header, math.prod(shape) * dtype.itemsize)
        if 0 in shape:  # there is nothing to map; what uses it says what is wrong with that
            return np.empty(shape, dtype)
        before = stamp(path)
        array: Any = np.memmap(path, dtype, "r", header, shape, "F" if fortran else "C")
        array.stamp = before  # see fanin.datasets.place
    except DataError:
        raise
    except Exception as error:  # a corrupt header may raise nearly anything in numpy, which parses it as Python
        raise DataError(f"{path}: cannot be read as an .npy array ({error}); save it again with np.save") from error
    usable = dtype.name in as_they_are and dtype.isnative and array.flags.c_contiguous
    if not usable and array.nbytes > max_bytes():
        order = "Fortran" if fortran else "C"
        raise DataError(
            f"{path}: expected {' or '.join(as_they_are)} in C order and native byte order, given {dtype} in {order} "
            f"order; {array.nbytes:,} bytes are too many to convert in memory (at most {max_bytes():,}): save it so, "
            f"or raise {BYTES_VARIABLE}"
        )
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _check_whole(path: Path, header: int, promised: int) -> None:
    size = path.stat().st_size
    if size != header + promised:
        kind = "truncated" if size < header + promised else "longer than its header says"
        raise DataError(
            f"{path}: {kind}: expected {header + promised:,} bytes ({header} of header, {promised:,} of data), "
            f"actual size {size:,}; save it again with np.save"
        )
