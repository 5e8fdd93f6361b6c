"""The header of an .npy array, read and judged before any memory is taken or mapped."""

from __future__ import annotations

import io
import struct
from typing import IO

import numpy as np

from fanin.datasets.limits import MAX_HEADER
from fanin.errors import DataError

_MAGIC = b"\x93NUMPY"
_LENGTHS = {(1, 0): "<H", (2, 0): "<I"}  # of the header, by format version


def read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype: np.load would allocate what the header says, however absurd."""
    shape, fortran, dtype = _parsed(stream, where)
    if dtype.hasobject or dtype.kind not in "buifU":
        raise DataError(
            f"{where}: expected numbers or text, given {dtype}; pickled objects may run code and are "
            "not read: "
            "save with a plain dtype, e.g. x.astype('float32')"
        )
    if any(d < 0 for d in shape):
        raise DataError(f"{where}: expected sizes from 0, given shape {shape}; the header is corrupt")
    return shape, fortran, dtype


def _parsed(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    magic = stream.read(8)
    if len(magic) < 8 or not magic.startswith(_MAGIC):
        raise DataError(
            f"{where}: cannot be read as an .npy array: expected it to start with {_MAGIC!r} and a version, "
            f"given {magic!r}; save it again with np.save"
        )
    version = (magic[6], magic[7])
    if version not in _LENGTHS:
        raise DataError(f"{where}: expected .npy format 1.0 or 2.0, given {version}; save a plain array")
    head = _head(stream, _LENGTHS[version], where)
    formats = np.lib.format
    read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
    try:
        return read(io.BytesIO(head))
    except (
        Exception
    ) as error:  # numpy parses it as Python: RecursionError and MemoryError are among what nesting raises
        raise DataError(
            f"{where}: cannot be read as an .npy array: its header is corrupt ({type(error).__name__}: {error}); "
            "save it again with np.save"
        ) from error


def _head(stream: IO[bytes], length: str, where: str) -> bytes:
    """The header with its length before it, which is judged before so many bytes are read."""
    prefix = stream.read(struct.calcsize(length))
    size = struct.unpack(length, prefix)[0] if len(prefix) == struct.calcsize(length) else 0
    if size > MAX_HEADER:
        raise DataError(
            f"{where}: its header promises to be {size:,} bytes long, expected at most {MAX_HEADER:,}; it is corrupt"
        )
    return prefix + stream.read(size)
