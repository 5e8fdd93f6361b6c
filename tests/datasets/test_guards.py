"""What the readers keep apart, refuse or bound although most files never ask for it."""

from __future__ import annotations

import contextlib
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from fanin.datasets import fetch, load, open_shared, save_shared
from fanin.datasets.assemble import ordered
from fanin.datasets.pictures import read_grey
from fanin.datasets.place import at_place
from fanin.datasets.table import load_csv
from fanin.errors import DataError

X, Y = np.arange(40, dtype=np.float32).reshape(20, 2), np.arange(20) % 2


def table(folder, *labels: str, end: str = "\n"):
    path = folder / "table.csv"
    path.write_bytes("".join(f"{i},{labels[i % len(labels)]}{end}" for i in range(12)).encode())
    return path


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("9007199254740992", "9007199254740993"), ("9007199254740992", "9007199254740993")),  # equal as floats
        (("1_2", "12"), ("12", "1_2")),  # Python reads 1_2 as 12
        (("1.0", "2"), ("1", "2")),
        (("a" * 1000, "b"), ("a" * 1000, "b")),
        (("x\0", "x"), ("x", "x\0")),  # numpy's text drops zeros at the end
    ],
)
def test_labels_that_differ_are_different_classes(tmp_path, labels, classes):
    data = load_csv(table(tmp_path, *labels))
    assert data.classes == classes
    assert np.bincount(np.concatenate([data.train.labels, data.test.labels])).tolist() == [6, 6]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\r\n\n\r"])
def test_any_line_ends_are_read_alike(tmp_path, end):
    expected = load_csv(table(tmp_path, "a", "b")).fingerprint
    assert load_csv(table(tmp_path, "a", "b", end=end)).fingerprint == expected


def test_class_names_of_thousands_of_digits_are_names(tmp_path):
    long = "1" * 5000
    assert ordered([long, "2"]) == (long, "2")
    assert ordered(["10", "9"]) == ("9", "10")
    np.savez(tmp_path / "a.npz", X=X, y=np.array([long, "2"] * 10))
    assert load(tmp_path / "a.npz").classes == (long, "2")


def test_code_is_run_only_where_it_may_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tempting.py").write_text(
        "import pathlib; pathlib.Path('ran').touch()\ndata = [[0.0], [1.0]] * 8, [0, 1] * 8"
    )
    with pytest.raises(DataError, match="tempting:data: names Python code"):
        load("tempting:data", allow_code=False)
    assert not (tmp_path / "ran").exists()
    assert len(load("tempting:data").train) == 12
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "ICO", "PCX"])
def test_a_picture_is_decoded_by_few_formats_whatever_its_name(tmp_path, kind):
    Image.new("L", (4, 4), 7).save(tmp_path / "picture", kind)
    (tmp_path / "picture").rename(tmp_path / "picture.png")
    with pytest.raises(DataError, match="expected PNG, JPEG"):
        read_grey(tmp_path / "picture.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_the_formats_of_pictures_are_read(tmp_path, kind):
    Image.new("L", (5, 4), 7).save(tmp_path / "picture", kind)
    assert read_grey(tmp_path / "picture").shape == (4, 5)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_are_stored_or_deflated(tmp_path, method):
    np.savez(tmp_path / "a.npz", X=X, y=Y)
    assert len(load(tmp_path / "a.npz").train) == 16
    with zipfile.ZipFile(tmp_path / "a.npz") as old, zipfile.ZipFile(tmp_path / "b.npz", "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(DataError, match="expected it stored or deflated"):
        load(tmp_path / "b.npz")


@pytest.mark.parametrize("names", [("../X.npy", "y.npy"), ("/X.npy", "y.npy"), ("X.npy", "X.npy", "y.npy")])
def test_members_are_read_by_their_own_names_alone(tmp_path, names):
    np.savez(tmp_path / "a.npz", X=X, y=Y)
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "a.npz") as old, zipfile.ZipFile(tmp_path / "in" / "b.npz", "w") as new:
        for name in names:
            with pytest.warns(UserWarning, match="Duplicate") if name in new.namelist() else contextlib.nullcontext():
                new.writestr(name, old.read(name.removeprefix("../").removeprefix("/")))
    with pytest.raises(DataError, match=r"expected the arrays|expected one array"):
        load(tmp_path / "in" / "b.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "in"]


def saved(folder, **changed):
    """A shared data set whose description was changed."""
    np.savez(folder / "a.npz", X=X, y=Y)
    save_shared(load(folder / "a.npz"), folder / "shared")
    path = folder / "shared" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return folder / "shared"


@pytest.mark.parametrize("fingerprint", ["../../../etc/passwd", "", None, 3, "0" * 17, ["0"]])
def test_a_shared_data_set_has_a_fingerprint_of_digits(tmp_path, fingerprint):
    assert len(open_shared(saved(tmp_path)).train) == 16
    with pytest.raises(DataError, match="expected a fingerprint of 16 hex digits"):
        open_shared(saved(tmp_path, fingerprint=fingerprint))


def test_a_shared_data_set_nested_deep_is_refused(tmp_path):
    folder = saved(tmp_path)
    (folder / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="cannot be read"):
        open_shared(folder)


@pytest.mark.parametrize("dtype", ["object", "O", "float64", "U8", None])
def test_only_a_splits_arrays_are_mapped(tmp_path, dtype):
    (tmp_path / "file").write_bytes(bytes(64))
    status = (tmp_path / "file").stat()
    place = {"file": str(tmp_path / "file"), "offset": 0, "shape": [8]}
    place |= {"size": status.st_size, "modified": status.st_mtime_ns, "inode": status.st_ino}
    assert at_place(place | {"dtype": "int64"}).tolist() == [0] * 8
    with pytest.raises(DataError, match="expected an array of uint8, float32, int64"):
        at_place(place | {"dtype": dtype})


class Dribble:
    """A server's answer of 1000 bytes, one at a time."""

    def __init__(self) -> None:
        self.headers, self.left = {"Content-Length": "1000"}, 1000

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def read1(self, _):
        self.left -= 1
        return b"x" if self.left >= 0 else b""


def test_a_server_that_dribbles_is_given_up(monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Dribble())
    assert fetch.download("https://example.org", 1000, fetch.silent, "it") == b"x" * 1000
    monkeypatch.setattr(fetch, "DOWNLOAD_SECONDS", -1.0)
    with pytest.raises(DataError, match=r"sent 1 bytes in .* given up"):
        fetch.download("https://example.org", 1000, fetch.silent, "it")
