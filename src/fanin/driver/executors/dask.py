"""The Dask executor: a task per cohort on a Dask cluster; the data set is itself a task, which Dask repeats if lost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import time
import uuid
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from fanin.datasets import Dataset
from fanin.driver.executors.local import cores
from fanin.driver.executors.protocol import MAX_STILLBORN, Hear, WorkersError
from fanin.driver.executors.reach import in_a_line, missing_library, of_this_version, require_answer
from fanin.driver.messages import Died, EpochDone, Event, Failed, Finished, Noticed, Ready, Restarted, Task, Word
from fanin.driver.plan import Cohort
from fanin.errors import FaninError

if TYPE_CHECKING:
    from distributed import Client, Future

_SECONDS_BETWEEN_COUNTS = 5.0
_PATIENCE_SECONDS = 60
# glibc's names for what it is told, and what it would come to by itself
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


class DaskExecutor:
    """Tasks that log their words as events. Workers should be processes of one thread: another thread would wait.

    The data set is a task's result and no scattered data: those are lost with their worker, while a task is run again
    from what the scheduler holds; and no shared folder is asked for. A cluster that is started here has plain
    subprocesses, and leaves retries to the driver. address: "local" or None starts one, tcp://HOST:PORT reaches one,
    "auto" is DASK_SCHEDULER_ADDRESS's.
    """

    def __init__(self, dataset: Dataset, device: str, jobs: int | None, address: str | None) -> None:
        try:
            import distributed
        except ImportError as error:
            raise missing_library("dask", error) from None
        self._distributed = distributed
        self._dataset, self._device, self._most = dataset, device, jobs
        self._address = address or "local"
        self._resources = contextlib.ExitStack()
        self._run_id = f"fanin-{uuid.uuid4().hex[:12]}"
        self._said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._running: dict[str, tuple[Cohort | None, Future]] = {}
        self._attempts: dict[str, str] = {}
        self._sent = 0
        self._ready = False
        self._stillborn = 0
        self._counted = (0, -_SECONDS_BETWEEN_COUNTS)

    @property
    def workers(self) -> int:
        """Worker processes that the cluster has now; it may grow and shrink."""
        count, at = self._counted
        if time.monotonic() - at >= _SECONDS_BETWEEN_COUNTS:
            with _reaching():
                count = len(self._client.nthreads())
            self._counted = count, time.monotonic()
        return max(1, min(count, self._most or count))

    def __enter__(self) -> Self:
        try:
            self._client = self._connect()
        except BaseException:
            self._resources.close()
            raise
        self._client.subscribe_topic(self._run_id, lambda event: self._said.put(("words", event[1])))
        return self

    def _connect(self) -> Client:
        address = os.environ.get("DASK_SCHEDULER_ADDRESS") if self._address == "auto" else self._address
        if address is None:
            raise FaninError("address: auto needs DASK_SCHEDULER_ADDRESS; set it, or give tcp://HOST:PORT or local")
        if address == "local":
            address = self._resources.enter_context(self._cluster()).scheduler_address
        else:
            require_answer(address)
        try:
            client = self._resources.enter_context(self._distributed.Client(address, timeout=_PATIENCE_SECONDS))
            client.wait_for_workers(1, timeout=_PATIENCE_SECONDS)
        except (OSError, TimeoutError) as error:
            raise FaninError(f"address: no Dask cluster with workers at {address}: {in_a_line(error)}") from None
        return client

    def _cluster(self) -> Any:
        from distributed.deploy.subprocess import SubprocessCluster

        count = self._most or (1 if self._device == "cuda" else cores())
        return SubprocessCluster(
            n_workers=count,
            threads_per_worker=1,
            silence_logs=50,
            scheduler_kwargs={"allowed_failures": 0, "dashboard": False},
            worker_kwargs={"memory_limit": 0, "dashboard": False},
        )

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # the cluster may be gone
            self._client.cancel([future for _, future in self._running.values()], force=True)
        self._running.clear()
        with contextlib.suppress(Exception):
            self._client.unsubscribe_topic(self._run_id)
        self._resources.close()

    def start(self, cohorts: int) -> None:  # noqa: D102 - see Executor
        _ = self._dataset.fingerprint  # computed once, here: it is cached, and travels with the data
        self._data = self._share()
        self._send(None, None)

    def _share(self) -> Future:
        """The data set as a task; the scheduler shall have it, to give it again to workers that come later."""
        self._sent += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "Sending large graph"
            return self._client.submit(_same, self._dataset, key=f"{self._run_id}-data-{self._sent}", pure=False)

    def _send(self, cohort: Cohort | None, task: Task | None) -> None:
        if self._data.status == "error":  # a worker died as it took them
            self._data = self._share()
        self._sent += 1
        key = f"{self._run_id}-{self._sent}"
        with _reaching():
            future = self._client.submit(_train, self._data, self._device, task, self._run_id, key, key=key, pure=False)
        self._running[key] = cohort, future
        future.add_done_callback(lambda _: self._said.put(("done", key)))

    def free(self) -> bool:  # noqa: D102 - see Executor
        # none ahead: of a worker that dies, Dask suspects the tasks that only waited there as well
        return self._ready and len(self._running) < self.workers

    def submit(self, cohort: Cohort, task: Task) -> None:  # noqa: D102 - see Executor
        self._send(cohort, task)

    def wait(self, hear: Hear, seconds: float | None) -> None:  # noqa: D102 - see Executor
        try:
            what, content = self._said.get(timeout=seconds) if seconds != 0 else self._said.get_nowait()
            while True:
                self._pass_on(what, content, hear)
                what, content = self._said.get_nowait()
        except queue.Empty:
            return

    def _pass_on(self, what: str, content: Any, hear: Hear) -> None:
        if what == "words":
            self._words(content, hear)
            return
        cohort, future = self._running.pop(content)
        self._attempts.pop(content, None)
        event = of_this_version(_end(future))
        if cohort is not None:
            hear(cohort, event)
        elif isinstance(event, Ready):
            self._ready = True
            hear(None, event)
        elif isinstance(event, Died) and self._stillborn + 1 < MAX_STILLBORN:
            self._stillborn += 1
            self._send(None, None)
        else:
            reason = getattr(event, "reason", event)
            raise WorkersError(f"workers cannot start on the Dask cluster: {reason}; is fanin installed there?")

    def _words(self, logged: tuple[str, str, int | str], hear: Hear) -> None:
        """Epochs of a running cohort, or a notice; if they are another attempt's, Dask has begun it anew."""
        key, attempt, said = logged
        if key not in self._running:
            return
        cohort, _ = self._running[key]
        if self._attempts.setdefault(key, attempt) != attempt:
            self._attempts[key] = attempt
            hear(cohort, Restarted("its worker was lost"))
        hear(cohort, EpochDone(said) if isinstance(said, int) else Noticed(said))


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    """For what asks the scheduler: WorkersError if it is gone, of which Dask has many ways to speak."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise WorkersError(
            f"the Dask cluster does not answer any more ({in_a_line(error)}); start it again: the same command goes on"
        ) from None


def _same(dataset: Dataset) -> Dataset:
    return dataset


def _train(dataset: Dataset, device: str, task: Task | None, topic: str, key: str) -> Finished | Failed | Ready:
    """On a cluster's machine: train a task and log its epochs; say what the machine is, for no task."""
    from distributed import get_worker

    from fanin.driver.executors import standing

    _keep_freed_memory()
    if task is None:
        return standing.describe(dataset, device)
    worker, attempt = get_worker(), uuid.uuid4().hex[:8]

    def say(word: Word) -> None:
        worker.log_event(topic, (key, attempt, word.members if isinstance(word, EpochDone) else word.text))

    return standing.train(dataset, device, task, say)


@cache
def _keep_freed_memory() -> None:
    """Let malloc hand out again what was freed, as it does by default.

    Dask sets MALLOC_TRIM_THRESHOLD_ for its workers, and any such setting stops glibc from raising its other threshold
    too: then every tensor of 128 kB or more is mapped and unmapped, and each of its pages faults in every step.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no glibc, whose names these are
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)


def _end(future: Future) -> Event:
    """How a task ended."""
    if future.status == "finished":
        return future.result()
    error = future.exception() if future.status == "error" else None
    if error is None or type(error).__name__ == "KilledWorker":
        return Died(f"its worker was lost ({in_a_line(error) if error else future.status})")
    return Failed(in_a_line(error))
