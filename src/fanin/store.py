"""The store: one SQLite file per study folder, one writer; a trial is in it completely or not at all."""

from __future__ import annotations

import itertools
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from fanin.errors import StoreError
from fanin.recipe import Trial, digest
from fanin.record import Divergence, Epoch, LayerSignal, Record
from fanin.study import Study

FILE = "fanin.sqlite"
LOCK = ".lock"
# File systems whose other machines do not see a write-ahead log's shared memory, by their names in mountinfo.
_NETWORKED = re.compile(
    r"nfs4?|cifs|smb\w+|9p|afs|ceph|lustre|gpfs|beegfs|orangefs|pvfs2|glusterfs|virtiofs"
    r"|fuse\.(glusterfs|sshfs|s3fs|ceph|juicefs)"
)
SCHEMA_VERSION = 2
_UPGRADES = {1: "ALTER TABLE trials ADD COLUMN trainable_depth REAL"}  # from each older version to the next

# Tables are the store's own; the views `results`, `curves` and `signal` are for users and documented in docs/store.md.
_SCHEMA = """
CREATE TABLE studies (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, content TEXT NOT NULL, data TEXT NOT NULL
);
CREATE TABLE environments (id TEXT PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE trials (
    id TEXT PRIMARY KEY, recipe TEXT NOT NULL, seed INTEGER NOT NULL, data_fingerprint TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'diverged', 'failed')),
    error TEXT, diverged_epoch INTEGER, diverged_step INTEGER, diverged_layer INTEGER,
    seconds REAL NOT NULL, environment TEXT REFERENCES environments (id),
    finished_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), trainable_depth REAL
);
CREATE TABLE arm_trials (
    study TEXT NOT NULL REFERENCES studies (name) ON DELETE CASCADE, position INTEGER NOT NULL, arm TEXT NOT NULL,
    seed INTEGER NOT NULL, trial TEXT NOT NULL, PRIMARY KEY (study, arm, seed)
) WITHOUT ROWID;
CREATE TABLE epochs (
    trial TEXT NOT NULL REFERENCES trials (id) ON DELETE CASCADE, epoch INTEGER NOT NULL, seconds REAL NOT NULL,
    train_cost REAL, test_loss REAL, test_accuracy REAL, accuracy_on_raw_pixels REAL, train_loss REAL,
    train_accuracy REAL, PRIMARY KEY (trial, epoch)
) WITHOUT ROWID;
CREATE TABLE layers (
    trial TEXT NOT NULL REFERENCES trials (id) ON DELETE CASCADE, epoch INTEGER NOT NULL, layer INTEGER NOT NULL,
    activation_second_moment REAL, gradient_second_moment REAL, weight_gradient_norm REAL, dead REAL, saturated REAL,
    PRIMARY KEY (trial, epoch, layer)
) WITHOUT ROWID;
CREATE VIEW results AS
    SELECT a.study, a.arm, a.seed, t.status, e.epoch, e.train_cost, e.test_loss, e.test_accuracy AS accuracy,
           e.accuracy_on_raw_pixels, e.train_loss, e.train_accuracy, t.seconds, t.error, t.id AS trial
    FROM arm_trials a JOIN trials t ON t.id = a.trial
    LEFT JOIN epochs e ON e.trial = t.id AND e.epoch = (SELECT max(epoch) FROM epochs WHERE trial = t.id)
    ORDER BY a.study, a.position, a.seed;
CREATE VIEW curves AS
    SELECT a.study, a.arm, a.seed, e.* FROM arm_trials a JOIN epochs e ON e.trial = a.trial
    ORDER BY a.study, a.position, a.seed, e.epoch;
CREATE VIEW signal AS
    SELECT a.study, a.arm, a.seed, l.* FROM arm_trials a JOIN layers l ON l.trial = a.trial
    ORDER BY a.study, a.position, a.seed, l.epoch, l.layer;
"""

# One arm, by seed: along the order in which arm_trials lies, so that nothing need be sorted.
_ARM_TRIALS = (
    "SELECT t.id, t.seed, t.status, t.error, t.seconds, t.environment, {trainable_depth}, t.diverged_epoch,"
    " t.diverged_step, t.diverged_layer FROM arm_trials a CROSS JOIN trials t ON t.id = a.trial"
    " WHERE a.study = ? AND a.arm = ? ORDER BY a.seed"
)
_ARM_EPOCHS = (
    "SELECT a.seed, e.epoch, e.seconds, e.train_cost, e.test_loss, e.test_accuracy, e.accuracy_on_raw_pixels,"
    " e.train_loss, e.train_accuracy FROM arm_trials a CROSS JOIN epochs e ON e.trial = a.trial"
    " WHERE a.study = ? AND a.arm = ? ORDER BY a.seed, e.epoch"
)
_ARM_LAYERS = (
    "SELECT a.seed, l.epoch, l.layer, l.activation_second_moment, l.gradient_second_moment, l.weight_gradient_norm,"
    " l.dead, l.saturated FROM arm_trials a CROSS JOIN layers l ON l.trial = a.trial"
    " WHERE a.study = ? AND a.arm = ? AND l.epoch IN (0, (SELECT max(epoch) FROM layers WHERE trial = a.trial))"
    " ORDER BY a.seed, l.epoch, l.layer"
)


@dataclass(frozen=True)
class StoredStudy:
    """A study as it was run, and what it was run on: `data` holds name, fingerprint, source, sizes and classes."""

    study: Study
    data: dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """One arm's trials in arrays, by seed: a tenth of the memory of records. SQLite's NULL is NaN in them.

    heads: records without epochs and signal, which are the arrays' rows. epochs: seed, and the fields of
    `fanin.record.Epoch`. layers: seed, and the fields of `LayerSignal`, of epoch 0 and of each trial's last one only.
    """

    heads: list[Record]
    epochs: np.ndarray
    layers: np.ndarray


class Store:
    """An open study folder. Use as a context manager; a folder has one writer at a time and any number of readers."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: FileLock | None = None) -> None:
        self.folder = folder
        self.notice: str | None = None  # what a user should know of how the file is kept
        self._db = connection
        self._lock = lock
        self._environments: dict[str | None, dict[str, Any] | None] = {None: None}

    @classmethod
    def create(cls, folder: Path | str) -> Store:
        """Open `folder` for writing, making it if need be; StoreError if it cannot, or another run writes there."""
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{folder}: is a file; expected a folder for the results, new or of an earlier run")
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            store = cls(folder, _connected(folder, writing=True), lock)
            store.notice = _notice(store._db, folder)
        except Timeout:
            raise StoreError(
                f"{folder}: another fanin run is writing here; wait for it, or give another folder with --out"
            ) from None
        except (OSError, NotImplementedError, sqlite3.Error) as error:  # NotImplementedError: no locks there
            lock.release()
            raise StoreError(
                f"{folder}: cannot be written ({error}); give a folder of your own with --out, and check its free space"
            ) from None
        except StoreError:
            lock.release()
            raise
        return store

    @classmethod
    def open(cls, folder: Path | str) -> Store:
        """Open `folder` for reading; StoreError if it is not a study folder."""
        folder = Path(folder)
        if not (folder / FILE).is_file():
            expected = f"expected a folder that `fanin run` wrote (it holds {FILE})"
            raise StoreError(f"{folder}: no results here; {expected}{_others(folder)}")
        try:
            return cls(folder, _connected(folder, writing=False))
        except sqlite3.Error as error:
            raise _unreadable(folder, error) from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and let others write."""
        self._db.close()
        if self._lock is not None:
            self._lock.release()

    # writing

    def put_study(self, study: Study, data: dict[str, Any]) -> None:
        """Enter a study, or replace its definition; its trials stay, and so do seeds that it had more of.

        StoreError if the folder has the study on other data.
        """
        with self._writing():
            row = self._db.execute(
                "SELECT position, content, data FROM studies WHERE name = ?", (study.name,)
            ).fetchone()
            if row is None:
                position = self._db.execute("SELECT count(*) FROM studies").fetchone()[0]
            else:
                position, earlier = row[0], Study.from_dict(json.loads(row[1]))
                _check_same_data(self.folder, study, json.loads(row[2]), data)
                study = study.changed(seeds=max(study.seeds, earlier.seeds))
            self._db.execute("DELETE FROM studies WHERE name = ?", (study.name,))
            self._db.execute(
                "INSERT INTO studies VALUES (?, ?, ?, ?)",
                (study.name, position, json.dumps(study.to_dict()), json.dumps(data)),
            )
            self._db.executemany(
                "INSERT INTO arm_trials VALUES (?, ?, ?, ?, ?)",
                [
                    (study.name, i, arm.name, trial.seed, trial.id(data["fingerprint"]))
                    for i, arm in enumerate(study.arms)
                    for trial in study.trials(arm)
                ],
            )

    def add(self, trial: Trial, data_fingerprint: str, record: Record) -> None:
        """Write one trial's record in one transaction; it replaces an earlier one, but a failure never a result."""
        environment = record.environment and json.dumps(record.environment, sort_keys=True)
        environment_id = environment and digest(environment)
        at = record.divergence
        with self._writing():
            if record.status == "failed" and self._has_result(record.trial_id):
                return
            self._db.execute("DELETE FROM trials WHERE id = ?", (record.trial_id,))
            if environment:
                self._db.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (environment_id, environment))
            self._db.execute(
                "INSERT INTO trials (id, recipe, seed, data_fingerprint, status, error, diverged_epoch, diverged_step,"
                " diverged_layer, seconds, environment, trainable_depth) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.trial_id,
                    json.dumps(trial.recipe.to_dict()),
                    record.seed,
                    data_fingerprint,
                    record.status,
                    record.error,
                    *((at.epoch, at.step, at.layer) if at else (None, None, None)),
                    record.seconds,
                    environment_id,
                    record.trainable_depth,
                ),
            )
            self._insert("epochs", record.trial_id, record.epochs)
            self._insert("layers", record.trial_id, record.signal)

    def _insert(self, table: str, trial_id: str, rows: Iterable[Epoch | LayerSignal]) -> None:
        values = [(trial_id, *vars(row).values()) for row in rows]  # astuple takes ten times as long
        if values:
            marks = ", ".join("?" * len(values[0]))
            self._db.executemany(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608 - a constant name

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with _transaction(self._db):
                yield
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.folder / FILE}: cannot be written ({error}); what was written before is kept, "
                f"and the same command goes on from there"
            ) from None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _unreadable(self.folder, error) from None

    # reading

    def finished(self, trial_ids: Iterable[str]) -> set[str]:
        """Those of `trial_ids` that have a result (done or diverged; a failed trial is tried again)."""
        with self._reading():
            rows = self._db.execute("SELECT id FROM trials WHERE status IN ('done', 'diverged')")
            return {row[0] for row in rows} & set(trial_ids)

    def _has_result(self, trial_id: str) -> bool:
        query = "SELECT 1 FROM trials WHERE id = ? AND status IN ('done', 'diverged')"
        return self._db.execute(query, (trial_id,)).fetchone() is not None

    def environments(self) -> list[dict[str, Any]]:
        """What the stored trials ran on, the first first."""
        with self._reading():
            rows = self._db.execute("SELECT content FROM environments ORDER BY rowid").fetchall()
        return [json.loads(content) for (content,) in rows]

    def studies(self) -> list[StoredStudy]:
        """All studies in the order in which they were entered."""
        with self._reading():
            rows = self._db.execute("SELECT content, data FROM studies ORDER BY position").fetchall()
        return [StoredStudy(Study.from_dict(json.loads(content)), json.loads(data)) for content, data in rows]

    def statuses(self, study: Study) -> dict[str, str]:
        """The status of every trial of the study that has a record."""
        query = "SELECT t.id, t.status FROM arm_trials a JOIN trials t ON t.id = a.trial WHERE a.study = ?"
        with self._reading():
            return dict(self._db.execute(query, (study.name,)).fetchall())

    def records(self, study: Study) -> dict[str, list[Record]]:
        """The study's records by arm, in the order of seeds; trials without one are absent.

        All at once, 4 kB each of small networks: for thousands of trials take `columns`, arm by arm.
        """
        with self._reading():
            return {arm.name: [self._complete(head) for head in self._heads(study, arm.name)] for arm in study.arms}

    def columns(self, study: Study, arm: str) -> Columns:
        """One arm's trials as arrays, all from one moment, also where a driver is writing."""
        place = (study.name, arm)
        with self._reading(), self._one_moment():
            return Columns(
                heads=self._heads(study, arm),
                epochs=_rows_of(Epoch, self._db.execute(_ARM_EPOCHS, place)),
                layers=_rows_of(LayerSignal, self._db.execute(_ARM_LAYERS, place)),
            )

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """A snapshot for all that is read within. Kept short: beside a journal, it is what a writer waits for."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def _heads(self, study: Study, arm: str) -> list[Record]:
        """The arm's records without epochs and signal."""
        # a folder of an older version that is only read has no such column
        known = self._db.execute("SELECT 1 FROM pragma_table_info('trials') WHERE name = 'trainable_depth'").fetchone()
        query = _ARM_TRIALS.format(trainable_depth="t.trainable_depth" if known else "NULL")
        rows = self._db.execute(query, (study.name, arm)).fetchall()
        environments = self._environments_by_id()  # after the trials: theirs are there before them
        return [
            Record(
                trial_id=trial_id,
                seed=seed,
                status=status,
                divergence=Divergence(*at) if at[0] is not None else None,
                error=error,
                seconds=seconds,
                environment=environments[environment],
                trainable_depth=depth,
            )
            for trial_id, seed, status, error, seconds, environment, depth, *at in rows
        ]

    def _environments_by_id(self) -> dict[str | None, dict[str, Any] | None]:
        """Few, and shared by many records."""
        for i, content in self._db.execute("SELECT id, content FROM environments"):
            if i not in self._environments:
                self._environments[i] = json.loads(content)
        return self._environments

    def _complete(self, head: Record) -> Record:
        return replace(
            head,
            epochs=tuple(Epoch(*values) for values in self._rows("epochs", head.trial_id)),
            signal=tuple(LayerSignal(*values) for values in self._rows("layers", head.trial_id)),
        )

    def _rows(self, table: str, trial_id: str) -> list[tuple[Any, ...]]:
        order = "epoch" if table == "epochs" else "epoch, layer"
        query = f"SELECT * FROM {table} WHERE trial = ? ORDER BY {order}"  # noqa: S608 - constant names
        return [row[1:] for row in self._db.execute(query, (trial_id,))]


def _connected(folder: Path, *, writing: bool) -> sqlite3.Connection:
    """A connection to the folder's file, its schema made or checked; closed again if that fails."""
    path = folder / FILE
    if writing:
        db = sqlite3.connect(path, timeout=30, isolation_level=None)
    else:
        # a finished file in a folder that may not be written has no log to make
        alone = "" if os.access(folder, os.W_OK) or path.with_name(f"{FILE}-wal").exists() else "&immutable=1"
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{alone}", uri=True, timeout=30)
    try:
        if writing:
            _prepare(db, folder)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION and version not in _UPGRADES:
            raise StoreError(
                f"{path}: written by another version of fanin (schema {version}, this one reads {SCHEMA_VERSION}); "
                f"use that version, or run into a new folder with --out"
            )
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, folder: Path) -> None:
    _choose_journal(db, folder)
    db.execute("PRAGMA foreign_keys = ON")
    with _transaction(db):
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        while (version := db.execute("PRAGMA user_version").fetchone()[0]) in _UPGRADES:
            db.execute(_UPGRADES[version])
            db.execute(f"PRAGMA user_version = {version + 1}")


def _choose_journal(db: sqlite3.Connection, folder: Path) -> None:
    """A write-ahead log where it works, with which a power cut loses the latest trials at most; else a journal."""
    if not _NETWORKED.fullmatch(file_system(folder)):
        try:
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError:  # no shared memory or no locks of its kind
            mode = ""
        if mode == "wal":
            db.execute("PRAGMA synchronous = NORMAL")
            return
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA synchronous = FULL")  # a journal that is not synchronised can spoil the file


def _notice(db: sqlite3.Connection, folder: Path) -> str | None:
    if db.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return None
    return (
        f"{folder}: a write-ahead log does not work on this file system ({file_system(folder)}); results are kept with "
        "a journal instead, which is as safe and slower"
    )


def file_system(folder: Path, mounts: str | None = None) -> str:
    """The type of file system that a folder lies on, such as ext4 or nfs4; "unknown" where the system does not say.

    mounts: the content of /proc/self/mountinfo, by default this system's.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8") if mounts is None else mounts
    except OSError:  # not Linux
        return "unknown"
    place, best, found = folder.absolute().resolve(), -1, "unknown"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), before.split()[4]))  # a space is \040
        if place.is_relative_to(point) and len(point.parts) >= best:  # a later mount hides an earlier one
            best, found = len(point.parts), after.split()[0]
    return found


def _rows_of(kind: type, rows: Iterable[tuple[Any, ...]]) -> np.ndarray:
    """Rows of a seed and the fields of a kind, as floats; no list of them is made on the way."""
    flat = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.float64)
    return flat.reshape(-1, 1 + len(fields(kind)))


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled back already
            db.execute("ROLLBACK")
        raise


def _check_same_data(folder: Path, study: Study, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    if earlier["fingerprint"] != now["fingerprint"]:
        raise StoreError(
            f"{folder}: holds {study.name} on other data ({earlier['name']}, {earlier['fingerprint']}; now "
            f"{now['name']}, {now['fingerprint']}); give another folder with --out"
        )


def _others(folder: Path) -> str:
    """Study folders in or beside `folder`, for somebody who meant one of them."""
    found = sorted({path.parent for root in (folder, folder.parent) for path in root.glob(f"*/{FILE}")})
    return f"; there are {', '.join(map(str, found[:10]))}" if found else ""


def _unreadable(folder: Path, error: sqlite3.Error) -> StoreError:
    return StoreError(
        f"{folder / FILE}: cannot be read as a fanin store ({error}); restore it, or run into a new folder"
    )
