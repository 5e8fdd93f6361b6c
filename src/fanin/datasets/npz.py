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
from fanin.datasets.naming import Pair, training_and_test
from fanin.datasets.unpack import MAX_BYTES, require_file, take
from fanin.errors import DataError


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
        if isinstance(error, (MemoryError, RecursionError)):
            raise
        raise DataError(
            f"{path}: cannot be read as an .npz archive ({type(error).__name__}: {error}); save it again with np.savez"
        ) from error
    return assemble(path.stem, f"the file {path}", *parts)


def _examples(archive: zipfile.ZipFile, pair: Pair, path: Path) -> Examples:
    return Examples(*(_member(archive, name, path) for name in pair))


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    info = archive.getinfo(name)
    with archive.open(info) as stream:
        shape, fortran, dtype = read_header(stream, f"{path}, array {name[:-4]}")
        header = stream.tell()
        promised = math.prod(shape) * dtype.itemsize
        if promised > MAX_BYTES or header + promised != info.file_size:
            raise DataError(
                f"{path}, array {name[:-4]}: its header promises {promised:,} bytes (shape {shape}, "
                f"{dtype}), "
                f"the archive holds {info.file_size - header:,}, the most that fanin reads is {MAX_BYTES:,}; "
                "save it again with np.savez, or as .npy files in a folder, which may be larger than memory"
            )
        data = take(cast("Any", stream), promised, path, done=header)
        stream.read(1)  # reaching the end makes zipfile check the checksum
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
