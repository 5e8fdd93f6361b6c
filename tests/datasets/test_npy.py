"""Folders of .npy arrays: mapped and never copied, in memory that does not grow with them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import fanin
from fanin.datasets import load, open_shared, save_shared
from fanin.errors import DataError

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 4
NAMES = ("X_train", "y_train", "X_test", "y_test")


def put(folder, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def four(folder, x=X, y=Y):
    return put(folder, **dict(zip(NAMES, (x, y, x[:8], y[:8]), strict=True)))


def says(folder, *words):
    with pytest.raises(DataError) as caught:
        load(folder)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def arrays_of(data):
    return data.train.inputs, data.train.labels, data.test.inputs, data.test.labels


def file_of(array):
    """The file that an array is mapped from; AttributeError if it is none."""
    while not isinstance(array, np.memmap):
        array = array.base
    return str(array.filename)


@pytest.mark.parametrize("x", [X, X.astype(np.uint8), X.astype(np.uint8).reshape(20, 3, 1)])
def test_the_same_as_in_memory(tmp_path, x):
    np.savez(tmp_path / "toy.npz", **dict(zip(NAMES, (x, Y, x[:8], Y[:8]), strict=True)))
    read, data = load(tmp_path / "toy.npz"), load(four(tmp_path / "toy", x))
    assert data.fingerprint == read.fingerprint
    assert (data.name, data.scale, data.classes, data.image_shape) == (
        "toy",
        read.scale,
        read.classes,
        read.image_shape,
    )
    assert [file_of(array) for array in arrays_of(data)] == [str(tmp_path / "toy" / f"{name}.npy") for name in NAMES]


def test_workers_map_the_files_themselves(tmp_path):
    folder = four(tmp_path / "toy")
    shared = save_shared(load(folder), tmp_path / "shared")
    assert [path.name for path in shared.iterdir()] == ["dataset.json"]
    back = open_shared(shared)
    assert dataclasses.replace(back).fingerprint == load(folder).fingerprint
    assert [file_of(array) for array in arrays_of(back)] == [str(folder / f"{name}.npy") for name in NAMES]
    assert not any(array.flags.writeable for array in arrays_of(back))


def test_only_what_lies_in_no_file_is_copied(tmp_path):
    folder = four(tmp_path / "toy", y=Y.astype(np.uint8))
    shared = save_shared(load(folder), tmp_path / "shared")
    assert sorted(path.name.split("-", 1)[-1] for path in shared.iterdir()) == [
        "dataset.json",
        "test-labels.npy",
        "train-labels.npy",
    ]
    assert dataclasses.replace(open_shared(shared)).fingerprint == load(four(tmp_path / "int64")).fingerprint


def test_parts_of_a_users_own_map(tmp_path):
    """A slice of a mapped array lies in the file as well; a copy-on-write one that was changed does not."""
    np.save(tmp_path / "all.npy", X)
    for mode, column, copied in (("r", slice(None), 0), ("c", slice(None), 1), ("r", slice(0, 2), 1)):
        mapped = np.load(tmp_path / "all.npy", mmap_mode=mode)
        if mode == "c":
            mapped[:] = 7
        x = np.ascontiguousarray(mapped[4:, column])
        part = fanin.datasets.Split(x, Y[4:])
        data = fanin.Dataset(
            "parts", part, fanin.datasets.Split(X[:, column].copy(), Y), tuple("abcd"), 1.0, None, "me"
        )
        shared = save_shared(data, tmp_path / f"{mode}{column}")
        assert len(list(shared.glob("*train-inputs.npy"))) == copied
        np.testing.assert_array_equal(open_shared(shared).train.inputs, x)


def test_a_file_that_was_deleted_is_copied(tmp_path):
    data = load(four(tmp_path / "toy"))
    (tmp_path / "toy" / "X_train.npy").unlink()
    shared = save_shared(data, tmp_path / "shared")
    assert len(list(shared.glob("*.npy"))) == 1
    np.testing.assert_array_equal(open_shared(shared).train.inputs, X)


def test_a_file_that_changes_is_noticed(tmp_path):
    folder = four(tmp_path / "toy")
    shared = save_shared(load(folder), tmp_path / "shared")
    np.save(folder / "X_train.npy", X + 1)
    with pytest.raises(DataError, match=r"X_train\.npy: changed"):
        open_shared(shared)
    (folder / "X_train.npy").unlink()
    with pytest.raises(DataError, match="cannot be mapped any more"):
        open_shared(shared)


def test_other_kinds_are_converted(tmp_path):
    truth = load(four(tmp_path / "plain")).fingerprint
    assert load(four(tmp_path / "double", X.astype(np.float64), Y.astype(np.int16))).fingerprint == truth
    assert load(four(tmp_path / "big", X.astype(">f4"), Y.astype(">i8"))).fingerprint == truth
    assert load(four(tmp_path / "fortran", np.asfortranarray(X))).fingerprint == truth
    assert load(four(tmp_path / "text", y=np.array(["a", "b", "c", "d"] * 5))).classes == tuple("abcd")


def test_without_a_test_part(tmp_path):
    np.savez(tmp_path / "toy.npz", X=X, y=Y)
    assert load(put(tmp_path / "toy", X=X, y=Y)).fingerprint == load(tmp_path / "toy.npz").fingerprint


def test_what_is_too_large_to_convert(tmp_path, monkeypatch):
    monkeypatch.setenv("FANIN_MAX_BYTES", str(X.nbytes - 1))
    four(tmp_path / "fits")
    assert len(load(tmp_path / "fits").train) == 20
    says(put(tmp_path / "whole", X=X, y=Y), "X.npy", "test part", "x_test.npy")
    says(four(tmp_path / "double", X.astype(np.float64)), "X_train.npy", "uint8 or float32", "given float64 in C order")
    says(four(tmp_path / "big", X.astype(">f4")), "native byte order", "given >f4")
    says(four(tmp_path / "fortran", np.asfortranarray(X)), "given float32 in Fortran order", "save it so")
    says(four(tmp_path / "labels", y=np.repeat(Y.astype(np.int32), 1)[:, None].repeat(3, 1)), "y_train.npy", "int64")


def test_errors(tmp_path):
    says(put(tmp_path / "names", A=X, B=Y), "names: expected the arrays x_train", "given a, b", "x_test.npy")
    says(put(tmp_path / "half", x_train=X, y_train=Y, x_test=X), "x_test and y_test together", "only x_test")
    twice = put(tmp_path / "twice", X=X, y=Y)
    (twice / "Y.npy").write_bytes((twice / "y.npy").read_bytes())
    says(twice, "expected one array y, given Y.npy and y.npy")
    says(four(tmp_path / "short", y=Y[:-1]), "20 examples and 19 labels")
    says(put(tmp_path / "object", X=np.array([[object()]] * 20), y=Y), "X.npy", "pickled objects")
    says(four(tmp_path / "complex", X.astype(complex)), "X_train.npy", "given complex128")
    says(four(tmp_path / "flat", X[:, 0]), "training inputs", "given shape (20,)")
    says(put(tmp_path / "empty", X=X[:0], y=Y[:0]), "at least one example")
    says(put(tmp_path / "features", X_train=X, y_train=Y, X_test=X[:, :2], y_test=Y), "alike", "3 features", "and 2")
    says(four(tmp_path / "wrong", y=Y + 0.5), "whole class indices")
    bad = X.copy()
    bad[7, 2] = np.nan
    says(four(tmp_path / "nan", bad), "1 NaN", "row 7, column 2")
    says(four(tmp_path / "lonely") / "X_train.npy", "single array", "give the folder", "lonely")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "X.npy").mkdir()
    np.save(tmp_path / "folder" / "y.npy", Y)
    says(tmp_path / "folder", "X.npy: expected a file")


@pytest.mark.parametrize(
    ("cut", "word"), [(-1, "truncated: expected 368 bytes"), (3, "cannot be read"), (60, "cannot")]
)
def test_a_file_cut_short(tmp_path, cut, word):
    path = four(tmp_path / "cut") / "X_train.npy"
    path.write_bytes(path.read_bytes()[:cut])
    says(tmp_path / "cut", "X_train.npy", word, "np.save")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_corrupt_file_is_read_or_a_data_error(tmp_path, data):
    path = four(tmp_path) / "X_train.npy"
    bad = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bad[: data.draw(st.integers(0, len(bad)))])
    with contextlib.suppress(DataError):  # any other exception fails the test
        load(tmp_path)


def record_of(folder, data, jobs):
    study = fanin.Study.from_dict(
        {"name": "toy", "seeds": 2, "recipe": {"hidden": [8], "epochs": 2, "batch_size": 4}, "arms": [{"name": "one"}]}
    )
    fanin.run([study], out=folder, data=data, device="cpu", jobs=jobs)
    with fanin.Store.open(folder) as store:
        (records,) = store.records(study).values()
    return [[dataclasses.replace(epoch, seconds=0.0) for epoch in r.epochs] + [r.trial_id, *r.signal] for r in records]


@pytest.mark.parametrize("jobs", [0, 1])
def test_the_same_records_as_in_memory(tmp_path, jobs):
    np.savez(tmp_path / "toy.npz", **dict(zip(NAMES, (X / 60, Y, X[:8] / 60, Y[:8]), strict=True)))
    folder = four(tmp_path / "toy", X / np.float32(60))
    mapped = record_of(tmp_path / "mapped", str(folder), jobs)
    assert mapped == record_of(tmp_path / "read", str(tmp_path / "toy.npz"), jobs=0)


# Linux counts what a process may write to in private against RLIMIT_DATA: a peak over the limit is a MemoryError.
LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from fanin.datasets import load, open_shared, save_shared
size = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmData"))) * 1024
limit = size + 60 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
way, folder = sys.argv[1], Path(sys.argv[2])
if way == "fanin":
    data = load(folder)
    save_shared(data, folder / "shared")
    print(data.fingerprint, open_shared(folder / "shared").train.inputs[-1, -1])
else:
    np.load(folder / "x_train.npy")
"""


def limited(way, folder):
    return subprocess.run(
        [sys.executable, "-c", LIMITED, way, str(folder)], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mapped memory on Linux only")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """400 MB in a file with holes, read, checked, fingerprinted and shared in less than 60 MB."""
    put(tmp_path, y_train=np.arange(1000) % 2, x_test=np.ones((2, 100_000), np.float32), y_test=np.arange(2))
    with (tmp_path / "x_train.npy").open("wb") as file:
        head = {"descr": "<f4", "fortran_order": False, "shape": (1000, 100_000)}
        np.lib.format.write_array_header_1_0(file, head)
        os.truncate(file.fileno(), file.tell() + 4 * 1000 * 100_000)
    done = limited("fanin", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "0.0"
    assert "MemoryError" in limited("numpy", tmp_path).stderr  # so the limit does bind


def test_a_file_that_is_replaced_after_it_was_opened(tmp_path):
    data = load(four(tmp_path / "toy"))
    np.save(tmp_path / "new.npy", np.zeros_like(X))
    (tmp_path / "new.npy").replace(tmp_path / "toy" / "X_train.npy")
    with pytest.raises(DataError, match="changed since it was opened"):
        save_shared(data, tmp_path)


def test_a_stray_array_among_folders_of_pictures(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / name / f"{i}.png")
    np.save(tmp_path / "embeddings.npy", np.zeros(3))
    assert load(tmp_path).classes == ("cat", "dog")
