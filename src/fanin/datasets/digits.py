"""scikit-learn's 8x8 digits: 1,797 pictures that need no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fanin.datasets.arrays import Dataset
from fanin.datasets.assemble import Examples, assemble
from fanin.datasets.unpack import require_file
from fanin.errors import DataError


def load_digits() -> Dataset:
    """The 8x8 digits, values 0..16 as bytes, scale 1/16, split 1437/360 by `arrays.held_out`.

    The file's order is by writers, in blocks. Therefore test is every fifth example of each class, not the
    last fifth of the file: both parts hold the same writers, so that the test error measures the training
    under study and not how far a few unseen writers lie from the others. Accuracies are hence higher than
    those published for a split by order, and must not be compared with them.
    """
    rows = np.loadtxt(_file(), dtype=np.int64, delimiter=",")
    return assemble(
        "digits",
        "scikit-learn's digits",
        Examples(rows[:, :-1].astype(np.uint8), rows[:, -1]),
        scale=1 / 16,
        image_shape=(8, 8),
    )


def _file() -> Path:
    """scikit-learn's file of them: loading scikit-learn to have it read takes a second and more."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("digits: expected scikit-learn, whose data they are; install it: pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    require_file(path)
    return path
