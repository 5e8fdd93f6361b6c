"""scikit-learn's 8x8 digits: 1,797 pictures that need no download."""

from __future__ import annotations

import numpy as np

from fanin.datasets.arrays import Dataset
from fanin.datasets.assemble import Examples, assemble


def load_digits() -> Dataset:
    """The 8x8 digits, values 0..16 as bytes, scale 1/16, split 1437/360 by `arrays.held_out`.

    The file's order is by writers, in blocks. Therefore test is every fifth example of each class, not the
    last fifth of the file: both parts hold the same writers, so that the test error measures the training
    under study and not how far a few unseen writers lie from the others. Accuracies are hence higher than
    those published for a split by order, and must not be compared with them.
    """
    import sklearn.datasets  # takes a second

    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    inputs = np.asarray(pixels).astype(np.uint8)
    return assemble(
        "digits",
        "scikit-learn's digits",
        Examples(inputs, np.asarray(labels)),
        scale=1 / 16,
        image_shape=(8, 8),
    )
