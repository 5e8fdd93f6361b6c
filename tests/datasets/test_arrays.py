"""Data sets, their checks, the fingerprint and the held-out rule."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanin.datasets import Dataset, Split, digits, load
from fanin.datasets.arrays import check_values, held_out
from fanin.datasets.assemble import Examples, assemble
from fanin.errors import DataError

X = np.arange(40, dtype=np.float32).reshape(20, 2)
Y = np.arange(20) % 4


def made(x=X, y=Y, tx=None, ty=None, **more) -> Dataset:
    test = None if tx is None else Examples(tx, ty)
    return assemble("toy", "toy source", Examples(np.asarray(x), np.asarray(y)), test, **more)


def with_value(value, row=3, column=1):
    x = X.astype(np.float64)
    x[row, column] = value
    return x


ERRORS = {
    "nan": (lambda: made(with_value(np.nan)), ["1 NaN", "nan in row 3, column 1", "finite", "drop or fill"]),
    "inf": (lambda: made(with_value(np.inf)), ["inf in row 3", "training inputs"]),
    "both infinities": (
        lambda: made(np.array([[np.inf, -np.inf]] * 20)),
        ["given 40", "inf in row 0, column 0"],
    ),
    "beyond float32": (lambda: made(with_value(1e300)), ["beyond float32", "row 3"]),
    "test nan": (lambda: made(X, Y, with_value(np.nan), Y), ["test inputs", "row 3, column 1"]),
    "flat inputs": (lambda: made(X[:, 0]), ["(n, features)", "(20,)", "reshape(-1, 1)"]),
    "text inputs": (lambda: made(X.astype(str)), ["expected an array of numbers", "<U"]),
    "objects": (lambda: made(np.array([[1], [1, 2]], object)), ["array of numbers", "object"]),
    "complex": (lambda: made(X.astype(complex)), ["numbers", "complex128"]),
    "lengths": (lambda: made(X, Y[:19]), ["training part", "20 examples and 19 labels"]),
    "test lengths": (lambda: made(X, Y, X, Y[1:]), ["test part", "20 examples and 19 labels"]),
    "scalar label": (lambda: made(X, np.int64(3)), ["one label for each example", "a single value"]),
    "empty": (lambda: made(X[:0], Y[:0]), ["at least one example", "(0, 2)"]),
    "no features": (lambda: made(X[:, :0]), ["at least one example and one feature", "(20, 0)"]),
    "empty test": (lambda: made(X, Y, X[:0], Y[:0]), ["test inputs", "at least one example"]),
    "one-hot": (lambda: made(X, np.eye(4)[Y]), ["one-hot", "pass class indices", "argmax", "(20, 4)"]),
    "fractions": (lambda: made(X, Y + 0.5), ["whole class indices", "0.5 in row 0", "cut into classes"]),
    "nan label": (lambda: made(X, np.where(Y == 3, np.nan, Y)), ["nan in row 3"]),
    "negative": (lambda: made(X, np.where(Y == 2, -1, Y)), ["from 0", "-1 in row 2", "np.unique"]),
    "huge label": (lambda: made(X, np.where(Y == 2, 2**40, Y)), ["row 2", "np.unique"]),
    "sparse labels": (lambda: made(X, Y * 1_000_000), ["few gaps", "3000000", "np.unique"]),
    "dates": (lambda: made(X, Y.astype("M8[s]")), ["whole numbers", "datetime64"]),
    "one class": (lambda: made(X, Y * 0), ["at least 2 classes", "nothing to tell apart"]),
    "one class of three": (
        lambda: made(X, Y * 0, X, Y * 0, classes=("a", "b")),
        ["at least 2 classes", "only 'a'"],
    ),
    "outside names": (lambda: made(X, Y, classes=("a", "b")), ["0 to 1", "row 2"]),
    "new test class": (lambda: made(X, Y % 2, X, Y % 3), ["in test only: 2", "add training examples"]),
    "new test name": (
        lambda: made(X, Y.astype(str), X, np.array(["zebra"] * 20)),
        ["in test only: zebra"],
    ),
    "names and numbers": (lambda: made(X, Y.astype(str), X, Y), ["test labels", "names in both parts"]),
    "features differ": (lambda: made(X, Y, X[:, :1], Y), ["2 features", "1 features", "alike"]),
    "dtypes differ": (lambda: made(X, Y, X.astype(np.uint8), Y), ["float32", "uint8", "same way"]),
    "all alone": (lambda: made(X[:3], [0, 1, 2]), ["each alone in its class", "test part"]),
    "scale": (lambda: made(scale=0.0), ["positive, finite scale", "0.0"]),
    "image shape": (lambda: made(image_shape=(3, 3)), ["9 pixels", "(height, width)"]),
    "split order": (lambda: Split(np.asfortranarray(X), Y), ["C-contiguous", "ascontiguousarray"]),
    "split labels": (lambda: Split(X, Y.astype(np.int32)), ["int64", "int32", "astype"]),
    "split lengths": (lambda: Split(X, Y[:3]), ["20 rows and 3 labels"]),
    "split empty": (lambda: Split(X[:0], Y[:0]), ["at least one"]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_where_and_what_to_do(case):
    make, words = ERRORS[case]
    with pytest.raises(DataError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((20, 6), None),
        ((20, 2, 3), (2, 3)),
        ((20, 2, 3, 1), (2, 3)),
        ((20, 1, 2, 3), (2, 3)),
        ((20, 2, 3, 3), None),
    ],
)
def test_pictures_are_flattened_in_row_order_and_their_shape_is_kept(shape, kept):
    x = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    data = made(x, Y, x, Y)
    assert data.image_shape == kept
    assert data.scale == 1 / 255
    assert data.train.inputs.dtype == np.uint8
    np.testing.assert_array_equal(data.train.inputs, x.reshape(20, -1))


def test_floats_become_float32_as_given():
    data = made(X.astype(np.float64), Y.reshape(-1, 1), X.astype(np.float64), Y.astype(np.float32))
    assert (data.scale, data.train.inputs.dtype, data.features, data.n_classes) == (1.0, np.float32, 2, 4)
    assert data.train.labels.dtype == data.test.labels.dtype == np.int64
    np.testing.assert_array_equal(data.train.inputs, X)
    np.testing.assert_array_equal(data.test.labels, Y)


def test_text_labels_are_numbered_in_their_order():
    assert made(X, np.array(["b", "a"] * 10)).classes == ("a", "b")
    assert made(X, np.array(["10", "9"] * 10, object)).classes == ("9", "10")


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200))
@settings(max_examples=60, deadline=None)
def test_held_out_is_a_stratified_fifth(labels):
    y = np.array(labels)
    test = held_out(y)
    np.testing.assert_array_equal(test, held_out(y))
    for c in np.unique(y):
        n, held = int((y == c).sum()), int(test[y == c].sum())
        assert held < n, "training keeps at least one of each class"
        if n > 1:
            assert n // 5 <= held <= -(-n // 5)
    alone = sum(int((y == c).sum()) == 1 for c in np.unique(y))
    assert -(-len(y) // 5) - alone <= test.sum() <= -(-len(y) // 5)


def test_held_out_is_fixed_for_ever():
    assert np.flatnonzero(held_out(np.array([1, 0, 1, 0, 1, 0, 1, 0, 1, 0]))).tolist() == [0, 1]


def test_fingerprint_sees_every_byte_label_and_the_scale():
    data = made(X.astype(np.uint8), Y, X.astype(np.uint8), Y)
    changed = []
    for part in ("train", "test"):
        split = getattr(data, part)
        for field in ("inputs", "labels"):
            array = getattr(split, field).copy()
            array.flat[-1] ^= 1
            changed.append(dataclasses.replace(data, **{part: dataclasses.replace(split, **{field: array})}))
    changed.append(dataclasses.replace(data, scale=np.nextafter(data.scale, 1)))
    changed.append(dataclasses.replace(data, classes=("a", "b", "c", "d", "e")))
    reshaped = Split(data.train.inputs.reshape(40, 1), np.zeros(40, np.int64))
    changed.append(dataclasses.replace(data, train=reshaped, test=reshaped))
    prints = {data.fingerprint, *(d.fingerprint for d in changed)}
    assert len(prints) == 1 + len(changed)
    assert all(len(p) == 16 and int(p, 16) >= 0 for p in prints)
    same = dataclasses.replace(data, name="other", source="elsewhere")
    assert same.fingerprint == data.fingerprint


def test_check_values_passes_good_data_through():
    data = made()
    assert check_values(data) is data


def test_digits_are_pinned():
    data = load("digits")
    assert (len(data.train), len(data.test), data.scale, data.image_shape) == (1437, 360, 1 / 16, (8, 8))
    assert (data.train.inputs.dtype, int(data.train.inputs.max())) == (np.uint8, 16)
    assert data.classes == tuple("0123456789")
    everyone = np.bincount(data.train.labels) + np.bincount(data.test.labels)
    assert np.abs(np.bincount(data.test.labels) - everyone / 5).max() < 1
    assert data.fingerprint == "a493de7c89f218f6"


def test_digits_do_not_load_scikit_learn():
    """It takes longer to load than the smallest study to run."""
    code = "import sys; from fanin.datasets import load; load('digits'); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(digits, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        load("digits")
