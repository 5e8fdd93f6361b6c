"""The local executor: worker processes on this machine, which map the data set from one folder."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from fanin.datasets import Dataset, save_shared
from fanin.driver.executors.protocol import Hear
from fanin.driver.messages import Died, Event, Failed, Finished, Ready, Setup, Task
from fanin.driver.plan import Cohort
from fanin.driver.pool import Handle, Pool, require_workers
from fanin.driver.scratch import scratch_folder
from fanin.errors import FaninError

MAX_STILLBORN = 3  # workers that die before their first word


class LocalExecutor:
    """`jobs` worker processes with one cohort each, by default one per core, or one for a card.

    One that dies is replaced. FaninError if they cannot even start.
    """

    def __init__(self, dataset: Dataset, device: str, jobs: int | None) -> None:
        require_workers()
        self.workers = jobs or (1 if device == "cuda" else cores())
        self._dataset, self._device = dataset, device
        self._resources = ExitStack()
        self._pool: Pool | None = None
        self._running: dict[Handle, Cohort] = {}
        self._idle: set[Handle] = set()
        self._stillborn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def start(self, cohorts: int) -> None:  # noqa: D102 - see Executor
        folder = self._resources.enter_context(scratch_folder())
        save_shared(self._dataset, folder)
        self._pool = self._resources.enter_context(Pool(Setup(folder, self._device), min(self.workers, cohorts)))

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
                hear(cohort, answer)
            case Died() if handle in self._idle:  # it had nothing to do, and there is nothing more
                self._idle.remove(handle)
                pool.drop(handle)
            case Died() if handle in self._running:
                pool.replace(handle)
                hear(self._running.pop(handle), answer)
            case Died():
                self._stillborn += 1
                if self._stillborn == MAX_STILLBORN:
                    raise FaninError(f"workers cannot start: {answer.reason}; `fanin doctor` tries what they need")
                pool.replace(handle)
            case _:
                hear(self._running[handle], answer)


def cores() -> int:
    """Cores that this process may use, by affinity and by a container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return count
