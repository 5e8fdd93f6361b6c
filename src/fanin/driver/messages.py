"""What the driver and a worker say to each other: plain data, carried by a pipe, by Ray or by Dask."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fanin.recipe import Trial
from fanin.record import Record


@dataclass(frozen=True)
class Setup:
    """Said first to a worker process: where the shared data set lies, and what to compute on."""

    data: Path
    device: str


@dataclass(frozen=True)
class Place:
    """Where a run's check-points are: in `folder`, for those who find `token` in it (see driver.checkpoints).

    seconds: of work that a stack may do without one.
    """

    folder: Path
    token: str
    seconds: float


@dataclass(frozen=True)
class Task:
    """Train these trials by the matmul path `path`; send back the parameters of those in `keep`.

    checkpoints: where stacks that train for long leave their state, and find it; None for nowhere. folder: where
    networks of the user's own are looked for first, if the trials have one.
    """

    trials: list[Trial]
    ids: list[str]
    path: str
    keep: frozenset[str]
    checkpoints: Place | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Ready:
    """A worker's first word: what it runs on (see engine.environment), the matmul path it would take among it."""

    environment: dict[str, Any]


@dataclass(frozen=True)
class EpochDone:
    """So many members of the running cohort have finished one more epoch (or one member so many)."""

    members: int


@dataclass(frozen=True)
class Noticed:
    """Something that the user should know of the running cohort, in words; it goes on."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The running cohort's records, and the parameters that are to be kept, as safetensors' bytes by trial.

    They travel with the records, whatever the executor: a worker need not see the driver's files.
    """

    records: list[Record]
    weights: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The running cohort raised; `reason` in one line."""

    reason: str


@dataclass(frozen=True)
class Died:
    """The cohort's worker ended by itself or was killed; `reason` says how. Said by the executor, not by the worker."""

    reason: str


@dataclass(frozen=True)
class Restarted:
    """The cohort's worker was lost and the executor itself has begun the cohort anew."""

    reason: str


Word = EpochDone | Noticed  # on the way
Answer = Ready | Word | Finished | Failed
Event = Answer | Died | Restarted
