"""What runs on a cluster's machines: one worker per process, which stands there from cohort to cohort."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fanin.datasets import Dataset
from fanin.driver.messages import Failed, Finished, Ready, Task, Word
from fanin.driver.worker import Worker, explain

_one_at_a_time = threading.Lock()  # the matmul path is the process's: two cohorts must not share it
_standing: dict[tuple[str, str], Worker] = {}  # by data and device; only the latest: its data take memory


def train(dataset: Dataset, device: str, task: Task, say: Callable[[Word], object]) -> Finished | Failed:
    """Train a task in this process, which may be at another: that is waited for."""
    with _one_at_a_time:
        try:
            return _worker(dataset, device).answer(task, say)
        except Exception as error:
            return Failed(explain(error))


def describe(dataset: Dataset, device: str) -> Ready:
    """What this process runs on."""
    with _one_at_a_time:
        return _worker(dataset, device).describe()


def _worker(dataset: Dataset, device: str) -> Worker:
    key = dataset.fingerprint, device
    if key not in _standing:
        _standing.clear()
        _standing[key] = Worker(dataset, device)
    return _standing[key]
