"""Store: what goes in comes out; whole trials or none; folders that are no store."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fanin.errors import StoreError
from fanin.record import Divergence, Epoch, LayerSignal, Record
from fanin.store import FILE, Store, file_system
from fanin.study import Study

STUDY = Study.from_dict({"name": "s", "seeds": 2, "arms": [{"name": "b"}, {"name": "a", "init": "zeros"}]})
DATA = {"name": "digits", "fingerprint": "f"}


def record(trial, status="done", **changes):
    values = {
        "trial_id": trial.id("f"),
        "seed": trial.seed,
        "status": status,
        "epochs": (Epoch(1, 0.5, 2.0, 1.5, 0.5, 0.4), Epoch(2, 0.5, 1.0, 0.5, 0.75, 0.6, 0.4, 0.8)),
        "signal": (LayerSignal(0, 1, 1.0, 0.1, 0.2, 0.0, None), LayerSignal(0, 2, 2.0, 0.2, 0.3, None, None)),
        "seconds": 1.5,
        "environment": {"torch": "x", "stack": 2},
    }
    return Record(**values | changes)


def fill(store):
    store.put_study(STUDY, DATA)
    trials = [trial for arm in STUDY.arms for trial in STUDY.trials(arm)]
    records = [
        record(trials[0]),
        record(trials[1], "diverged", divergence=Divergence(2, 7, None), epochs=()),
        record(trials[2], "failed", error="killed", epochs=(), signal=(), environment=None),
    ]
    for trial, each in zip(trials, records, strict=False):
        store.add(trial, "f", each)
    return trials, records


def test_round_trip(tmp_path):
    with Store.create(tmp_path / "new" / "folder") as store:
        trials, records = fill(store)
    with Store.open(tmp_path / "new" / "folder") as store:
        (stored,) = store.studies()
        assert stored.study == STUDY
        assert stored.data == DATA
        assert store.records(STUDY) == {"b": records[:2], "a": [records[2]]}
        assert store.finished(t.id("f") for t in trials) == {r.trial_id for r in records[:2]}
        assert store.environments() == [{"torch": "x", "stack": 2}]


def test_columns_are_the_records_numbers(tmp_path):
    with Store.create(tmp_path) as store:
        trials, _ = fill(store)
        late = tuple(LayerSignal(e, n, e + n / 10, math.inf, 0.1, None, 0.5) for e in (0, 1, 2) for n in (1, 2))
        store.add(trials[3], "f", record(trials[3], signal=late))
    with Store.open(tmp_path) as store:
        for arm, records in store.records(STUDY).items():
            found = store.columns(STUDY, arm)
            assert found.heads == [dataclasses.replace(r, epochs=(), signal=()) for r in records]
            epochs = [(r.seed, *vars(e).values()) for r in records for e in r.epochs]
            last = {r.seed: max((s.epoch for s in r.signal), default=0) for r in records}
            shown = [(r.seed, s) for r in records for s in r.signal if s.epoch in (0, last[r.seed])]
            layers = [(seed, *vars(s).values()) for seed, s in shown]
            for array, rows, width in ((found.epochs, epochs, 9), (found.layers, layers, 8)):
                wanted = np.array(rows, dtype=float).reshape(-1, width)  # None is NaN
                assert np.array_equal(array, wanted, equal_nan=True)
        assert len(layers) == 4  # epochs 0 and 2 of the last trial, in two layers
        assert np.isinf(found.layers).sum() == 4
        empty = store.columns(STUDY, "none of that name")
        assert (empty.heads, empty.epochs.shape, empty.layers.shape) == ([], (0, 9), (0, 8))


def test_values_that_are_not_finite_survive(tmp_path):
    trial = STUDY.trials(STUDY.arms[0])[0]
    infinite = record(trial, epochs=(Epoch(1, 0.1, float("inf"), 1e300, 0.1, 0.1),))
    with Store.create(tmp_path) as store:
        store.put_study(STUDY, DATA)
        store.add(trial, "f", infinite)
        assert store.records(STUDY)["b"][0].epochs == infinite.epochs


def test_a_second_record_replaces_the_first(tmp_path):
    with Store.create(tmp_path) as store:
        trials, _ = fill(store)
        store.add(trials[2], "f", record(trials[2]))
        assert store.records(STUDY)["a"] == [record(trials[2])]


def test_a_study_is_replaced_and_its_trials_stay(tmp_path):
    more = Study.from_dict({"name": "s", "seeds": 3, "arms": [{"name": "b"}]})
    with Store.create(tmp_path) as store:
        _, records = fill(store)
        store.put_study(more, DATA)
        assert store.records(more) == {"b": records[:2]}
        assert [s.study.seeds for s in store.studies()] == [3]


def test_a_failure_never_replaces_a_result(tmp_path):
    with Store.create(tmp_path) as store:
        trials, records = fill(store)
        store.add(trials[0], "f", record(trials[0], "failed", error="killed"))
        assert store.records(STUDY)["b"] == records[:2]


def test_fewer_seeds_hide_nothing(tmp_path):
    fewer = Study.from_dict({"name": "s", "seeds": 1, "arms": [{"name": "b"}, {"name": "a", "init": "zeros"}]})
    with Store.create(tmp_path) as store:
        _, records = fill(store)
        store.put_study(fewer, DATA)
        assert store.records(STUDY)["b"] == records[:2]


def test_one_study_on_two_data_sets_needs_two_folders(tmp_path):
    with Store.create(tmp_path) as store:
        fill(store)
        with pytest.raises(StoreError, match=r"holds s on other data \(digits, f; now mnist, g\).*--out"):
            store.put_study(STUDY, {"name": "mnist", "fingerprint": "g"})
        assert store.studies()[0].data == DATA


def test_a_folder_has_one_writer(tmp_path):
    with Store.create(tmp_path) as first:
        with pytest.raises(StoreError, match="another fanin run is writing here"):
            Store.create(tmp_path)
        first.put_study(STUDY, DATA)
    Store.create(tmp_path).close()


def test_a_full_disk_is_named_and_what_was_written_is_kept(tmp_path):
    with Store.create(tmp_path) as store:
        trials, records = fill(store)
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        many = tuple(Epoch(i, 0.1, 1.0, 1.0, 0.5, 0.5) for i in range(1, 2000))
        with pytest.raises(StoreError, match="full"):
            store.add(trials[3], "f", record(trials[3], epochs=many))
        assert store.records(STUDY) == {"b": records[:2], "a": [records[2]]}
        store._db.execute("PRAGMA max_page_count = 100000")
        store.add(trials[3], "f", record(trials[3], epochs=many))
        assert store.finished([trials[3].id("f")])


def test_a_damaged_file_is_an_error_in_words(tmp_path):
    with Store.create(tmp_path) as store:
        fill(store)
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    content[4096:] = b"x" * len(content[4096:])  # the first page, with the version, is whole
    path.write_bytes(content)
    with Store.open(tmp_path) as store, pytest.raises(StoreError, match="cannot be read as a fanin store"):
        store.studies()


def test_a_folder_given_as_text(tmp_path):
    with Store.create(str(tmp_path / "x")) as store:
        fill(store)
    with Store.open(str(tmp_path / "x")) as store:
        assert len(store.studies()) == 1


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with Store.create(tmp_path) as store:
        store.put_study(STUDY, DATA)
        trial = STUDY.trials(STUDY.arms[0])[0]
        twice = Epoch(1, 0.1, 1.0, 1.0, 0.5, 0.5)
        with pytest.raises(StoreError, match="cannot be written"):
            store.add(trial, "f", record(trial, epochs=(twice, twice)))  # the second row breaks the primary key
        assert store.records(STUDY) == {"b": [], "a": []}
        assert store.finished([trial.id("f")]) == set()


def test_views_for_users(tmp_path):
    with Store.create(tmp_path) as store:
        fill(store)
    db = sqlite3.connect(tmp_path / FILE)
    rows = db.execute("SELECT study, arm, seed, status, epoch, accuracy FROM results").fetchall()
    assert rows == [
        ("s", "b", 0, "done", 2, 0.75),
        ("s", "b", 1, "diverged", None, None),
        ("s", "a", 0, "failed", None, None),
    ]
    assert db.execute("SELECT count(*), max(test_accuracy) FROM curves").fetchone() == (2, 0.75)
    assert db.execute("SELECT arm, layer, dead FROM signal WHERE seed = 0").fetchall() == [
        ("b", 1, 0.0),
        ("b", 2, None),
    ]
    db.close()


def test_the_file_is_sound_and_in_wal_mode(tmp_path):
    with Store.create(tmp_path) as store:
        fill(store)
        db = sqlite3.connect(tmp_path / FILE)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.close()


def test_reading_while_the_driver_writes(tmp_path):
    with Store.create(tmp_path) as writer:
        writer.put_study(STUDY, DATA)
        with Store.open(tmp_path) as reader:
            assert reader.records(STUDY) == {"b": [], "a": []}
            trial = STUDY.trials(STUDY.arms[0])[0]
            writer.add(trial, "f", record(trial))
            assert len(reader.records(STUDY)["b"]) == 1


def test_folders_that_are_no_store(tmp_path):
    with pytest.raises(StoreError, match="no results here"):
        Store.open(tmp_path)
    (tmp_path / FILE).write_bytes(b"not a database, but long enough to be looked at" * 40)
    with pytest.raises(StoreError, match=r"cannot be read as a fanin store \(file is not a database\); restore it"):
        Store.open(tmp_path)
    with pytest.raises(StoreError, match=r"cannot be written \(file is not a database\); give a folder of your own"):
        Store.create(tmp_path)
    with pytest.raises(StoreError, match="give a folder of your own"):
        Store.create(tmp_path / FILE / "below-a-file")
    with pytest.raises(StoreError, match="is a file; expected a folder"):
        Store.create(tmp_path / FILE)


def test_a_wrong_folder_names_those_that_are_there(tmp_path):
    Store.create(tmp_path / "runs" / "nn-digits").close()
    for given in (tmp_path / "runs", tmp_path / "runs" / "nn-mnist"):
        with pytest.raises(StoreError, match=r"there are .*nn-digits"):
            Store.open(given)


@pytest.mark.parametrize("lose", ["remove", "move", "replace"])
def test_a_folder_that_vanishes_is_told(tmp_path, lose):
    """SQLite itself would go on writing into what has no name any more."""
    out, moved = tmp_path / "out", tmp_path / "moved"
    with Store.create(out) as store:
        trials, _ = fill(store)
        shutil.rmtree(out) if lose == "remove" else out.rename(moved)
        if lose == "replace":
            Store.create(out).close()
        with pytest.raises(StoreError, match="was removed or moved away"):
            store.add(trials[3], "f", record(trials[3]))
    if lose != "remove":
        with Store.open(moved) as store:
            assert store.records(STUDY)["a"][1] == record(trials[3])


@pytest.mark.parametrize("name", ["a b'c\"?#%41é", "file:x?mode=memory", ":memory:", "o\udcff", "-x;y\n"])
def test_folders_of_any_name(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.create(name) as store:
        _, records = fill(store)
    with Store.open(name) as store:
        assert store.records(STUDY) == {"b": records[:2], "a": [records[2]]}
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("name", "why"), [("x" * 300, "too long"), ("nul\0", "null byte")])
def test_names_that_no_folder_can_have(tmp_path, name, why):
    with pytest.raises(StoreError, match=f"cannot be written .*{why}"):
        Store.create(tmp_path / name)
    with pytest.raises(StoreError, match="no results here"):
        Store.open(tmp_path / name)


def test_a_log_where_nothing_may_be_written_is_told(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise sqlite3.OperationalError("unable to open database file")

    with Store.create(tmp_path) as store:
        fill(store)
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        monkeypatch.setattr(sqlite3, "connect", refused)
        with pytest.raises(StoreError, match=r"killed and left a log .*copy the folder"):
            Store.open(tmp_path)
    with pytest.raises(StoreError, match="restore it"):  # closed: the log has been taken in
        Store.open(tmp_path)


def test_a_file_with_nothing_in_it_yet(tmp_path):
    sqlite3.connect(tmp_path / FILE).execute("PRAGMA journal_mode = WAL").connection.close()
    with pytest.raises(StoreError, match="nothing is in it yet"):
        Store.open(tmp_path)
    Store.create(tmp_path).close()
    Store.open(tmp_path).close()


def test_another_schema_version_is_refused(tmp_path):
    Store.create(tmp_path).close()
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    for opened in (Store.open, Store.create):
        with pytest.raises(StoreError, match="schema 99"):
            opened(tmp_path)


def test_a_folder_of_the_first_version_is_read_and_upgraded(tmp_path):
    study = Study.from_dict({"name": "s", "seeds": 1})
    (trial,) = study.trials(study.arms[0])
    data = {"name": "d", "fingerprint": "f"}
    with Store.create(tmp_path) as store:
        store.put_study(study, data)
        store.add(trial, "f", Record(trial.id("f"), 0, "done", trainable_depth=math.inf))
        assert store.records(study)["default"][0].trainable_depth == math.inf
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("ALTER TABLE trials DROP COLUMN trainable_depth")  # the first version had all but this
    db.execute("PRAGMA user_version = 1")
    db.close()
    with Store.open(tmp_path) as store:
        assert store.records(study)["default"][0].trainable_depth is None
        assert store.columns(study, "default").heads[0].trainable_depth is None
    with Store.create(tmp_path) as store:
        store.add(trial, "f", Record(trial.id("f"), 0, "done", trainable_depth=3.5))
    with Store.open(tmp_path) as store:
        assert store.records(study)["default"][0].trainable_depth == 3.5


def many(store, count, seconds=0.0):
    """`count` trials of one study, one transaction each, in order."""
    study = Study.from_dict({"name": "many", "seeds": count})
    store.put_study(study, DATA)
    for trial in study.trials(study.arms[0]):
        store.add(trial, "f", record(trial, seconds=seconds + trial.seed))
    return study


def cut_at(folder, copy, length):
    """A copy of a folder as a power cut would leave it: the log ends after `length` bytes, its index is lost."""
    copy.mkdir()
    (copy / FILE).write_bytes((folder / FILE).read_bytes())
    (copy / f"{FILE}-wal").write_bytes((folder / f"{FILE}-wal").read_bytes()[:length])


def test_a_power_cut_loses_the_latest_trials_at_most(tmp_path):
    generator = random.Random(0)
    with Store.create(tmp_path / "whole") as store:
        study = many(store, 30)
        size = (tmp_path / "whole" / f"{FILE}-wal").stat().st_size
        left = []
        for i, length in enumerate([size, *sorted((generator.randrange(size) for _ in range(60)), reverse=True)]):
            copy = tmp_path / str(i)
            cut_at(tmp_path / "whole", copy, length)
            with Store.create(copy) as cut:
                assert cut._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert cut._db.execute("PRAGMA foreign_key_check").fetchall() == []
                seeds = [r.seed for r in cut.records(study)["default"]]
                assert seeds == list(range(len(seeds)))  # what is missing was written last
                assert all(r.epochs and r.signal for r in cut.records(study)["default"])  # and none is there in part
                left.append(len(seeds))
    assert left[0] == 30
    assert left == sorted(left, reverse=True)
    assert len(set(left)) > 10  # the cuts went through the trials


def test_a_torn_page_of_the_log_ends_it_there(tmp_path):
    with Store.create(tmp_path / "whole") as store:
        study = many(store, 10)
        cut_at(tmp_path / "whole", tmp_path / "torn", None)
    log = tmp_path / "torn" / f"{FILE}-wal"
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0xFF
    log.write_bytes(content)
    with Store.create(tmp_path / "torn") as torn:
        seeds = [r.seed for r in torn.records(study)["default"]]
        assert torn._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert seeds == list(range(len(seeds)))
    assert len(seeds) < 10


MOUNTS = """\
22 1 0:21 / / rw - ext4 /dev/vda rw
23 22 0:22 / /home rw,relatime shared:7 - nfs4 server:/home rw
24 22 0:23 / /home/my\\040data rw - xfs /dev/sdb rw
25 22 0:24 / /scratch rw master:1 - lustre mds:/scratch rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/home/me/runs", "nfs4"), ("/homes", "ext4"), ("/home/my data/x", "xfs"), ("/scratch", "lustre"), ("/", "ext4")],
)
def test_the_file_system_of_a_folder(folder, kind):
    assert file_system(Path(folder), MOUNTS) == kind
    assert file_system(Path(folder), "") == "unknown"


def test_a_mount_whose_name_is_no_text(monkeypatch):
    table = b"22 1 0:21 / / rw - ext4 /dev/vda rw\n23 22 0:22 / /m\xff rw - xfs /dev/vdb rw\n"
    monkeypatch.setattr(Path, "read_text", lambda _, *how, **more: table.decode(*how, **more))
    assert file_system(Path("/home")) == "ext4"
    assert file_system(Path("/m\udcff/x")) == "xfs"


def test_a_networked_file_system_gets_a_journal_and_a_notice(tmp_path, monkeypatch):
    with Store.create(tmp_path) as store:
        assert store.notice is None
        fill(store)
    monkeypatch.setattr("fanin.store.files.file_system", lambda _: "nfs4")
    with Store.create(tmp_path) as store:  # a folder that had a log is turned over
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert "write-ahead log does not work on this file system (nfs4)" in store.notice
        study = many(store, 3)
        with Store.open(tmp_path) as reader:
            assert len(reader.records(study)["default"]) == 3
            assert len(reader.studies()) == 2
    assert not (tmp_path / f"{FILE}-wal").exists()


def test_a_log_that_sqlite_refuses_is_replaced_by_a_journal(tmp_path, monkeypatch):
    class Refusing(sqlite3.Connection):
        def execute(self, sql, *rest):
            if sql == "PRAGMA journal_mode = WAL":
                raise sqlite3.OperationalError("locking protocol")
            return super().execute(sql, *rest)

    connect = sqlite3.connect
    monkeypatch.setattr("fanin.store.files.sqlite3.connect", lambda *a, **k: connect(*a, **k, factory=Refusing))
    with Store.create(tmp_path) as store:
        assert "journal instead" in store.notice
        fill(store)
        assert len(store.studies()) == 1


def test_a_file_system_without_locks_is_refused_in_words(tmp_path, monkeypatch):
    def none(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", none)
    with pytest.raises(StoreError, match="does not appear to support flock"):
        Store.create(tmp_path)


def test_a_writer_that_was_killed_leaves_no_lock(tmp_path):
    code = f"import os; from fanin.store import Store; Store.create({str(tmp_path)!r}); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with Store.create(tmp_path) as store:
        fill(store)


@pytest.fixture
def folder_of_another():
    """A folder in which this process may read and not write: for root, nobody's point of view is taken."""
    folder = Path(tempfile.mkdtemp())  # tmp_path's parents are closed to others
    with Store.create(folder) as store:
        fill(store)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no permissions of that kind")
def test_a_read_only_folder_is_read_and_not_written(folder_of_another):
    with Store.open(folder_of_another) as store:
        assert len(store.records(STUDY)) == len(STUDY.arms)
    with pytest.raises(StoreError, match=r"cannot be written \(.*[Pp]ermission denied.*give a folder of your own"):
        Store.create(folder_of_another)
