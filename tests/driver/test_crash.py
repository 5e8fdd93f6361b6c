"""benchmarks/crash.py in short: drivers and workers are killed, and its checks can fail."""

from __future__ import annotations

import importlib.util
import sqlite3
import sys
from pathlib import Path

import pytest

from fanin.driver import run
from fanin.store import FILE

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "crash.py"

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


@pytest.fixture(scope="module")
def crash():
    spec = importlib.util.spec_from_file_location("crash_benchmark", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.slow
@needs_proc
def test_nothing_is_lost_when_drivers_and_workers_are_killed(crash):
    tally = crash.crash(4, seed=1)
    assert tally.faults == []
    assert tally.kills >= 4


def test_its_checks_can_fail(crash, tmp_path):
    run([crash.STUDY], out=tmp_path, data="digits", jobs=0, seeds=1, keep_weights="none")
    assert len(crash.finished(tmp_path)) == 4
    assert crash.unsound(tmp_path) == ""
    before = crash.content(tmp_path)
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("UPDATE epochs SET seconds = 0")
    db.commit()
    assert crash.content(tmp_path) == before  # seconds may differ, and nothing else
    db.execute("UPDATE epochs SET test_loss = test_loss * (1 + 1e-15) WHERE epoch = 1")
    db.commit()
    assert crash.content(tmp_path) != before
    db.execute("DELETE FROM trials WHERE id = (SELECT min(id) FROM trials)")  # without foreign keys: epochs stay
    db.commit()
    db.close()
    assert len(crash.finished(tmp_path)) == 3
    assert "trials" in crash.unsound(tmp_path)
