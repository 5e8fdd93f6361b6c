"""Worker processes, one per core, and the connections to them; a worker that dies is replaced."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from fanin.driver.messages import Answer, Setup, Task
from fanin.errors import FaninError


@dataclass(frozen=True)
class Died:
    """A worker process ended by itself or was killed; `reason` says how."""

    reason: str


@dataclass(eq=False)
class Handle:
    """One worker process as the driver sees it."""

    process: subprocess.Popen[bytes]
    connection: Connection

    def give(self, task: Task) -> None:
        """Send a task; a worker that has just died is noticed when its answer is awaited."""
        with contextlib.suppress(ConnectionError):
            self.connection.send(task)


class Pool:
    """`jobs` workers. Use as a context manager: leaving it ends them.

    Workers are plain subprocesses and not multiprocessing's, which would run the user's script again in each of them.
    """

    def __init__(self, setup: Setup, jobs: int) -> None:
        self._setup = setup
        self._handles = [self._start() for _ in range(jobs)]

    def _start(self) -> Handle:
        ours, theirs = Pipe()
        # -P: a user's random.py in the current folder is not to be taken for the standard library's
        command = [sys.executable, "-P", "-m", "fanin.driver.worker", str(theirs.fileno())]
        # a session of its own: Ctrl-C at the terminal is the driver's to handle
        process = subprocess.Popen(  # noqa: S603 - our own module
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()  # so that the end of the process is the end of the connection
        handle = Handle(process, ours)
        ours.send(self._setup)
        return handle

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.connection.close()
            handle.process.kill()  # what it finished was sent, and what it was writing is not yet in its place
        for handle in self._handles:
            handle.process.wait()

    def replace(self, handle: Handle) -> None:
        """Start a new worker in the place of a dead one."""
        self.drop(handle)
        self._handles.append(self._start())

    def drop(self, handle: Handle) -> None:
        """Do without a dead worker."""
        handle.connection.close()
        self._handles.remove(handle)

    def said(self) -> Iterator[tuple[Handle, Answer]]:
        """What the workers have said already and nobody has heard, without waiting for more."""
        for handle in self._handles:
            with contextlib.suppress(EOFError, OSError):
                while handle.connection.poll():
                    yield handle, handle.connection.recv()

    def answers(self) -> Iterator[tuple[Handle, Answer | Died]]:
        """Everything the workers say, as it comes, for ever; a death comes once."""
        while True:
            speaking = wait([handle.connection for handle in self._handles])
            for handle in [handle for handle in self._handles if handle.connection in speaking]:
                try:
                    answer: Answer | Died = handle.connection.recv()
                except (EOFError, OSError):  # OSError: it died in the middle of a word
                    answer = Died(self._end(handle))
                yield handle, answer

    def _end(self, handle: Handle) -> str:
        """How a worker that fell silent ended; one that merely hangs is ended here."""
        try:
            code = handle.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            handle.process.kill()
            code = handle.process.wait()
        return _reason(code)


def _reason(code: int) -> str:
    if code < 0:
        return f"its worker was killed by signal {-code} (out of memory? see the system's log)"
    return f"its worker process ended with exit code {code}"


def require_workers() -> None:
    """FaninError where worker processes cannot inherit a connection (Windows)."""
    if sys.platform == "win32":
        raise FaninError("worker processes are not supported on Windows yet; use --jobs 0 to train in this process")
