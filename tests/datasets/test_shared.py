"""Copies for worker processes: whole, mapped, and safe from stray writes."""

from __future__ import annotations

import dataclasses
import errno
import json

import numpy as np
import pytest

from fanin.datasets import atomic, load, open_shared, save_shared
from fanin.errors import DataError


def read_fingerprint(folder):
    """Of what lies there: a new data set has no fingerprint yet, while the opened one has the description's."""
    return dataclasses.replace(open_shared(folder)).fingerprint


def test_round_trip_maps_and_protects(tmp_path):
    data = load("digits")
    folder = save_shared(data, tmp_path / "a" / "b")
    back = open_shared(folder)
    assert back.fingerprint == read_fingerprint(folder) == data.fingerprint
    for field in ("name", "classes", "scale", "image_shape", "source"):
        assert getattr(back, field) == getattr(data, field)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert isinstance(back.train.inputs.base, np.memmap)
    assert back.train.inputs.flags.writeable
    back.train.inputs[:] = 99
    back.train.labels[:] = 1
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert read_fingerprint(folder) == data.fingerprint


def test_torch_takes_it_without_a_warning(tmp_path):
    torch = pytest.importorskip("torch")
    back = open_shared(save_shared(load("digits"), tmp_path))
    assert torch.from_numpy(back.train.inputs).shape == (1437, 64)


def test_saving_again_writes_no_array_and_mends_a_damaged_one(tmp_path):
    data = load("digits")
    folder = save_shared(data, tmp_path)
    path = next(folder.glob("*train-inputs.npy"))
    stamp = path.stat().st_mtime_ns
    save_shared(data, tmp_path)
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(path.read_bytes()[:-1] + b"\x77")
    save_shared(data, tmp_path)
    assert read_fingerprint(folder) == data.fingerprint


def test_damage_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json: no such file"):
        open_shared(tmp_path)
    folder = save_shared(load("digits"), tmp_path)
    meta, array = folder / "dataset.json", next(folder.glob("*train-inputs.npy"))
    good, bytes_ = meta.read_text(), array.read_bytes()
    for text, word in [
        ("{", "cannot be read"),
        ("[]", "expected format 2, given list"),
        (good.replace('"format": 2', '"format": 9'), "given 9"),
        (json.dumps({k: v for k, v in json.loads(good).items() if k != "scale"}), "scale"),
        (good.replace('"image_shape": [', '"image_shape": ["x", '), "not as save_shared wrote"),
    ]:
        meta.write_text(text)
        with pytest.raises(DataError, match="save") as caught:
            open_shared(folder)
        assert word in str(caught.value)
    meta.write_text(good)
    for content in (bytes_[:-1], bytes_[:50], b"", b"junk" * 50):
        array.write_bytes(content)
        with pytest.raises(DataError, match="truncated or corrupt"):
            open_shared(folder)
    array.unlink()
    with pytest.raises(DataError, match="no such file"):
        open_shared(folder)


def test_a_failure_midway_leaves_nothing(tmp_path):
    path = tmp_path / "file"

    def half():
        with atomic.writing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_folder_and_space(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(DataError, match=r"disk is full.*free space [\d,]+ MB") as caught:
        save_shared(load("digits"), tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        save_shared(load("digits"), tmp_path / "file" / "below")


def test_the_lock_is_exclusive_and_sweeps_up(tmp_path):
    (tmp_path / ".x.123.part").write_text("left by a killed process")
    with atomic.locked(tmp_path):
        assert not (tmp_path / ".x.123.part").exists()
        with pytest.raises(DataError, match="another process"), atomic.locked(tmp_path, patience=0.1):
            pass
    with atomic.locked(tmp_path, patience=0.1):
        pass
