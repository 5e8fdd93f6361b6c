"""What every executor can do: take cohorts, and say what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

from fanin.driver.messages import Event, Task
from fanin.driver.plan import Cohort
from fanin.errors import FaninError

MAX_STILLBORN = 3  # workers that are lost before their first word

Hear = Callable[[Cohort | None, Event], None]


class WorkersError(FaninError):
    """There is nobody who could train."""


class Executor(Protocol):
    """Trains cohorts, somewhere. A context manager: entering it connects, leaving it ends whatever still runs.

    The driver's part: enter, look at `workers`, `start`; then `submit` while it is `free`, and `wait`, until all
    cohorts have had their end: exactly one of Finished, Failed or Died each. Of a cohort's EpochDone none comes twice,
    unless a Restarted takes them all back. Ready comes first, without a cohort; a Noticed may come without one.
    WorkersError where nobody can train.
    """

    @property
    def workers(self) -> int:
        """How many cohorts are trained at a time; known once it is entered."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self, cohorts: int) -> None:
        """Hand out the data set and start what trains; no more of it than for so many cohorts."""
        ...

    def free(self) -> bool:
        """Whether it is ready and would begin one more cohort about now."""
        ...

    def submit(self, cohort: Cohort, task: Task) -> None:
        """Train a cohort, soon."""
        ...

    def wait(self, hear: Hear, seconds: float | None) -> None:
        """Call `hear` with each event since the last call; if there is none, wait for one, at most so many seconds.

        With 0 it says what has come already and returns.
        """
        ...
