"""Paths: .npz, CSV, folders of pictures; and what is said of each when it is wrong."""

from __future__ import annotations

import contextlib
import gzip
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fanin.datasets import load
from fanin.datasets.pictures import read_grey
from fanin.errors import DataError

X = np.arange(60).reshape(20, 3).astype(np.float64)
Y = np.arange(20) % 4
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def says(spec, *words, **more):
    with pytest.raises(DataError) as caught:
        load(str(spec), **more)
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    "keys", [("X", "y"), ("x", "y"), ("inputs", "labels"), ("images", "labels"), ("data", "target")]
)
def test_npz_without_test_part(tmp_path, keys):
    path = tmp_path / "toy.npz"
    np.savez(path, **dict(zip(keys, (X, Y), strict=True)))
    data = load(str(path))
    assert (data.name, len(data.train), len(data.test), data.scale) == ("toy", 16, 4, 1.0)
    assert str(path) in data.source
    assert load(path).fingerprint == data.fingerprint


def test_npz_as_keras_saves_it(tmp_path):
    path = tmp_path / "keras.npz"
    pictures = np.asfortranarray(np.arange(120).reshape(20, 2, 3).astype(np.uint8))
    np.savez_compressed(path, x_train=pictures, y_train=Y.astype("u1"), x_test=pictures[:8], y_test=Y[:8])
    data = load(str(path))
    assert (len(data.train), len(data.test), data.image_shape, data.scale) == (20, 8, (2, 3), 1 / 255)
    np.testing.assert_array_equal(data.train.inputs, pictures.reshape(20, 6))


def test_npz_text_labels_and_foreign_byte_order(tmp_path):
    path = tmp_path / "text.npz"
    np.savez(path, X=X.astype(">f4"), y=np.array(["cat", "dog"] * 10))
    data = load(str(path))
    assert data.classes == ("cat", "dog")
    assert data.train.inputs.dtype == np.dtype("=f4")


def test_npz_errors(tmp_path, monkeypatch):
    path = tmp_path / "toy.npz"
    np.savez(path, A=X, B=Y)
    says(path, str(path), "x_train", "given a, b", "rename")
    np.savez(path, x_train=X, y_train=Y, x_test=X)
    says(path, "x_test and y_test together", "only x_test")
    np.savez(path, X=np.array([[object()]] * 20), y=Y)
    says(path, "pickled objects may run code", "array X", "plain dtype")
    path.write_bytes(b"no zip")
    says(path, str(path), "cannot be read as an .npz", "np.savez")
    says(tmp_path / "tyo.npz", "no such file", "did you mean 'toy.npz'")
    says(tmp_path / "none" / "x.npz", "nor is there a folder")


def npy(shape: str, data: bytes, magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return magic + len(head).to_bytes(2, "little") + head + data


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (npy("(100000, 100000)", b""), "promises"),
        (npy("(20, -3)", b""), "corrupt"),
        (npy("(20, 3)", bytes(8)), "the archive holds 8"),
        (npy("(20, 3)", bytes(480), b"\x93NUMPY\x09\x00"), "format 1.0 or 2.0"),
        (pickle.dumps(X), "cannot be read"),
    ],
)
def test_npz_with_lying_arrays(tmp_path, content, word):
    path = tmp_path / "lie.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", content)
        archive.writestr("y.npy", npy("(20,)", Y.astype("f8").tobytes()))
    says(path, str(path), word)


@quick
@given(data=st.data(), packed=st.booleans())
def test_any_corrupt_npz_is_read_or_a_data_error(tmp_path, data, packed):
    path = tmp_path / "toy.npz"
    (np.savez_compressed if packed else np.savez)(path, X=X, y=Y)
    bad = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bad[: data.draw(st.integers(0, len(bad)))])
    with contextlib.suppress(DataError):  # any other exception fails the test
        load(str(path))


CSV = "".join(f"{a},{b / 2},{'cat' if a % 2 else 'dog'}\n" for a, b in zip(range(10), range(10), strict=True))


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        (CSV, ("cat", "dog")),
        ("a,b,kind\n" + CSV, ("cat", "dog")),
        ("\ufeff0,1,label\r\n" + CSV.replace("\n", "\r\n"), ("cat", "dog")),
        (CSV.replace(",", ";"), ("cat", "dog")),
        (CSV.replace(",", "\t"), ("cat", "dog")),
        ("\n\n" + CSV.replace("\n", "\n\n"), ("cat", "dog")),
        (CSV.replace("cat", "y").replace("dog", "n"), ("n", "y")),
        (CSV.replace("cat", "2.0").replace("dog", "10"), ("2", "10")),
        (CSV.replace("cat", "-1").replace("dog", "1"), ("-1", "1")),
    ],
)
def test_csv_forms(tmp_path, text, classes):
    path = tmp_path / "pets.csv"
    path.write_bytes(text.encode())
    data = load(str(path))
    assert data.name == "pets"
    assert data.classes == classes
    assert (len(data.train), len(data.test), data.features, data.scale) == (8, 2, 2, 1.0)
    rows = np.concatenate([data.train.inputs, data.test.inputs])
    np.testing.assert_array_equal(rows[rows[:, 0].argsort()], [[a, a / 2] for a in range(10)])


def test_csv_label_column_by_name_and_gzip(tmp_path):
    path = tmp_path / "named.csv.gz"
    path.write_bytes(gzip.compress(b"a,Target,b\n" + b"".join(b"%d,%d,7\n" % (i, i % 2) for i in range(10))))
    data = load(str(path))
    assert data.classes == ("0", "1")
    assert set(data.train.inputs[:, 1]) == {7.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,label\n1,2,x\n1,oops,y\n", ["line 3", "column 'b'", "'oops'", "finite number"]),
        ("1,2,0\n1,nan,1\n", ["line 2", "column '2'", "'nan'"]),
        ("1,2,0\n1,1e99,1\n", ["line 2", "'1e99'"]),
        ("1,2,0\n1,,1\n", ["line 2", "given ''"]),
        ("1,2,0\n1,2\n", ["line 2", "expected 3 cells", "given 2"]),
        ("1,2,0\n1,2,\n", ["line 2", "expected a label"]),
        ("1,2,0.5\n1,2,0.25\n", ["'0.5'", "continuous"]),
        ("", ["expected at least one feature", "empty file"]),
        ("1\n2\n", ["line 1", "one feature and a label"]),
        ("a,label\n", ["at least one example"]),
        ("1,2,0\n1,\x002,0\n", ["line 2"]),
        ("1," + "9" * 200_000 + ",0\n", ["line 1"]),
    ],
)
def test_csv_errors(tmp_path, text, words):
    path = tmp_path / "bad.csv"
    path.write_bytes(text.encode())
    says(path, str(path), *words)


def test_csv_endless_line_encoding_and_damage(tmp_path, monkeypatch):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"1,2,\xff\n")
    says(path, str(path), "UTF-8")
    path.write_bytes(gzip.compress(bytes(40_000_000)))
    says(path, str(path), "line 1: longer than")
    path.write_bytes(gzip.compress(CSV.encode())[:-9])
    says(path, str(path), "cut off")


def picture(path: Path, value: int, size=(4, 3), mode="L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(path)


def test_folders_of_pictures(tmp_path):
    for i in range(10):
        picture(tmp_path / "set" / f"{i % 2 + 9}" / f"{i}.{('png', 'bmp')[i % 2]}", i, mode=("L", "RGB")[i % 2])
    (tmp_path / "set" / "9" / "notes.txt").write_text("not a picture")
    (tmp_path / "set" / ".hidden").mkdir()
    data = load(str(tmp_path / "set"))
    assert (data.name, data.classes, data.image_shape) == ("set", ("9", "10"), (3, 4))
    assert (len(data.train), len(data.test), data.scale) == (8, 2, 1 / 255)
    assert sorted({*data.train.inputs[:, 0], *data.test.inputs[:, 0]}) == list(range(10))


def test_pictures_with_a_test_part_and_sixteen_bits(tmp_path):
    for part, n in (("train", 3), ("test", 2)):
        for name in ("no", "yes"):
            for i in range(n):
                picture(tmp_path / part / name / f"{i}.jpg", 128)
    Image.fromarray(np.full((3, 4), 40_000, np.uint16)).save(tmp_path / "train/no/deep.png")
    data = load(str(tmp_path))
    assert (data.classes, len(data.train), len(data.test)) == (("no", "yes"), 7, 4)
    assert 40_000 // 256 in data.train.inputs


def test_picture_errors(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    says(root, str(root), "no folder of a class", "<class>")
    picture(root / "a" / "0.png", 1)
    picture(root / "b" / "0.png", 1, size=(5, 3))
    says(root, str(root / "b" / "0.png"), "3 x 4", "3 x 5", "one size")
    (root / "b" / "0.png").write_bytes((root / "a" / "0.png").read_bytes()[:40])
    says(root, str(root / "b" / "0.png"), "cannot be read as a picture")
    (root / "b" / "0.png").unlink()
    says(root, str(root / "b"), "found none")
    picture(root / "train" / "a" / "0.png", 1)
    picture(root / "test" / "zebra" / "0.png", 1)
    says(root, "without training pictures: zebra")


def test_unknown_names_and_paths(tmp_path):
    says("minst", "unknown data set 'minst'", "did you mean 'mnist'", "module:attr")
    says("", "unknown data set ''")
    Path("iris.csv").write_text(CSV)
    says("iris", "did you mean 'iris.csv'")
    says("./irs.csv", "did you mean 'iris.csv'")
    says("a,b,c", "two IDX files", "3 parts")
    Path("note.txt").write_text("x")
    says("note.txt", "expected a .npz or .csv", ".txt")
    says("x" * 5000 + ".csv", "cannot be read")
    says("nul\0.csv", "no such file")


def test_relative_paths_are_looked_for_in_data_dir(tmp_path):
    (tmp_path / "pets.csv").write_text(CSV)
    assert load("pets.csv", data_dir=tmp_path).classes == ("cat", "dog")
    says("pets.csv", "no such file")


def test_a_picture_whose_name_is_too_long_is_told(tmp_path):
    with pytest.raises(DataError, match="xxx"):
        read_grey(tmp_path / ("x" * 5000))
