"""The .npz reader: arrays by their usual names, never unpickled, never larger than the archive holds."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from fanin.datasets.arrays import Array, Dataset
from fanin.datasets.assemble import Examples, assemble
from fanin.datasets.unpack import MAX_BYTES, require_file, take
from fanin.errors import DataError

_TRAIN = (("x_train", "y_train"), ("train_images", "train_labels"), ("train_x", "train_y"))
_TEST = (("x_test", "y_test"), ("test_images", "test_labels"), ("test_x", "test_y"))
_WHOLE = tuple((x, y) for x in ("x", "inputs", "images", "features", "data") for y in ("y", "labels", "target"))


def load_npz(path: Path) -> Dataset:
    """The data set in an .npz file: x_train, y_train (and x_test, y_test), or X, y, or inputs, labels."""
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            train, test = _parts(archive, path)
    except DataError:
        raise
    except Exception as error:  # a corrupt archive may raise nearly anything in zipfile, zlib, lzma or numpy
        if isinstance(error, (MemoryError, RecursionError)):
            raise
        raise DataError(
            f"{path}: cannot be read as an .npz archive ({type(error).__name__}: {error}); save it again with np.savez"
        ) from error
    return assemble(path.stem, f"the file {path}", train, test)


def _parts(archive: zipfile.ZipFile, path: Path) -> tuple[Examples, Examples | None]:
    keys = {name[:-4].lower(): name for name in archive.namelist() if name.endswith(".npy")}
    train = _first(keys, _TRAIN) or _first(keys, _WHOLE)
    if train is None:
        raise DataError(
            f"{path}: expected the arrays x_train, y_train (and x_test, y_test), or X, y, or inputs, labels; "
            f"given {', '.join(sorted(keys)) or 'none'}; rename them: np.savez(path, X=..., y=...)"
        )
    test = _first(keys, _TEST)
    half = [name for pair in _TEST for name in pair if name in keys]
    if half and test is None:
        raise DataError(f"{path}: expected x_test and y_test together, given only {', '.join(half)}; add the other")
    parts = [
        None if pair is None else Examples(*(_member(archive, keys[key], path) for key in pair))
        for pair in (train, test)
    ]
    return cast("Examples", parts[0]), parts[1]


def _first(keys: dict[str, str], pairs: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    return next((pair for pair in pairs if pair[0] in keys and pair[1] in keys), None)


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    info = archive.getinfo(name)
    with archive.open(info) as stream:
        shape, fortran, dtype = _header(stream, f"{path}, array {name[:-4]}")
        header = stream.tell()
        promised = math.prod(shape) * dtype.itemsize
        if promised > MAX_BYTES or header + promised != info.file_size:
            raise DataError(
                f"{path}, array {name[:-4]}: its header promises {promised:,} bytes (shape {shape}, "
                f"{dtype}), "
                f"the archive holds {info.file_size - header:,}, the most that fanin reads is {MAX_BYTES:,}; "
                "save it again with np.savez"
            )
        data = take(cast("Any", stream), promised, path, done=header)
        stream.read(1)  # reaching the end makes zipfile check the checksum
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read before any memory is taken: np.load would allocate what the header says, however absurd."""
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise DataError(f"{where}: expected .npy format 1.0 or 2.0, given {version}; save a plain array")
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "buifU":
        raise DataError(
            f"{where}: expected numbers or text, given {dtype}; pickled objects may run code and are "
            "not read: "
            "save with a plain dtype, e.g. x.astype('float32')"
        )
    if any(d < 0 for d in shape):
        raise DataError(f"{where}: expected sizes from 0, given shape {shape}; the header is corrupt")
    return shape, fortran, dtype
