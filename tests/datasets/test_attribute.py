"""Data from Python code."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fanin.datasets import load
from fanin.errors import DataError

MODULE = """
import numpy as np
from fanin.datasets import Dataset, Split

X = np.arange(60.0).reshape(20, 3)
y = np.arange(20) % 4
pair = (X, y)
lists = (X.tolist(), y.tolist())
def two(): return X, y
def four(): return X, y, X[:8], y[:8]
nested = ((X, y), (X[:8], y[:8]))
tiny = ([[1.0, 2.0], [3.0, 4.0]] * 2, [0, 1] * 2)
ours = Dataset("mine", Split(X.astype("f4"), y), Split(X.astype("f4"), y), tuple("abcd"), 0.5, None, "here")
bad = Dataset("mine", ours.train, Split(X.astype("f4") * np.nan, y), tuple("abcd"), 0.5, None, "here")

class Tensor:
    def __init__(self, array): self.array = np.asarray(array)
    def detach(self): return self
    def cpu(self): return self
    def numpy(self): return self.array

class Torchy:
    classes = ["p", "q", "r", "s"]
    def __init__(self, n=20): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i):
        if i >= self.n: raise IndexError(i)
        return Tensor(np.full((1, 2, 3), i / self.n, "f4")), i % 4

class Ragged(Torchy):
    def __getitem__(self, i): return np.zeros(i + 1), 0

class Single(Torchy):
    def __getitem__(self, i): return np.zeros(3)

torchy, both = Torchy(), (Torchy(), Torchy(8))
ragged, single, empty = Ragged(), Single(), Torchy(0)
three = (X, y, X)
number = 3
def broken(): raise RuntimeError("the disk fell off")
def needs(argument): return X, y
"""


@pytest.fixture(autouse=True)
def _module():
    Path("toys.py").write_text(MODULE)
    Path("burnt.py").write_text("1 / 0")
    Path("needy.py").write_text("import surely_not_installed")
    yield
    for name in ("toys", "burnt", "needy"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("attribute", "train", "test"),
    [
        ("pair", 16, 4),
        ("lists", 16, 4),
        ("two", 16, 4),
        ("four", 20, 8),
        ("nested", 20, 8),
        ("tiny", 3, 1),
        ("torchy", 16, 4),
        ("Torchy", 16, 4),
        ("both", 20, 8),
    ],
)
def test_forms(attribute, train, test):
    path = list(sys.path)
    data = load(f"toys:{attribute}")
    assert sys.path == path
    assert (data.name, len(data.train), len(data.test)) == (f"toys:{attribute}", train, test)
    assert data.scale == 1.0
    torchy = "both" in attribute or "orchy" in attribute
    assert data.image_shape == ((2, 3) if torchy else None)
    if torchy:
        assert data.classes == tuple("pqrs")


def test_a_ready_dataset_is_checked_and_passed_on():
    assert load("toys:ours").scale == 0.5
    with pytest.raises(DataError, match=r"test inputs.*60 NaN"):
        load("toys:bad")


def test_progress_is_told():
    seen = []
    load("toys:both", progress=lambda *what: seen.append(what))
    assert seen[-1][1] == seen[-1][2] == 8 * 24


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("toyz:X", ["no module named 'toyz'", "did you mean 'toys'"]),
        ("toys:torchi", ["has no 'torchi'", "did you mean 'torchy'"]),
        ("burnt:X", ["importing burnt raised", "ZeroDivisionError"]),
        ("needy:X", ["surely_not_installed", "install"]),
        ("toys:broken", ["toys:broken", "RuntimeError: the disk fell off", "without arguments"]),
        ("toys:needs", ["TypeError", "argument"]),
        ("toys:number", ["expected (X, y)", "given int"]),
        ("toys:three", ["tuple of 3"]),
        ("toys:X", ["given ndarray"]),
        ("toys:ragged", ["item 1 of shape (1,)", "given (2,)"]),
        ("toys:single", ["item 0 to be (x, y)", "given ndarray"]),
        ("toys:empty", ["empty data set"]),
    ],
)
def test_errors(spec, words):
    with pytest.raises(DataError) as caught:
        load(spec)
    for word in words:
        assert word in str(caught.value)


def test_a_real_torch_data_set():
    torch = pytest.importorskip("torch")
    Path("toys.py").write_text(
        "import torch\nx = torch.rand(20, 1, 2, 3)\ny = torch.arange(20) % 2\n"
        "tensors = x, y\nitems = torch.utils.data.TensorDataset(x, y)\n"
    )
    one, other = load("toys:tensors"), load("toys:items")
    assert one.fingerprint == other.fingerprint
    assert one.image_shape == (2, 3)
    np.testing.assert_array_equal(np.sort(np.concatenate([one.train.labels, one.test.labels])), [0] * 10 + [1] * 10)
    torch.from_numpy(one.train.inputs)
