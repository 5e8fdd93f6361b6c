"""IDX files (the format of MNIST): the reader, and folders or pairs of such files."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fanin.datasets.arrays import Array, Dataset
from fanin.datasets.assemble import Examples, assemble
from fanin.datasets.unpack import check_promise, expect_end, take, unpacked
from fanin.errors import DataError

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 8
_NAME = re.compile(r"(?P<part>.*?)[-._]?(?P<kind>images|labels)[-.]idx\d-\w+(\.gz)?", re.IGNORECASE)


def read_idx(path: Path) -> Array:
    """The array in an IDX file, gzip or not, in native byte order; every malformed file is a `DataError`.

    Format: two zero bytes, a dtype code, the number of dimensions, each dimension as big-endian uint32, data.
    """
    with unpacked(path) as stream:
        dtype, shape = _header(stream, path)
        header = 4 + 4 * len(shape)
        promised = math.prod(shape) * dtype.itemsize
        # an empty array's other dimensions are checked too: numpy refuses absurd ones in its own words
        check_promise(path, header, promised if promised else _absurd(shape) * dtype.itemsize)
        data = take(stream, promised, path, done=header)
        expect_end(stream, path, header + promised)
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _absurd(shape: tuple[int, ...]) -> int:
    size = math.prod(d for d in shape if d)
    return size if size > 2**40 else 0


def _header(stream: BinaryIO, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    magic = bytes(take(stream, 4, path))
    zero, code, dimensions = struct.unpack(">HBB", magic)
    if zero or code not in DTYPES or not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise DataError(
            f"{path}: not an IDX file: expected at offset 0 the bytes 00 00, a type of "
            f"{', '.join(f'{c:02x}' for c in DTYPES)} and 1 to {_MAX_DIMENSIONS} dimensions, given "
            f"{magic.hex(' ')}; "
            "check that this is the file you meant"
        )
    sizes = bytes(take(stream, 4 * dimensions, path, done=4))
    return np.dtype(DTYPES[code]), struct.unpack(f">{dimensions}I", sizes)


def read_pair(images: Path, labels: Path) -> Examples:
    """Pictures and their labels from two IDX files of equal length."""
    x, y = read_idx(images), read_idx(labels)
    if y.ndim != 1:
        raise DataError(
            f"{labels}: expected labels of one dimension, given {y.ndim} {y.shape}; is it the images' file? "
            "Give images first, then labels"
        )
    if len(x) != len(y):
        raise DataError(
            f"{images} holds {len(x)} examples but {labels} holds {len(y)} labels; they do not belong together"
        )
    return Examples(x, y)


def load_pair(images: Path, labels: Path) -> Dataset:
    """The data set of one images file and one labels file; a test part is held out."""
    return assemble(images.name.split(".")[0], f"the IDX files {images} and {labels}", read_pair(images, labels))


def find_idx(folder: Path) -> dict[str, dict[str, Path]]:
    """`{"train": {"images": path, "labels": path}, "test": ...}` of a folder's IDX files, by their names."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):  # plain sorts before .gz, so it is preferred
        match = _NAME.fullmatch(path.name)
        if not match or not path.is_file():
            continue
        part = "test" if re.search(r"t10k|test", match["part"], re.IGNORECASE) else "train"
        kind = match["kind"].lower()
        earlier = found.setdefault(part, {}).setdefault(kind, path)
        if path.name not in (earlier.name, f"{earlier.name}.gz"):
            raise DataError(
                f"{folder}: expected one IDX file of {part} {kind}, given {earlier.name} and {path.name}; "
                "name the two you want: 'images,labels'"
            )
    return found


def load_folder(folder: Path, found: dict[str, dict[str, Path]]) -> Dataset:
    """The data set of a folder of IDX files, `*train-images-idx3-ubyte[.gz]` and so on."""
    parts = {}
    for part in ("train", "test"):
        files = found.get(part, {})
        if len(files) == 1 or (part == "train" and not files):
            missing = [kind for kind in ("images", "labels") if kind not in files]
            raise DataError(
                f"{folder}: expected IDX files of {part} images and labels, but there is no file of "
                f"{part} {' and no file of '.join(missing)}; add {part}-{missing[0]}-idx…-ubyte"
            )
        if files:
            parts[part] = read_pair(files["images"], files["labels"])
    return assemble(folder.resolve().name, f"the IDX files in {folder}", parts["train"], parts.get("test"))
