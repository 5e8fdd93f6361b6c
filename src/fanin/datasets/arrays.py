"""What a data set is: two splits of plain arrays, the checks they must pass, and the held-out rule."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fanin.errors import DataError

Array = NDArray[Any]
HOLD_OUT_EVERY = 5  # one example in five, 20 %
_CHUNK = 2**24


def chunks(array: Array) -> Iterator[tuple[int, Array]]:
    """`(row, rows)`, each about 16 MB from `row` on: what reads all of an array takes memory for so much at a time."""
    rows = max(1, _CHUNK * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


@dataclass(frozen=True, eq=False)
class Split:
    """Examples and their classes: inputs (n, features) uint8 or float32, C-contiguous; labels (n,) int64."""

    inputs: Array
    labels: Array

    def __post_init__(self) -> None:
        x, y = self.inputs, self.labels
        if x.ndim != 2 or x.dtype not in (np.uint8, np.float32) or not x.flags.c_contiguous:
            raise DataError(
                "Split.inputs: expected a C-contiguous (n, features) array of uint8 or float32, "
                f"given shape {x.shape}, {x.dtype}; convert with np.ascontiguousarray(x, np.float32)"
            )
        if y.ndim != 1 or y.dtype != np.int64:
            raise DataError(
                f"Split.labels: expected an (n,) array of int64 class indices, given shape {y.shape}, "
                f"{y.dtype}; "
                "convert with y.astype(np.int64)"
            )
        if len(x) != len(y):
            raise DataError(f"Split: expected one label for each row, given {len(x)} rows and {len(y)} labels")
        if x.size == 0:
            raise DataError(f"Split: expected at least one example and one feature, given shape {x.shape}")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification problem ready for training: training sees `inputs * scale`."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    scale: float
    image_shape: tuple[int, int] | None
    source: str

    def __post_init__(self) -> None:
        a, b = self.train.inputs, self.test.inputs
        if a.shape[1] != b.shape[1] or a.dtype != b.dtype:
            raise DataError(
                f"{self.source}: expected training and test inputs alike, given {a.shape[1]} features "
                f"of {a.dtype} "
                f"and {b.shape[1]} features of {b.dtype}; prepare both in the same way"
            )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise DataError(f"{self.source}: expected a positive, finite scale, given {self.scale}")
        if self.image_shape is not None and math.prod(self.image_shape) != a.shape[1]:
            raise DataError(
                f"{self.source}: image_shape {self.image_shape} has {math.prod(self.image_shape)} "
                "pixels but a row "
                f"has {a.shape[1]}; give (height, width) of one row, or None"
            )
        if len(self.classes) < 2:
            raise DataError(
                f"{self.source}: expected at least 2 classes, given {len(self.classes)} "
                f"({', '.join(self.classes) or 'none'}); there is nothing to tell apart"
            )

    @property
    def features(self) -> int:
        """Numbers in one example."""
        return int(self.train.inputs.shape[1])

    @property
    def n_classes(self) -> int:
        """How many classes there are, hence how many outputs a network needs."""
        return len(self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over shapes, dtypes, scale, class count and bytes of both parts.

        Names, source and image shape are left out: they change no weight of any network.
        """
        parts = (self.train.inputs, self.train.labels, self.test.inputs, self.test.labels)
        head = [[a.dtype.name, list(a.shape)] for a in parts]
        digest = hashlib.sha256(json.dumps([head, self.scale.hex(), self.n_classes]).encode())
        for array in parts:  # little-endian on every machine, so that the digits travel
            for _, rows in chunks(array):
                digest.update(np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<")).data)
        return digest.hexdigest()[:16]


def held_out(labels: Array) -> NDArray[np.bool_]:
    """True for the test part: sort by class (stable), then every fifth, from the first, of the whole row.

    The count runs on from one class to the next, so that each class gives n/5 of its examples, give or take
    one, and the total is ceil(n/5) exactly. An example alone in its class stays in training. No random
    numbers and no library's shuffling take part: the split is the same for ever.
    """
    chosen = np.zeros(len(labels), dtype=np.bool_)
    chosen[np.argsort(labels, kind="stable")[::HOLD_OUT_EVERY]] = True
    _, where, count = np.unique(labels, return_inverse=True, return_counts=True)
    return chosen & (count[where.reshape(-1)] > 1)


def as_rows(given: Array, where: str) -> tuple[Array, tuple[int, int] | None]:
    """`(rows, image_shape)`: bytes stay uint8, other numbers become float32, deeper shapes are flattened."""
    array = np.asarray(given)
    if array.dtype.kind not in "buif":
        raise DataError(
            f"{where}: expected an array of numbers, given {array.dtype} of shape {array.shape}; "
            "examples of differing sizes or text must be made into numbers first"
        )
    if array.ndim < 2:
        raise DataError(
            f"{where}: expected (n, features) or (n, height, width), given shape {array.shape}; "
            "for one feature use x.reshape(-1, 1)"
        )
    if array.size == 0:
        raise DataError(f"{where}: expected at least one example and one feature, given shape {array.shape}")
    rows = array.reshape(len(array), -1)
    if rows.dtype != np.uint8:
        with np.errstate(over="ignore"):  # a number beyond float32 becomes inf, which check_finite names
            rows = rows.astype(np.float32, copy=False)
    return np.ascontiguousarray(rows), _image_shape(array.shape)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int] | None:
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    elif len(shape) == 4 and shape[1] == 1:
        shape = (shape[0], *shape[2:])
    return (shape[1], shape[2]) if len(shape) == 3 else None


def check_finite(rows: Array, where: str) -> None:
    """Refuse NaN and infinity: how many there are, and the first one's row and column."""
    if rows.dtype.kind != "f":
        return
    count, first = 0, ""
    for start, part in chunks(rows):
        with np.errstate(invalid="ignore"):  # inf - inf
            total = float(np.sum(part, dtype=np.float64))
        if math.isfinite(total):
            continue  # a finite sum has only finite terms: one quick pass, and no mask
        bad = ~np.isfinite(part)
        count += int(bad.sum())
        row, column = np.unravel_index(int(bad.argmax()), bad.shape)
        first = first or f"{part[row, column]} in row {start + row}, column {column} (from 0)"
    if count:
        raise DataError(
            f"{where}: expected finite numbers, given {count} NaN, infinite or beyond float32; "
            f"the first is {first}; drop or fill those examples"
        )


def first_row(array: Array, wrong: Callable[[Array], Array]) -> int | None:
    """The row of the first entry of a vector that is `wrong`."""
    for start, part in chunks(array):
        bad = wrong(part)
        if bad.any():
            return start + int(bad.argmax())
    return None


def distinct(labels: Array) -> Array:
    """The different values in a vector, in order."""
    return np.unique(np.concatenate([np.unique(part) for _, part in chunks(labels)]))


def as_indices(given: Array, where: str) -> Array:
    """Class indices (n,) int64 from whole numbers of any dtype; (n, 1) is accepted, one-hot rows are not."""
    array = np.asarray(given)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"{where}: expected class indices of shape (n,), given shape {array.shape}; "
            "if these are one-hot rows, pass class indices: y.argmax(axis=1)"
        )
    if array.dtype.kind not in "buif":
        raise DataError(f"{where}: expected whole numbers, given {array.dtype}; pass class indices 0, 1, 2, ...")
    if array.dtype.kind == "f":
        _check_whole(array, where)
    _check_range(array, where)
    return np.ascontiguousarray(array, dtype=np.int64)


def _check_whole(array: Array, where: str) -> None:
    row = first_row(array, lambda part: ~(np.isfinite(part) & (part == np.floor(part))))
    if row is not None:
        raise DataError(
            f"{where}: expected whole class indices, given {array[row]} in row {row} (from 0); "
            "fanin compares classifiers: a continuous target must be cut into classes first"
        )


def _check_range(array: Array, where: str) -> None:
    row = first_row(array, lambda part: (part < 0) | (part >= 2**31))
    if row is not None:
        raise DataError(
            f"{where}: expected class indices from 0, given {array[row]} in row {row} (from 0); "
            "number the classes with np.unique(y, return_inverse=True)[1]"
        )


def check_values(data: Dataset) -> Dataset:
    """The same data set after the checks that read every number; `Dataset` itself checks only shapes."""
    for part, split in (("training", data.train), ("test", data.test)):
        check_finite(split.inputs, f"{data.source}, {part} inputs")
        row = first_row(split.labels, lambda y: (y < 0) | (y >= data.n_classes))
        if row is not None:
            raise DataError(
                f"{data.source}, {part} labels: expected 0 to {data.n_classes - 1}, given "
                f"{split.labels[row]} in "
                f"row {row} (from 0); name all classes, or number them from 0"
            )
    present = distinct(data.train.labels)
    if len(present) < 2:
        raise DataError(
            f"{data.source}, training labels: expected at least 2 classes, given only "
            f"{data.classes[int(present[0])]!r}; there is nothing to tell apart"
        )
    unseen = np.setdiff1d(distinct(data.test.labels), present)
    if len(unseen):
        raise DataError(
            f"{data.source}: expected every test class among the training examples, given in test only: "
            f"{', '.join(data.classes[int(i)] for i in unseen[:10])}; add training examples or drop "
            "those classes"
        )
    return data
