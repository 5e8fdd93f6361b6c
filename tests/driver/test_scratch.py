"""What a killed driver left in the folder for temporary files is cleared away by the next run, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from fanin.datasets import atomic, load
from fanin.driver import run
from fanin.driver.scratch import PREFIX, scratch_folder, sweep
from fanin.errors import DataError
from fanin.study import Study

HOLDER = """
import sys, time
from fanin.driver.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "data.npy").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def age(folder, seconds=3600):
    """As if nothing had been written there for so long."""
    then = time.time() - seconds
    os.utime(folder, (then, then))


@pytest.fixture
def holder(temporary):
    """A driver in a process of its own, and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}
    )
    folder = temporary / process.stdout.readline().strip()
    age(folder)
    yield process, folder
    process.kill()
    process.communicate()


def test_a_killed_drivers_folder_is_cleared_away_and_a_living_ones_is_not(holder):
    process, folder = holder
    sweep()
    assert (folder / "data.npy").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / "data.npy").exists()  # the system clears nothing
    sweep()
    assert not folder.exists()


def test_a_run_sweeps_and_leaves_nothing(holder):
    process, folder = holder
    process.kill()
    process.wait()
    study = Study.from_dict({"name": "s", "seeds": 1, "recipe": {"hidden": [4], "epochs": 1}})
    assert run([study], out=folder.parent / "out", data=load("digits"), jobs=1).ran == 1
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_only_what_drivers_made_is_cleared_away(temporary):
    for name in ("fanin-own-data", f"{PREFIX}without-a-lock", "driver.lock"):
        (temporary / name).mkdir()
        (temporary / name / "kept").touch()
    (temporary / f"{PREFIX}file").touch()
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "driver.lock").touch()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    young = temporary / f"{PREFIX}young"
    young.mkdir()
    (young / "driver.lock").touch()
    for path in temporary.iterdir():
        if path not in (young, temporary / f"{PREFIX}link"):
            age(path)
    before = sorted(temporary.rglob("*"))
    sweep()
    assert sorted(temporary.rglob("*")) == before
    age(young)
    sweep()
    assert not young.exists()
    assert sorted(temporary.rglob("*")) == [path for path in before if young not in (path, path.parent)]


def test_a_temporary_folder_that_cannot_be_made_is_told(temporary, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "nowhere"))
    with pytest.raises(DataError, match=r"no temporary folder .*No such file.*TMPDIR.*--jobs 0"), scratch_folder():
        raise AssertionError("there is no such folder")


def test_files_have_the_rights_that_the_umask_leaves(temporary):
    """Kept weights and check-points as all else in a study folder: not for others where it is not."""
    for mask in (0o077, 0o002):
        before = os.umask(mask)
        try:
            atomic.write(temporary / "file", b"content")
        finally:
            os.umask(before)
        assert (temporary / "file").stat().st_mode & 0o777 == 0o666 & ~mask
    assert [path.name for path in temporary.iterdir()] == ["file"]


def test_what_numpy_could_not_write_in_full_is_a_full_disk(temporary):
    """Its error has no number."""
    with (
        pytest.raises(DataError, match=r"the disk is full \(9 requested and 3 written; free space"),
        atomic.writing(temporary / "x"),
    ):
        raise OSError("9 requested and 3 written")
    assert list(temporary.iterdir()) == []


def test_a_folder_below_a_file_is_an_error_in_words(temporary):
    (temporary / "file").touch()
    for name in ("file/below", "x" * 300):
        with pytest.raises(DataError, match="cannot be written"):
            atomic.write(temporary / name, b"")


def test_the_folder_is_gone_after_an_error_too(temporary):
    def fail():
        with scratch_folder() as folder:
            age(folder)
            sweep()  # of another run in this process: a lock is held here as well
            assert folder.parent == temporary
            assert folder.exists()
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    assert list(temporary.iterdir()) == []
