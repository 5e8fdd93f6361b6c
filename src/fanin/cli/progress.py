"""Progress of a run: one bar with the time left on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fanin.driver import Watcher
from fanin.recipe import Trial
from fanin.record import Record
from fanin.study import Study


def make_watcher(console: Console, show: Callable[[Study], None], prepare: Callable[[], None]) -> Lines:
    """A Bar on a terminal, Lines elsewhere.

    `show` is called with each study that is complete, `prepare` while workers start, if there is anything to run.
    """
    return (Bar if console.is_terminal else Lines)(console, show, prepare)


class Lines(Watcher):
    """A line per event that matters, and one every tenth of the work."""

    def __init__(self, console: Console, show: Callable[[Study], None], prepare: Callable[[], None]) -> None:
        self._console, self._show, self._prepare = console, show, prepare
        self._work, self._done, self._tenth = 0.0, 0.0, 0
        self._start = time.monotonic()

    def planned(self, work: float, trials: int, known: int) -> None:  # noqa: D102 - see Watcher
        self._work = work
        self._console.print(_plan_words(trials, known), highlight=False)
        if trials:
            self._prepare()

    def advanced(self, work: float) -> None:  # noqa: D102 - see Watcher
        self._done += work
        tenth = int(10 * self._done / self._work) if self._work else 10
        if tenth > self._tenth:
            self._tenth = tenth
            seconds = time.monotonic() - self._start
            self._console.print(f"{10 * tenth:3d} % after {seconds:.0f} s", highlight=False)

    def completed(self, study: Study) -> None:  # noqa: D102 - see Watcher
        self._show(study)

    def noticed(self, message: str) -> None:  # noqa: D102 - see Watcher
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Bar(Lines):
    """One bar over all trials with the time left; finished studies are printed above it."""

    def __init__(self, console: Console, show: Callable[[Study], None], prepare: Callable[[], None]) -> None:
        super().__init__(console, show, prepare)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: Any = None
        self._recorded, self._trials = 0, 0

    def planned(self, work: float, trials: int, known: int) -> None:  # noqa: D102 - see Watcher
        self._trials = trials
        self._progress.console.print(_plan_words(trials, known), highlight=False)
        if trials:
            self._task = self._progress.add_task(self._words(), total=work)
            self._prepare()

    def _words(self) -> str:
        return f"{self._recorded}/{self._trials} trials"

    def advanced(self, work: float) -> None:  # noqa: D102 - see Watcher
        self._progress.advance(self._task, work)

    def recorded(self, trial: Trial, record: Record) -> None:  # noqa: D102 - see Watcher
        self._recorded += 1
        self._progress.update(self._task, description=self._words())

    def completed(self, study: Study) -> None:  # noqa: D102 - see Watcher
        self._progress.stop()  # the bar is on standard error, the table on standard output: never both at once
        self._show(study)
        self._progress.start()

    def noticed(self, message: str) -> None:  # noqa: D102 - see Watcher
        self._progress.console.print(message, markup=False, highlight=False)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _plan_words(trials: int, known: int) -> str:
    if not trials:
        return f"nothing to run: all {known} trials have their result"
    return f"{trials} trials to run" + (f", {known} have their result already" if known else "")


class Fetching:
    """Shows data arriving: a bar on a terminal, one line elsewhere. Call it as `fanin.datasets.Progress`."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._console = console
        self._tasks: dict[str, Any] = {}

    def __call__(self, description: str, done_bytes: int, total_bytes: int | None) -> None:  # noqa: D102
        if description not in self._tasks:
            if not self._console.is_terminal:
                self._console.print(description, highlight=False)
            self._tasks[description] = self._progress.add_task(description, total=total_bytes)
        self._progress.update(self._tasks[description], completed=done_bytes, total=total_bytes)

    def __enter__(self) -> Fetching:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()


def stderr() -> Console:
    """A console on standard error."""
    return Console(file=sys.stderr, stderr=True)
