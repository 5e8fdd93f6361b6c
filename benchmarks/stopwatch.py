"""What a way of training gets and gives back: a stopwatch, and what it trained while that ran."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection


class Stopwatch:
    """Times one piece of work; `start` first waits until every process of the crew is ready to start."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.begun = self.ended = self.ran = float("nan")

    def start(self) -> None:
        """Everything before this call (loading, initialisation, warm-up) is outside the measurement."""
        self._connection.send(None)
        self._connection.recv()
        self.ran = -time.process_time()
        self.begun = time.perf_counter()

    def stop(self) -> None:
        """The work is done."""
        self.ended = time.perf_counter()
        self.ran += time.process_time()


@dataclass(frozen=True)
class Done:
    """What a way trained: trials at once, and their mean loss over the epoch (None: nothing is trained)."""

    trials: int
    loss: float | None


Work = Callable[[Stopwatch], Done]
