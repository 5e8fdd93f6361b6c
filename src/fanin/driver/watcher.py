"""Watcher: what a run tells while it goes on."""

from __future__ import annotations

from fanin.recipe import Trial
from fanin.record import Record
from fanin.study import Study


class Watcher:
    """Told what happens during a run; every method may be overridden, none need be."""

    def planned(self, work: float, trials: int, known: int) -> None:
        """`trials` are to be run, `known` have their result already; `work` is the sum of what `advanced` will say."""

    def advanced(self, work: float) -> None:
        """So much of the work is done."""

    def recorded(self, trial: Trial, record: Record) -> None:
        """A trial's record is in the store."""

    def completed(self, study: Study) -> None:
        """All of a study's trials have a record."""

    def noticed(self, message: str) -> None:
        """Something the user should know, such as a worker that was lost and replaced."""
