"""A data set that worker processes map into memory: one set of pages for all of them, and for any size."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from fanin.datasets import atomic
from fanin.datasets.arrays import Array, Dataset, Split
from fanin.datasets.place import at_place, place_of
from fanin.datasets.unpack import require_file
from fanin.errors import DataError

META = "dataset.json"
_FORMAT = 2
_ARRAYS = ("train-inputs", "train-labels", "test-inputs", "test-labels")


def save_shared(dataset: Dataset, folder: Path) -> Path:
    """Write `dataset` into `folder` as uncompressed .npy files and a JSON description; return the folder.

    An array that is mapped from a file already is not written again: the description says where it lies. The other
    files' names begin with the fingerprint and the description is written last, so a reader, even one at
    work while another data set is written, sees one whole data set or the other. Saving it again writes no
    array twice.
    """
    atomic.make_folder(folder)
    arrays = (dataset.train.inputs, dataset.train.labels, dataset.test.inputs, dataset.test.labels)
    places = {part: place_of(array) for part, array in zip(_ARRAYS, arrays, strict=True)}
    for part, array in zip(_ARRAYS, arrays, strict=True):
        path = folder / f"{dataset.fingerprint}-{part}.npy"
        if places[part] is None and not _is_there(path, array):
            with atomic.writing(path) as file:
                np.save(file, array, allow_pickle=False)
    meta = {
        "format": _FORMAT,
        "fingerprint": dataset.fingerprint,
        "name": dataset.name,
        "classes": list(dataset.classes),
        "scale": dataset.scale,
        "image_shape": dataset.image_shape,
        "source": dataset.source,
        "places": places,
    }
    atomic.write(folder / META, json.dumps(meta, indent=1).encode())
    return folder


def _is_there(path: Path, array: Array) -> bool:
    """Whether an earlier save left exactly this; a damaged file is not taken for it."""
    try:
        earlier = _mapped(path)
    except DataError:
        return False
    return earlier.dtype == array.dtype and np.array_equal(earlier, array)


def open_shared(folder: Path) -> Dataset:
    """The data set that `save_shared` wrote; its copies are mapped copy-on-write: a stray write stays in its process.

    Arrays that lie in a user's files are mapped read-only.
    """
    meta = _meta(folder / META)
    try:
        arrays = [_opened(folder, meta, part) for part in _ARRAYS]
        shape = meta["image_shape"]
        data = Dataset(
            name=str(meta["name"]),
            train=Split(arrays[0], arrays[1]),
            test=Split(arrays[2], arrays[3]),
            classes=tuple(str(name) for name in meta["classes"]),
            scale=float(meta["scale"]),
            image_shape=None if shape is None else (int(shape[0]), int(shape[1])),
            source=str(meta["source"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{folder / META}: not as save_shared wrote it ({error!r}); save the data set again") from error
    vars(data)["fingerprint"] = meta["fingerprint"]  # the cached property: computing it reads all of the data
    return data


def _opened(folder: Path, meta: dict[str, Any], part: str) -> Array:
    place = meta["places"][part]
    return at_place(place) if place else _mapped(folder / f"{meta['fingerprint']}-{part}.npy")


def _meta(path: Path) -> dict[str, Any]:
    require_file(path)
    try:
        meta = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save the data set again") from error
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        given = meta.get("format") if isinstance(meta, dict) else type(meta).__name__
        raise DataError(f"{path}: expected format {_FORMAT}, given {given}; save it again with this version of fanin")
    if not re.fullmatch("[0-9a-f]{16}", str(meta.get("fingerprint"))):  # it is part of files' names
        raise DataError(
            f"{path}: expected a fingerprint of 16 hex digits, given {meta.get('fingerprint')!r}; save it again"
        )
    return meta


def _mapped(path: Path) -> Array:
    require_file(path)
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False).view(np.ndarray)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise DataError(f"{path}: truncated or corrupt ({error}); save the data set again") from error
