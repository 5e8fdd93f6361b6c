"""What the driver and a worker say to each other: plain data, pickled by the connection between the two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanin.recipe import Trial
from fanin.record import Record


@dataclass(frozen=True)
class Setup:
    """Said first: where the shared data set lies, and what to compute on."""

    data: Path
    device: str


@dataclass(frozen=True)
class Task:
    """Train these trials; write the parameters of those in `keep` into `weights`."""

    trials: list[Trial]
    ids: list[str]
    path: str
    keep: frozenset[str]
    weights: Path


@dataclass(frozen=True)
class Ready:
    """A worker's first word: what it runs on (see engine.environment), the matmul path it would take among it."""

    environment: dict[str, Any]


@dataclass(frozen=True)
class EpochDone:
    """So many members of the running cohort have finished one more epoch."""

    members: int


@dataclass(frozen=True)
class Finished:
    """The running cohort's records; `unsaved` says why trained parameters could not be written, if so."""

    records: list[Record]
    unsaved: str | None = None


@dataclass(frozen=True)
class Failed:
    """The running cohort raised; `reason` in one line."""

    reason: str


Answer = Ready | EpochDone | Finished | Failed
