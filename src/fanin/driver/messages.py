"""What the driver and a worker say to each other: plain data, pickled by the connection between the two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    """A worker's first word; `path` is the matmul path it would take."""

    path: str


@dataclass(frozen=True)
class EpochDone:
    """So many members of the running cohort have finished this epoch."""

    epoch: int
    members: int


@dataclass(frozen=True)
class Finished:
    """The running cohort's records."""

    records: list[Record]


@dataclass(frozen=True)
class Failed:
    """The running cohort raised; `reason` in one line."""

    reason: str
    kind: Literal["error"] = "error"


Answer = Ready | EpochDone | Finished | Failed
