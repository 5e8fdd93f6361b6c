"""The local executor: worker processes on this machine, which map the data set from one folder."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from fanin.datasets import Dataset, save_shared
from fanin.datasets.shared import META
from fanin.driver.executors.protocol import MAX_STILLBORN, Hear, WorkersError
from fanin.driver.messages import Died, Event, Failed, Finished, Noticed, Ready, Setup, Task
from fanin.driver.plan import Cohort
from fanin.driver.pool import Handle, Pool, require_workers
from fanin.driver.scratch import scratch_folder


class LocalExecutor:
    """`jobs` worker processes with one cohort each, by default one per core, or one for a card.

    One that dies is replaced. Where new ones keep dying, those that are at work go on without them; FaninError if there
    are none.
    """

    def __init__(self, dataset: Dataset, device: str, jobs: int | None) -> None:
        require_workers()
        self.workers = jobs or (1 if device == "cuda" else cores())
        self._dataset, self._device = dataset, device
        self._resources = ExitStack()
        self._pool: Pool | None = None
        self._running: dict[Handle, Cohort] = {}
        self._idle: set[Handle] = set()
        self._idle_deaths = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def start(self, cohorts: int) -> None:  # noqa: D102 - see Executor
        self._folder = self._resources.enter_context(scratch_folder())
        save_shared(self._dataset, self._folder)
        self._pool = self._resources.enter_context(Pool(Setup(self._folder, self._device), min(self.workers, cohorts)))

    def free(self) -> bool:  # noqa: D102 - see Executor
        return bool(self._idle)

    def submit(self, cohort: Cohort, task: Task) -> None:  # noqa: D102 - see Executor
        handle = self._idle.pop()
        self._running[handle] = cohort
        handle.give(task)

    def wait(self, hear: Hear, seconds: float | None) -> None:  # noqa: D102 - see Executor
        if self._pool is not None:
            for handle, answer in self._pool.answers(seconds):
                self._pass_on(self._pool, handle, answer, hear)

    def _pass_on(self, pool: Pool, handle: Handle, answer: Event, hear: Hear) -> None:
        match answer:
            case Ready():
                self._idle.add(handle)
                hear(None, answer)
            case Finished() | Failed():
                cohort = self._running.pop(handle)
                self._idle.add(handle)
                self._idle_deaths = 0
                hear(cohort, answer)
            case Died() if handle in self._running:
                self._replace(pool, handle)
                hear(self._running.pop(handle), answer)
            case Died():
                self._idle.discard(handle)
                self._do_without(pool, handle, answer.reason, hear)
            case _:
                hear(self._running[handle], answer)

    def _replace(self, pool: Pool, handle: Handle) -> None:
        if not (self._folder / META).is_file():  # temporary files were cleared away; workers at work have them open
            save_shared(self._dataset, self._folder)
        pool.replace(handle)

    def _do_without(self, pool: Pool, handle: Handle, reason: str, hear: Hear) -> None:
        """Replace a worker that had no cohort; where new ones die too, be it for want of memory, the others must do."""
        self._idle_deaths += 1
        if self._idle_deaths < MAX_STILLBORN:
            self._replace(pool, handle)
        elif len(pool) > 1:
            pool.drop(handle)
            hear(None, Noticed(f"a worker cannot start, and the run goes on with fewer: {reason}"))
        else:
            raise WorkersError(f"workers cannot start: {reason}; `fanin doctor` tries what they need")


def cores() -> int:
    """Cores that this process may use, by affinity and by a container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return count
