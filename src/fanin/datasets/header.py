"""The header of an .npy array, read and judged before any memory is taken or mapped."""

from __future__ import annotations

from typing import IO

import numpy as np

from fanin.errors import DataError


def read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype: np.load would allocate what the header says, however absurd."""
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
