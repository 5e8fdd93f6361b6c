"""The .npz reader: arrays by their usual names, never unpickled, never larger than the archive holds."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np

from fanin.datasets.arrays import Array, Dataset
from fanin.datasets.assemble import Examples, assemble
from fanin.datasets.header import read_header
from fanin.datasets.limits import check_size
from fanin.datasets.naming import Pair, training_and_test
from fanin.datasets.unpack import require_file, take
from fanin.errors import DataError

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # all that numpy writes


def load_npz(path: Path) -> Dataset:
    """The data set in an .npz file: x_train, y_train (and x_test, y_test), or X, y, or inputs, labels."""
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            train, test = training_and_test(names, path, "np.savez(path, X=..., y=...)")
            parts = _examples(archive, train, path), test and _examples(archive, test, path)
    except DataError:
        raise
    except Exception as error:  # a corrupt archive may raise nearly anything in zipfile, zlib, lzma or numpy
        if isinstance(error, MemoryError):
            raise
        raise DataError(
            f"{path}: cannot be read as an .npz archive ({type(error).__name__}: {error}); save it again with np.savez"
        ) from error
    return assemble(path.stem, f"the file {path}", *parts)


def _examples(archive: zipfile.ZipFile, pair: Pair, path: Path) -> Examples:
    return Examples(*(_member(archive, name, path) for name in pair))


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    info, where = archive.getinfo(name), f"{path}, array {name[:-4]}"
    if info.compress_type not in _METHODS:  # the others take memory by what their own headers say
        raise DataError(
            f"{where}: expected it stored or deflated, given zip method {info.compress_type}; save it with np.savez"
        )
    with archive.open(info) as stream:
        shape, fortran, dtype = read_header(stream, where)
        header = stream.tell()
        promised = math.prod(shape) * dtype.itemsize
        if header + promised != info.file_size:
            raise DataError(
                f"{where}: its header promises {promised:,} bytes (shape {shape}, {dtype}), "
                f"the archive holds {info.file_size - header:,}; save it again with np.savez"
            )
        check_size(where, promised, path.stat().st_size)
        data = take(cast("Any", stream), promised, path, done=header)
        stream.read(1)  # reaching the end makes zipfile check the checksum
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
