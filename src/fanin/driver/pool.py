"""Worker processes, one per core, and the connections to them; a worker that dies is replaced."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from fanin.driver.executors.protocol import WorkersError
from fanin.driver.messages import Answer, Died, Setup, Task
from fanin.errors import FaninError


@dataclass(eq=False)
class Handle:
    """One worker process as the driver sees it. torn: a word of its was read in part, and no other can be."""

    process: subprocess.Popen[bytes]
    connection: Connection
    torn: bool = False

    def give(self, word: Setup | Task) -> None:
        """Send a word; a worker that has just died is noticed when its answer is awaited."""
        with contextlib.suppress(ConnectionError):
            self.connection.send(word)

    def hear(self) -> Answer:
        """Its next word. Whatever ends the reading in the middle, be it Ctrl-C, leaves half a word behind."""
        self.torn = True
        answer = self.connection.recv()
        self.torn = False
        return answer


class Pool:
    """`jobs` workers. Use as a context manager: leaving it ends them.

    Workers are plain subprocesses and not multiprocessing's, which would run the user's script again in each of them.
    """

    def __init__(self, setup: Setup, jobs: int) -> None:
        self._setup = setup
        self._selector = selectors.DefaultSelector()  # kept: hundreds of pipes are not to be entered at every look
        self._handles: list[Handle] = []
        try:
            for _ in range(jobs):
                self._take_on(self._start())
        except BaseException:
            self.close()
            raise

    def _take_on(self, handle: Handle) -> None:
        self._handles.append(handle)
        self._selector.register(handle.connection, selectors.EVENT_READ, handle)

    def _start(self) -> Handle:
        try:
            ours, theirs = Pipe()
            with theirs:  # closed here, so that the end of the process is the end of the connection
                # -P: a user's random.py in the current folder is not to be taken for the standard library's
                command = [sys.executable, "-P", "-m", "fanin.driver.worker", str(theirs.fileno())]
                # a session of its own: Ctrl-C at the terminal is the driver's to handle
                process = subprocess.Popen(  # noqa: S603 - our own module
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
                )
        except OSError as error:  # no more processes, files or memory
            raise WorkersError(
                f"a worker process cannot be started ({error.strerror or error}); {len(self._handles)} are running: "
                "give fewer --jobs, or raise the limits that `ulimit -a` shows"
            ) from None
        handle = Handle(process, ours)
        handle.give(self._setup)
        return handle

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        for handle in self._handles:
            handle.connection.close()
            handle.process.kill()  # what it finished was sent, and what it was writing is not yet in its place
        for handle in self._handles:
            handle.process.wait()
        self._selector.close()

    def __len__(self) -> int:
        return len(self._handles)

    def replace(self, handle: Handle) -> None:
        """Start a new worker in the place of a dead one."""
        self.drop(handle)
        self._take_on(self._start())

    def drop(self, handle: Handle) -> None:
        """Do without a dead worker."""
        self._selector.unregister(handle.connection)
        handle.connection.close()
        self._handles.remove(handle)

    def answers(self, seconds: float | None = None) -> Iterator[tuple[Handle, Answer | Died]]:
        """What the workers have said; if nothing, what they say next, within so many seconds. A death comes once."""
        for key, _ in self._selector.select(seconds):
            handle: Handle = key.data
            answer: Answer | Died | None = None
            while not handle.torn and not isinstance(answer, Died) and (answer is None or handle.connection.poll()):
                try:
                    answer = handle.hear()
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
