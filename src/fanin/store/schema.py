"""The schema of a study folder's file, and how that of an older version becomes this one's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fanin.errors import StoreError

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


def prepare(db: sqlite3.Connection) -> None:
    """Make the schema in a new file, or bring an older one's to this version."""
    with transaction(db):
        if _version(db) == 0:
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        while (version := _version(db)) in _UPGRADES:
            db.execute(_UPGRADES[version])
            db.execute(f"PRAGMA user_version = {version + 1}")


def check(db: sqlite3.Connection, path: Path) -> None:
    """StoreError unless the file at `path` has a schema that can be read."""
    version = _version(db)
    if version == 0:
        raise StoreError(f"{path}: nothing is in it yet; the run that makes it has just begun, or ended at once")
    if version != SCHEMA_VERSION and version not in _UPGRADES:
        raise StoreError(
            f"{path}: written by another version of fanin (schema {version}, this one reads {SCHEMA_VERSION}); "
            f"use that version, or run into a new folder with --out"
        )


def _version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All that is written within, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled back already
            db.execute("ROLLBACK")
        raise
