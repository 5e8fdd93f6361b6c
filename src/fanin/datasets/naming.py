"""What the arrays of a data set are called in an .npz file or a folder of .npy files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fanin.errors import DataError

Pair = tuple[str, str]  # the files of the inputs and of the labels

_TRAIN = (("x_train", "y_train"), ("train_images", "train_labels"), ("train_x", "train_y"))
_TEST = (("x_test", "y_test"), ("test_images", "test_labels"), ("test_x", "test_y"))
_WHOLE = tuple((x, y) for x in ("x", "inputs", "images", "features", "data") for y in ("y", "labels", "target"))


def training_and_test(files: Iterable[str], where: Path, save: str) -> tuple[Pair, Pair | None]:
    """The files of the training part, or of the whole set, and of the test part if there is one.

    `files` end in .npy; upper and lower case are the same. `save` tells in the error how to name them right.
    """
    keys = _keys(files, where)
    train = _first(keys, _TRAIN) or _first(keys, _WHOLE)
    if train is None:
        raise DataError(
            f"{where}: expected the arrays x_train, y_train (and x_test, y_test), or X, y, or inputs, labels; "
            f"given {', '.join(sorted(keys)) or 'none'}; rename them: {save}"
        )
    test = _first(keys, _TEST)
    half = [name for pair in _TEST for name in pair if name in keys]
    if half and test is None:
        raise DataError(f"{where}: expected x_test and y_test together, given only {', '.join(half)}; add the other")
    return train, test


def _keys(files: Iterable[str], where: Path) -> dict[str, str]:
    keys: dict[str, str] = {}
    for file in files:
        key = file.removesuffix(".npy").lower()
        if key in keys:
            raise DataError(f"{where}: expected one array {key}, given {keys[key]} and {file}; remove one")
        keys[key] = file
    return keys


def _first(keys: dict[str, str], pairs: tuple[Pair, ...]) -> Pair | None:
    return next(((keys[x], keys[y]) for x, y in pairs if x in keys and y in keys), None)
