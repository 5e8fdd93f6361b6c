"""The memory of a study while it runs, its workers' and its driver's, sampled from /proc (so on Linux only)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

PERIOD = 0.05  # seconds between samples; each takes a process some milliseconds of waiting
_WORKER = b"fanin.driver.worker"


class Watch:
    """Samples in a thread of its own for as long as the `with` block runs; the figures are the largest seen, in MB.

    worker, driver: PSS, a process's own pages and its part of those it shares. anonymous: of a worker, what lies in no
    file. A worker's figures are 0 if none was seen.
    """

    def __init__(self) -> None:
        self.worker = self.anonymous = self.driver = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(PERIOD):
            self.driver = max(self.driver, _memory(os.getpid()).get("Pss", 0.0))
            for pid in _workers():
                found = _memory(pid)
                self.worker = max(self.worker, found.get("Pss", 0.0))
                self.anonymous = max(self.anonymous, found.get("Anonymous", 0.0))


def _workers() -> list[int]:
    """Children of this process that are fanin's workers."""
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    return [int(pid) for pid in children if _WORKER in _read(f"/proc/{pid}/cmdline")]


def _memory(pid: int) -> dict[str, float]:
    """MB by the names of /proc's smaps_rollup; nothing of a process that has just ended."""
    lines = _read(f"/proc/{pid}/smaps_rollup").decode().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # the process has ended
        return b""
