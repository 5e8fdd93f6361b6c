"""The store of a study folder: one writer, many readers; a trial is in it completely or not at all."""

from __future__ import annotations

import itertools
import json
import os
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
from fanin.store.files import FILE, LOCK, connected, identity, notice_of, others, unreadable
from fanin.store.schema import transaction
from fanin.study import Study

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
        self._file = identity(folder / FILE)
        self._environments: dict[str | None, dict[str, Any] | None] = {None: None}

    @classmethod
    def create(cls, folder: Path | str) -> Store:
        """Open `folder` for writing, making it if need be; StoreError if it cannot, or another run writes there."""
        folder = Path(folder)
        if os.path.exists(folder) and not folder.is_dir():
            raise StoreError(f"{folder}: is a file; expected a folder for the results, new or of an earlier run")
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            store = cls(folder, connected(folder, writing=True), lock)
            store.notice = notice_of(store._db, folder)
        except Timeout:
            raise StoreError(
                f"{folder}: another fanin run is writing here; wait for it, or give another folder with --out"
            ) from None
        except (OSError, ValueError, NotImplementedError, sqlite3.Error) as error:
            # ValueError: no name for a folder; NotImplementedError: no locks there
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
        if not os.path.isfile(folder / FILE):
            expected = f"expected a folder that `fanin run` wrote (it holds {FILE})"
            raise StoreError(f"{folder}: no results here; {expected}{others(folder)}")
        try:
            return cls(folder, connected(folder, writing=False))
        except sqlite3.Error as error:
            raise unreadable(folder, error) from None

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
            with transaction(self._db):
                yield
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.folder / FILE}: cannot be written ({error}); what was written before is kept, "
                f"and the same command goes on from there"
            ) from None
        if identity(self.folder / FILE) != self._file:  # SQLite goes on writing to what nobody will find
            raise StoreError(
                f"{self.folder / FILE}: was removed or moved away while this run wrote to it; where it was moved to, "
                "all results are in it: move the folder back, or give its new place with --out, and go on"
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise unreadable(self.folder, error) from None

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


def _rows_of(kind: type, rows: Iterable[tuple[Any, ...]]) -> np.ndarray:
    """Rows of a seed and the fields of a kind, as floats; no list of them is made on the way."""
    flat = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.float64)
    return flat.reshape(-1, 1 + len(fields(kind)))


def _check_same_data(folder: Path, study: Study, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    if earlier["fingerprint"] != now["fingerprint"]:
        raise StoreError(
            f"{folder}: holds {study.name} on other data ({earlier['name']}, {earlier['fingerprint']}; now "
            f"{now['name']}, {now['fingerprint']}); give another folder with --out"
        )
