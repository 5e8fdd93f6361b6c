"""The store: one SQLite file per study folder, one writer; a trial is in it completely or not at all."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanin.errors import StoreError
from fanin.recipe import Recipe, Trial, digest
from fanin.record import Divergence, Epoch, LayerSignal, Record
from fanin.study import Study

FILE = "fanin.sqlite"
SCHEMA_VERSION = 1

# Tables are the store's own; the views `results`, `curves` and `signal` are for users and documented in docs/store.md.
_SCHEMA = """
CREATE TABLE studies (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, content TEXT NOT NULL, data TEXT NOT NULL
) STRICT;
CREATE TABLE environments (id TEXT PRIMARY KEY, content TEXT NOT NULL) STRICT;
CREATE TABLE trials (
    id TEXT PRIMARY KEY, recipe TEXT NOT NULL, seed INTEGER NOT NULL, data_fingerprint TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'diverged', 'failed')),
    error TEXT, diverged_epoch INTEGER, diverged_step INTEGER, diverged_layer INTEGER,
    seconds REAL NOT NULL, environment TEXT REFERENCES environments (id),
    finished_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;
CREATE TABLE arm_trials (
    study TEXT NOT NULL REFERENCES studies (name) ON DELETE CASCADE, position INTEGER NOT NULL, arm TEXT NOT NULL,
    seed INTEGER NOT NULL, trial TEXT NOT NULL, PRIMARY KEY (study, arm, seed)
) STRICT, WITHOUT ROWID;
CREATE TABLE epochs (
    trial TEXT NOT NULL REFERENCES trials (id) ON DELETE CASCADE, epoch INTEGER NOT NULL, seconds REAL NOT NULL,
    train_cost REAL, test_loss REAL, test_accuracy REAL, accuracy_on_raw_pixels REAL, train_loss REAL,
    train_accuracy REAL, PRIMARY KEY (trial, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE layers (
    trial TEXT NOT NULL REFERENCES trials (id) ON DELETE CASCADE, epoch INTEGER NOT NULL, layer INTEGER NOT NULL,
    activation_second_moment REAL, gradient_second_moment REAL, weight_gradient_norm REAL, dead REAL, saturated REAL,
    PRIMARY KEY (trial, epoch, layer)
) STRICT, WITHOUT ROWID;
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


@dataclass(frozen=True)
class StoredStudy:
    """A study as it was run, and what it was run on: `data` holds name, fingerprint, source, sizes and classes."""

    study: Study
    data: dict[str, Any]


class Store:
    """An open study folder. Use as a context manager; the driver is its only writer."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._db = connection

    @classmethod
    def create(cls, folder: Path) -> Store:
        """Open `folder` for writing, making it if need be; StoreError if it cannot be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(folder / FILE, timeout=30, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            with _transaction(db):
                if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                    for statement in _SCHEMA.split(";\n"):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{folder}: cannot be written ({error}); give a folder of your own with --out, and check its free space"
            ) from None
        return cls(folder, _checked(folder, db))

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open `folder` for reading; StoreError if it is not a study folder."""
        path = folder / FILE
        if not path.is_file():
            raise StoreError(f"{folder}: no results here; expected a folder that `fanin run` wrote (it holds {FILE})")
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
            return cls(folder, _checked(folder, db))
        except sqlite3.Error as error:
            raise StoreError(f"{path}: cannot be read as a fanin store ({error})") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # writing

    def put_study(self, study: Study, data: dict[str, Any]) -> None:
        """Enter a study, or replace its definition; trials that are already there stay."""
        content = json.dumps(study.to_dict())
        with self._writing():
            position = self._db.execute(
                "SELECT coalesce((SELECT position FROM studies WHERE name = ?), (SELECT count(*) FROM studies))",
                (study.name,),
            ).fetchone()[0]
            self._db.execute("DELETE FROM studies WHERE name = ?", (study.name,))
            self._db.execute(
                "INSERT INTO studies VALUES (?, ?, ?, ?)", (study.name, position, content, json.dumps(data))
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
        """Write one trial's record, in one transaction; an earlier record of the same trial is replaced."""
        environment = record.environment and json.dumps(record.environment, sort_keys=True)
        environment_id = environment and digest(environment)
        at = record.divergence
        with self._writing():
            self._db.execute("DELETE FROM trials WHERE id = ?", (record.trial_id,))
            if environment:
                self._db.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (environment_id, environment))
            self._db.execute(
                "INSERT INTO trials (id, recipe, seed, data_fingerprint, status, error, diverged_epoch, diverged_step,"
                " diverged_layer, seconds, environment) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                ),
            )
            self._insert("epochs", record.trial_id, record.epochs)
            self._insert("layers", record.trial_id, record.signal)

    def _insert(self, table: str, trial_id: str, rows: Iterable[Epoch | LayerSignal]) -> None:
        values = [(trial_id, *dataclasses.astuple(row)) for row in rows]
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
                f"{self.folder / FILE}: cannot be written ({error}); what was written before is kept"
            ) from None

    # reading

    def finished(self, trial_ids: Iterable[str]) -> set[str]:
        """Those of `trial_ids` that have a result (done or diverged; a failed trial is tried again)."""
        rows = self._db.execute("SELECT id FROM trials WHERE status IN ('done', 'diverged')")
        return {row[0] for row in rows} & set(trial_ids)

    def studies(self) -> list[StoredStudy]:
        """All studies in the order in which they were entered."""
        rows = self._db.execute("SELECT content, data FROM studies ORDER BY position")
        return [StoredStudy(Study.from_dict(json.loads(content)), json.loads(data)) for content, data in rows]

    def records(self, study: Study) -> dict[str, list[Record]]:
        """The study's records by arm, in the order of seeds; trials without one are absent."""
        found: dict[str, list[Record]] = {arm.name: [] for arm in study.arms}
        rows = self._db.execute(
            "SELECT a.arm, t.id, t.seed, t.status, t.error, t.diverged_epoch, t.diverged_step, t.diverged_layer,"
            " t.seconds, e.content FROM arm_trials a JOIN trials t ON t.id = a.trial"
            " LEFT JOIN environments e ON e.id = t.environment WHERE a.study = ? ORDER BY a.position, a.seed",
            (study.name,),
        ).fetchall()
        for arm, trial_id, seed, status, error, epoch, step, layer, seconds, environment in rows:
            found[arm].append(
                Record(
                    trial_id=trial_id,
                    seed=seed,
                    status=status,
                    epochs=tuple(Epoch(*row) for row in self._rows("epochs", trial_id)),
                    signal=tuple(LayerSignal(*row) for row in self._rows("layers", trial_id)),
                    divergence=None if epoch is None else Divergence(epoch, step, layer),
                    error=error,
                    seconds=seconds,
                    environment=environment and json.loads(environment),
                )
            )
        return found

    def _rows(self, table: str, trial_id: str) -> list[tuple[Any, ...]]:
        order = "epoch" if table == "epochs" else "epoch, layer"
        query = f"SELECT * FROM {table} WHERE trial = ? ORDER BY {order}"  # noqa: S608 - constant names
        return [row[1:] for row in self._db.execute(query, (trial_id,))]

    def recipe(self, trial_id: str) -> Recipe:
        """The recipe of a stored trial."""
        row = self._db.execute("SELECT recipe FROM trials WHERE id = ?", (trial_id,)).fetchone()
        if row is None:
            raise StoreError(f"{self.folder}: no trial {trial_id}")
        return Recipe.from_dict(json.loads(row[0]))


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _checked(folder: Path, db: sqlite3.Connection) -> sqlite3.Connection:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{folder / FILE}: written by another version of fanin (schema {version}, this one reads "
            f"{SCHEMA_VERSION}); use that version, or run into a new folder with --out"
        )
    return db
