"""Crews: processes with a fixed number of threads each, which start their work at one moment."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from stopwatch import Done, Stopwatch, Work

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
KERAS_BACKEND = "jax"  # its fastest here, see the README


@dataclass(frozen=True)
class _Answer:
    """One process's part of a sample: when it began and ended (perf_counter), CPU seconds in between."""

    begun: float
    ended: float
    ran: float
    done: Done


@dataclass(frozen=True)
class Sample:
    """One measurement: wall seconds of the whole crew, trial-epochs it finished in them, mean loss.

    ran: CPU time by wall time, of the process that had least; a single thread under 1 had to wait for its core.
    """

    wall: float
    trial_epochs: int
    loss: float | None
    ran: float

    @classmethod
    def of(cls, answers: Sequence[_Answer]) -> Sample:
        """The crew's sample from those of its processes, which began together."""
        losses = [answer.done.loss for answer in answers if answer.done.loss is not None]
        return cls(
            wall=max(answer.ended for answer in answers) - min(answer.begun for answer in answers),
            trial_epochs=sum(answer.done.trials for answer in answers),
            loss=sum(losses) / len(losses) if losses else None,
            ran=min(answer.ran / (answer.ended - answer.begun) for answer in answers),
        )

    @property
    def seconds(self) -> float:
        """Machine-seconds per trial-epoch."""
        return self.wall / self.trial_epochs


class Crew:
    """`processes` processes of `threads` threads each, every process on cores of its own."""

    def __init__(self, processes: int, threads: int, folder: Path) -> None:
        self.threads = threads
        self._members = []
        context, cores, saved = get_context("spawn"), usable_cores(), dict(os.environ)
        os.environ |= _settings(threads)  # read when the libraries are loaded
        for i in range(processes):
            ours, theirs = context.Pipe()
            mine = cores[i * threads : (i + 1) * threads]
            process = context.Process(target=_serve, args=(theirs, folder, threads, mine), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))
        os.environ.clear()
        os.environ.update(saved)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._members)

    @property
    def layout(self) -> str:
        """Processes x threads."""
        return f"{len(self)} x {self.threads}"

    def measure(self, works: Sequence[Work]) -> Sample:
        """Do works[i] in process i, all at once, from the start of the first to the end of the last."""
        connections = [connection for _, connection in self._members]
        for connection, work in zip(connections, works, strict=True):
            connection.send(work)
        for connection, work in zip(connections, works, strict=True):
            if _receive(connection) is not None:  # None: ready
                raise RuntimeError(f"{work} has finished without having started its stopwatch")
        for connection in connections:
            connection.send(None)
        return Sample.of([_receive(connection) for connection in connections])

    def close(self) -> None:
        """End the processes."""
        for process, connection in self._members:
            connection.close()
            process.join()


def usable_cores() -> list[int]:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _settings(threads: int) -> dict[str, str]:
    """Environment of a process with so many threads; XLA counts its own by the cores that the process may run on."""
    found = dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"KERAS_BACKEND": KERAS_BACKEND}
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        found["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    return found


def _receive(connection: Connection) -> _Answer | None:
    answer = connection.recv()
    if isinstance(answer, str):
        raise RuntimeError(answer)  # noqa: TRY004 - it is the traceback of what went wrong there
    return answer


def _serve(connection: Connection, folder: Path, threads: int, cores: list[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    from way import settle  # loads torch, which reads the environment then

    settle(folder, threads)
    while True:
        try:
            work: Work = connection.recv()
        except EOFError:
            return
        watch = Stopwatch(connection)
        try:
            done = work(watch)
        except Exception:  # whatever it is, the driver shows it and stops
            connection.send(traceback.format_exc())
        else:
            connection.send(_Answer(watch.begun, watch.ended, watch.ran, done))
