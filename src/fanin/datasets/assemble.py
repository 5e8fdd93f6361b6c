"""From raw arrays, as files and functions hand them over, to a checked `Dataset`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fanin.datasets.arrays import (
    Array,
    Dataset,
    Split,
    as_indices,
    as_rows,
    check_finite,
    check_values,
    distinct,
    held_out,
)
from fanin.errors import DataError


class Examples(NamedTuple):
    """Inputs of any accepted shape, and labels: class indices, or class names as text."""

    inputs: Array
    labels: Array


def assemble(
    name: str,
    source: str,
    train: Examples,
    test: Examples | None = None,
    *,
    classes: Sequence[str] | None = None,
    scale: float | None = None,
    image_shape: tuple[int, int] | None = None,
) -> Dataset:
    """A checked data set; without a test part one example in five is held out (`arrays.held_out`).

    Bytes are taken for pictures (scale 1/255), other numbers as they are (scale 1). Class names come from
    `classes`, or from text labels in sorted order, or are the numbers 0, 1, 2, ...
    """
    x, shape = as_rows(train.inputs, f"{source}, training inputs")
    _check_lengths(x, train.labels, f"{source}, training part")
    given = [train.labels] if test is None else [train.labels, test.labels]
    names, indices = _encode(given, classes, source)
    if test is None:
        check_finite(x, f"{source}, training inputs")  # here, since the split gives the rows other numbers
        hold = held_out(indices[0])
        if not hold.any():
            raise DataError(
                f"{source}: expected at least 2 examples of some class to hold out a test part, "
                f"given {len(hold)} examples, each alone in its class; add examples or give a test part"
            )
        splits = Split(x[~hold], indices[0][~hold]), Split(x[hold], indices[0][hold])
    else:
        t, _ = as_rows(test.inputs, f"{source}, test inputs")
        _check_lengths(t, test.labels, f"{source}, test part")
        splits = Split(x, indices[0]), Split(t, indices[1])
    factor = scale if scale is not None else (1 / 255 if x.dtype == np.uint8 else 1.0)
    return check_values(Dataset(name, *splits, names, factor, image_shape or shape, source))


def _check_lengths(x: Array, labels: Array, where: str) -> None:
    if np.ndim(labels) == 0 or len(x) != len(labels):
        count = "a single value" if np.ndim(labels) == 0 else f"{len(labels)} labels"
        raise DataError(f"{where}: expected one label for each example, given {len(x)} examples and {count}")


def _encode(parts: list[Array], classes: Sequence[str] | None, source: str) -> tuple[tuple[str, ...], list[Array]]:
    """Class names, and each part's labels as indices into them."""
    wheres = [f"{source}, training labels", f"{source}, test labels"][: len(parts)]
    arrays = [np.asarray(part) for part in parts]
    if any(_is_text(a) for a in arrays):
        return _encode_text(arrays, wheres)
    indices = [as_indices(a, w) for a, w in zip(arrays, wheres, strict=True)]
    if classes is not None:
        return tuple(str(c) for c in classes), indices
    count = 1 + max(int(i.max()) for i in indices if len(i))
    kinds = len(np.unique(np.concatenate([distinct(i) for i in indices if len(i)])))
    if count > 2 * kinds:  # an output for each number up to the largest would be mostly dead weight
        raise DataError(
            f"{wheres[0]}: expected class indices 0, 1, 2, ... with few gaps, given {kinds} different "
            "values up to "
            f"{count - 1}; number the classes with np.unique(y, return_inverse=True)[1]"
        )
    return tuple(str(i) for i in range(count)), indices


def _is_text(array: Array) -> bool:
    return array.dtype.kind == "U" or (array.dtype == object and all(isinstance(v, str) for v in array.flat))


def _encode_text(arrays: list[Array], wheres: list[str]) -> tuple[tuple[str, ...], list[Array]]:
    for array, where in zip(arrays, wheres, strict=True):
        if not _is_text(array) or array.ndim != 1:
            raise DataError(
                f"{where}: expected one class name for each example, in training and test alike, "
                f"given {array.dtype} "
                f"of shape {array.shape}; use names in both parts, or class indices in both"
            )
    names = ordered({str(v) for array in arrays for v in array})
    index = {name: i for i, name in enumerate(names)}
    return names, [np.array([index[str(v)] for v in array], dtype=np.int64) for array in arrays]


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in their order: numeric if all are whole numbers (2 before 10), else alphabetic."""
    found = list(names)
    if all(re.fullmatch(r"-?\d{1,300}", n) for n in found):  # int() takes no thousands of digits
        return tuple(sorted(found, key=lambda n: (int(n), n)))
    return tuple(sorted(found))
