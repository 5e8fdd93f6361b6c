"""The inline executor: trains in the driver's own process, one cohort after another."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

from fanin.datasets import Dataset
from fanin.driver.executors.protocol import Hear
from fanin.driver.messages import Task
from fanin.driver.plan import Cohort

if TYPE_CHECKING:
    from fanin.driver.worker import Worker


class InlineExecutor:
    """Trains while it is waited for. The caller's threads, denormals and matmul path are put back afterwards."""

    workers = 1

    def __init__(self, dataset: Dataset, device: str) -> None:
        self._dataset, self._device = dataset, device
        self._worker: Worker | None = None
        self._given: tuple[Cohort, Task] | None = None
        self._ready = False

    def __enter__(self) -> Self:
        import torch  # the workers' part, in this process

        self._before = torch.get_num_threads(), torch.get_float32_matmul_precision()
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        threads, precision = self._before
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_flush_denormal(False)

    def start(self, cohorts: int) -> None:  # noqa: D102 - see Executor
        from fanin.driver.worker import Worker

        self._worker = Worker(self._dataset, self._device)

    def free(self) -> bool:  # noqa: D102 - see Executor
        return self._ready and self._given is None

    def submit(self, cohort: Cohort, task: Task) -> None:  # noqa: D102 - see Executor
        self._given = cohort, task

    def wait(self, hear: Hear, seconds: float | None) -> None:  # noqa: D102 - see Executor
        if self._worker is None or seconds == 0:
            return
        if not self._ready:
            self._ready = True
            hear(None, self._worker.describe())
        elif self._given is not None:
            (cohort, task), self._given = self._given, None
            hear(cohort, self._worker.answer(task, partial(hear, cohort)))
