"""The Ray executor: a task per cohort on a Ray cluster; the data set lies once in each machine's object store."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from fanin.datasets import Dataset
from fanin.driver.executors.local import cores
from fanin.driver.executors.protocol import MAX_STILLBORN, Hear, WorkersError
from fanin.driver.executors.reach import in_a_line, missing_library, of_this_version, require_answer
from fanin.driver.messages import Answer, Died, Event, Failed, Finished, Noticed, Ready, Task
from fanin.driver.plan import Cohort
from fanin.errors import FaninError

_STORE_BYTES = 128 * 2**20  # Ray would take 30 % of memory; answers are small, and the data set comes on top
_SECONDS_BETWEEN_COUNTS = 5.0
_AHEAD = 2  # cohorts waiting at Ray, so that a machine that has finished one need not wait for the driver


class RayExecutor:
    """Tasks with streaming answers. Ray itself retries nothing: the driver does, and halves stacks that were too large.

    A stream that Ray began anew would be spliced to what was heard of the first; and Ray tries tasks that were killed
    for memory again without end. address: "local" starts a cluster on this machine, "auto" finds the one it is part of,
    HOST:PORT and ray://HOST:PORT reach one; None is RAY_ADDRESS, or else "local". Ray's client (ray://) cannot stream:
    there a cohort's progress is seen at its end.
    """

    def __init__(self, dataset: Dataset, device: str, jobs: int | None, address: str | None) -> None:
        self._ray = _library()
        self._dataset, self._device, self._most = dataset, device, jobs
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._streaming = not self._address.startswith("ray://")
        self._running: dict[Any, Cohort | None] = {}  # by Ray's handles: streams, or single answers
        self._ready = False
        self._stillborn = 0
        self._notice = ""
        self._ours = False
        self._counted = (0, -_SECONDS_BETWEEN_COUNTS)

    @property
    def workers(self) -> int:
        """Cohorts that the cluster has room for now; it may grow and shrink."""
        count, at = self._counted
        if time.monotonic() - at >= _SECONDS_BETWEEN_COUNTS:
            resources = self._ray.cluster_resources()
            count = int(resources.get("GPU" if self._device == "cuda" else "CPU", 0))
            self._counted = count, time.monotonic()
        return max(1, min(count, self._most or count))

    def __enter__(self) -> Self:
        if not self._ray.is_initialized():  # a caller's own connection is used, and left alone
            self._connect()
            self._ours = True
        return self

    def _connect(self) -> None:
        if self._address not in ("local", "auto"):
            require_answer(self._address)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "critical"}
        if self._address == "local":
            size = _STORE_BYTES + 2 * _bytes(self._dataset)
            options |= {"num_cpus": self._most or cores(), "object_store_memory": size, "include_dashboard": False}
        with _same_signals():
            try:
                self._ray.init(self._address, **options)
            except Exception as error:
                raise FaninError(_no_cluster(self._address, error)) from None

    def __exit__(self, *_: object) -> None:
        for stream in self._running:
            with contextlib.suppress(Exception):  # it may have ended, or its machine
                self._ray.cancel(stream, force=True)
        self._running.clear()
        if self._ours:
            with _same_signals():
                self._ray.shutdown()

    def start(self, cohorts: int) -> None:  # noqa: D102 - see Executor; Ray starts processes as they are wanted
        _ = self._dataset.fingerprint  # computed once, here: it is cached, and travels with the data
        self._data = self._ray.put(self._dataset)
        self._look_for_room()
        self._run = self._ray.remote(_train if self._streaming else _train_silently).options(
            num_returns="streaming" if self._streaming else 1,
            max_retries=0,
            num_cpus=0 if self._device == "cuda" else 1,
            num_gpus=1 if self._device == "cuda" else 0,
        )
        self._send(None, None)

    def _look_for_room(self) -> None:
        """Ray lets tasks wait for ever for what it has not: a cluster that grows may get it, one of ours will not."""
        kind = "GPU" if self._device == "cuda" else "CPU"
        if self._ray.cluster_resources().get(kind, 0) >= 1:
            return
        if self._ours and self._address == "local":
            raise WorkersError(
                f"device: Ray finds no {kind} on this machine; give the --address of a cluster, or --device cpu"
            )
        self._notice = f"the Ray cluster has no {kind} now; the run waits for one"

    def _send(self, cohort: Cohort | None, task: Task | None) -> None:
        self._running[self._run.remote(self._data, self._device, task)] = cohort

    def free(self) -> bool:  # noqa: D102 - see Executor
        ahead = 0 if self._most else _AHEAD
        return self._ready and len(self._running) < self.workers + ahead

    def submit(self, cohort: Cohort, task: Task) -> None:  # noqa: D102 - see Executor
        self._send(cohort, task)

    def wait(self, hear: Hear, seconds: float | None) -> None:  # noqa: D102 - see Executor
        if self._notice:
            notice, self._notice = self._notice, ""
            hear(None, Noticed(notice))
        while speaking := self._speaking(seconds):
            for stream in speaking:
                self._pass_on(stream, hear)
            if seconds != 0:
                return

    def _speaking(self, seconds: float | None) -> list[Any]:
        """Streams that have a word; if none has, the first that has one within so many seconds."""
        if not self._running:
            return []
        streams = list(self._running)
        if not self._ray.wait(streams, num_returns=1, timeout=seconds, fetch_local=False)[0]:
            return []
        return self._ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)[0]

    def _pass_on(self, stream: Any, hear: Hear) -> None:
        event = of_this_version(self._next(stream))
        over = isinstance(event, Finished | Failed | Died | Ready)
        cohort = self._running.pop(stream) if over else self._running[stream]
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
            raise WorkersError(f"workers cannot start on the Ray cluster: {reason}; is fanin installed there?")

    def _next(self, stream: Any) -> Event:
        """The next word of a stream that has one."""
        try:
            return self._ray.get(next(stream) if self._streaming else stream)
        except StopIteration:
            return Died("its worker ended without a result")
        except self._ray.exceptions.RayTaskError as error:  # before any code of ours: it could not be loaded there
            return Failed(in_a_line(error.cause or error))
        except self._ray.exceptions.RayError as error:
            return Died(f"its worker was lost ({in_a_line(error)})")


def _library() -> Any:
    """Ray, told to keep quiet: it would speak on standard output, where results go."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what is to come
    try:
        import ray
    except ImportError as error:
        raise missing_library("ray", error) from None
    return ray


def _train(dataset: Dataset, device: str, task: Task | None) -> Iterator[Answer]:
    """On a cluster's machine: what is said while a task is trained, its end last; what the machine is, for no task."""
    from fanin.driver.executors import standing

    if task is None:
        yield standing.describe(dataset, device)
        return
    said: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    threading.Thread(
        target=lambda: said.put(standing.train(dataset, device, task, said.put)), name="fanin", daemon=True
    ).start()
    answer: Answer | None = None
    while not isinstance(answer, Finished | Failed):
        answer = said.get()
        yield answer


def _train_silently(dataset: Dataset, device: str, task: Task | None) -> Answer:
    """The last of what _train says."""
    *_, last = _train(dataset, device, task)
    return last


def _no_cluster(address: str, error: Exception) -> str:
    if address == "local":
        return f"a Ray cluster could not be started here: {in_a_line(error)}; is the machine too busy, or too small?"
    return (
        f"address: no Ray cluster at {address}: {in_a_line(error)}; start one with `ray start --head`, or give "
        "--address local"
    )


def _bytes(dataset: Dataset) -> int:
    splits = dataset.train, dataset.test
    return sum(split.inputs.nbytes + split.labels.nbytes for split in splits)


@contextlib.contextmanager
def _same_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself: what the caller does upon it is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
