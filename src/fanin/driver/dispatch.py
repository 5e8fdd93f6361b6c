"""Dispatch: cohorts from the queue to worker processes, or to this one, until there is nothing left to do."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator

from fanin.driver.accounts import Accounts
from fanin.driver.messages import EpochDone, Failed, Finished, Ready, Setup
from fanin.driver.plan import Cohort
from fanin.driver.pool import Died, Handle, Pool
from fanin.errors import FaninError

MAX_ATTEMPTS = 3  # a cohort whose worker dies so often is reported as failed


def dispatch_here(setup: Setup, queue: deque[Cohort], accounts: Accounts) -> None:
    """Train the queue in this process, one cohort after another."""
    import torch  # the workers' part, in this process

    from fanin.driver.worker import Worker, explain, preferred_path
    from fanin.engine.environment import environment

    with _same_numerics_as_a_worker():
        device = torch.device(setup.device)
        worker = Worker(setup)
        path = accounts.path(environment(device, members=1) | {"matmul": preferred_path(device)})
        while queue:
            cohort = queue.popleft()
            try:
                answer: Finished | Failed = worker.train(
                    accounts.task(cohort, path), lambda done, c=cohort: accounts.advance(c, done.members)
                )
            except Exception as error:
                answer = Failed(explain(error))
            queue.extendleft(reversed(accounts.settle(cohort, answer)))


def dispatch(pool: Pool, queue: deque[Cohort], accounts: Accounts) -> None:
    """Keep every worker busy until the queue is empty and all have answered; the dead are replaced.

    FaninError if workers cannot even start. On Ctrl-C what workers have finished is recorded before it goes on its way.
    """
    running: dict[Handle, Cohort] = {}
    idle: set[Handle] = set()
    path, stillborn = "", 0

    def give() -> None:
        while queue and idle:
            handle = idle.pop()
            running[handle] = queue.popleft()
            handle.give(accounts.task(running[handle], path))

    try:
        for handle, answer in pool.answers():
            match answer:
                case Ready():
                    path = path or accounts.path(answer.environment)
                    idle.add(handle)
                case EpochDone():
                    accounts.advance(running[handle], answer.members)
                case Finished() | Failed():
                    cohort = running.pop(handle)
                    idle.add(handle)
                    give()  # before the records are written and shown: the worker need not wait for that
                    queue.extendleft(reversed(accounts.settle(cohort, answer)))
                case Died() if handle in idle:  # it had nothing to do, and there is nothing more
                    idle.remove(handle)
                    pool.drop(handle)
                case Died() if handle in running:
                    pool.replace(handle)
                    queue.extendleft(reversed(_lost(running.pop(handle), answer.reason, accounts)))
                case Died():
                    stillborn += 1
                    if stillborn == MAX_ATTEMPTS:
                        raise FaninError(f"workers cannot start: {answer.reason}; `fanin doctor` tries what they need")
                    pool.replace(handle)
            give()
            if not queue and not running:
                return
    except KeyboardInterrupt:
        for handle, answer in pool.said():
            if isinstance(answer, Finished) and handle in running:
                accounts.settle(running.pop(handle), answer)
        raise


def _lost(cohort: Cohort, reason: str, accounts: Accounts) -> list[Cohort]:
    """What is to be tried again after a worker's death: its cohort, unless that has happened too often."""
    cohort.attempts += 1
    if cohort.attempts == MAX_ATTEMPTS:
        return accounts.settle(cohort, Failed(f"{reason}, {MAX_ATTEMPTS} times"))
    accounts.take_back(cohort, f"{reason}; trying again")
    return [cohort]


@contextlib.contextmanager
def _same_numerics_as_a_worker() -> Iterator[None]:
    """A Worker sets threads, denormals and the matmul path of its process: put the caller's back afterwards."""
    import torch

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_flush_denormal(False)
