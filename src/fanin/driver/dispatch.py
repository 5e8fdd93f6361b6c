"""Dispatch: cohorts from the queue to an executor, until there is nothing left to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from fanin.driver.accounts import Accounts
from fanin.driver.deadline import Deadline, TimeUp
from fanin.driver.executors.protocol import Executor, WorkersError
from fanin.driver.messages import Died, EpochDone, Event, Failed, Finished, Noticed, Ready, Restarted
from fanin.driver.plan import Cohort

MAX_ATTEMPTS = 3  # a trial whose worker dies so often when it is trained alone is reported as failed


def dispatch(executor: Executor, cohorts: Sequence[Cohort], accounts: Accounts, deadline: Deadline) -> None:
    """Keep the executor busy until all cohorts have had their end.

    TimeUp at the deadline. Then, and on Ctrl-C, what workers have finished is recorded before either goes on its way.
    """
    floor = _Floor(executor, cohorts, accounts, deadline)
    try:
        floor.work()
    except (KeyboardInterrupt, TimeUp):
        with suppress(WorkersError):  # whoever ends this process may have ended the workers first
            executor.wait(floor.hear_last, 0)
        raise


class _Floor:
    """What waits and what runs, and what follows from each event."""

    def __init__(self, executor: Executor, cohorts: Sequence[Cohort], accounts: Accounts, deadline: Deadline) -> None:
        self._executor, self._accounts, self._deadline = executor, accounts, deadline
        self._queue = deque(cohorts)
        self._running: set[int] = set()  # by id(): cohorts are mutable
        self._path = ""

    def work(self) -> None:
        while self._queue or self._running:
            self._executor.wait(self.hear, self._deadline.left())
            self._give()
            self._deadline.check()

    def hear(self, cohort: Cohort | None, event: Event) -> None:
        if isinstance(event, Ready):
            self._path = self._path or self._accounts.path(event.environment)
            self._accounts.compare(event.environment | {"matmul": self._path})
            return
        if cohort is None and isinstance(event, Noticed):
            self._accounts.notice(event.text)
        if cohort is None or id(cohort) not in self._running:
            return  # a late word of a cohort that has had its end
        match event:
            case EpochDone():
                self._accounts.advance(cohort, event.members)
                self._deadline.check()  # a cohort in this process is heard only here
            case Noticed():
                self._accounts.notice(event.text)
            case Restarted():
                self._accounts.take_back(cohort, f"{event.reason}; trying again")
            case Finished() | Failed():
                self._running.remove(id(cohort))
                self._give()  # before the records are written and shown: the worker need not wait for that
                self._first(self._accounts.settle(cohort, event))
            case Died():
                self._running.remove(id(cohort))
                self._first(_lost(cohort, event.reason, self._accounts))

    def hear_last(self, cohort: Cohort | None, event: Event) -> None:
        """Of what was said before the end, keep results."""
        if cohort is not None and id(cohort) in self._running and isinstance(event, Finished):
            self._running.remove(id(cohort))
            self._accounts.settle(cohort, event)

    def _give(self) -> None:
        while self._queue and self._executor.free():
            cohort = self._queue.popleft()
            self._running.add(id(cohort))
            self._executor.submit(cohort, self._accounts.task(cohort, self._path))

    def _first(self, cohorts: Sequence[Cohort]) -> None:
        self._queue.extendleft(reversed(cohorts))


def _lost(cohort: Cohort, reason: str, accounts: Accounts) -> list[Cohort]:
    """What is tried again after a worker's death, which may have been want of memory: a stack's halves, a trial alone.

    A stack with a check-point is tried once more as it is: its halves would begin anew. A trial that has been alone
    and lost MAX_ATTEMPTS times is recorded as failed.
    """
    if len(cohort.trials) > 1 and not (cohort.attempts == 0 and accounts.has_checkpoint(cohort)):
        accounts.take_back(cohort, f"{reason}; trying again in halves")
        return cohort.halves()
    cohort.attempts += 1
    if cohort.attempts == MAX_ATTEMPTS:
        return accounts.settle(cohort, Failed(f"{reason}, {MAX_ATTEMPTS} times"))
    accounts.take_back(cohort, f"{reason}; trying again")
    return [cohort]
