"""Would one driver do for a large cluster? Its real dispatch, accounts and store, with simulated machines.

    python benchmarks/cluster_sim.py --trials 100000 --nodes 1 10 100 1000   # events in simulated time
    python benchmarks/cluster_sim.py --pipes 512 --seconds 60                 # real pipes in real time

The first replays a study on NODES machines of 16 cores, with machines that fail. Simulated time goes on by what the
driver really takes for an event, so that a driver that is too slow shows as a longer run. The second measures the
driver's own processor time while so many workers, simulated by one process, speak to it as real ones do.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from fanin.datasets import Dataset, load
from fanin.driver import Watcher
from fanin.driver.accounts import Accounts
from fanin.driver.deadline import Deadline, TimeUp
from fanin.driver.dispatch import dispatch
from fanin.driver.executors.local import LocalExecutor
from fanin.driver.executors.protocol import Hear
from fanin.driver.messages import Died, EpochDone, Event, Finished, Ready, Task
from fanin.driver.plan import Cohort, plan
from fanin.driver.pool import Handle, Pool
from fanin.record import Epoch, LayerSignal, Record
from fanin.store import Store
from fanin.study import Study

CORES = 16
ENVIRONMENT = {"fanin": "0", "torch": "2", "numpy": "2", "cpu": "x", "isa": "AVX2", "matmul": "blas", "device": "cpu"}
EPOCHS, LAYERS = 15, 3
# Measured: a trial of Lab 9 (784-256-256-10, 15 epochs of MNIST) takes about 9 s of one core, give or take a tenth.
TRIAL_SECONDS, SPREAD = 9.0, 0.1


def study_of(trials: int, seeds: int = 100) -> Study:
    """About so many trials of Lab 9's network."""
    arms = [
        {"name": f"lr {i}", "optimizer": {"name": "sgd", "lr": (i + 1) * 1e-6}} for i in range(max(1, trials // seeds))
    ]
    recipe = {"hidden": [256, 256], "epochs": EPOCHS}
    return Study.from_dict({"name": "many", "seeds": min(seeds, trials), "recipe": recipe, "arms": arms})


def records(task: Task) -> list[Record]:
    """What training would have left."""
    draw = random.random
    return [
        Record(
            trial_id=trial_id,
            seed=trial.seed,
            status="done",
            epochs=tuple(Epoch(e, draw(), draw(), draw(), draw(), draw()) for e in range(1, EPOCHS + 1)),
            signal=tuple(
                LayerSignal(e, layer, draw(), draw(), draw(), draw(), None)
                for e in range(EPOCHS + 1)
                for layer in range(1, LAYERS + 1)
            ),
            seconds=TRIAL_SECONDS,
            environment=ENVIRONMENT,
        )
        for trial, trial_id in zip(task.trials, task.ids, strict=True)
    ]


def seconds_of(task: Task) -> float:
    """How long a worker trains a task."""
    return TRIAL_SECONDS * len(task.trials) * random.lognormvariate(0, SPREAD)


@dataclass(order=True)
class _Due:
    at: float
    order: int
    node: int = field(compare=False)
    cohort: Cohort | None = field(compare=False)
    event: Event | None = field(compare=False)
    task: Task | None = field(compare=False, default=None)
    since: float = field(compare=False, default=0.0)  # when the cohort's attempt began


class SimulatedExecutor:
    """Machines of CORES cores in simulated time, of which each fails once in so many hours and is back in a minute."""

    def __init__(self, nodes: int, hours_between_failures: float) -> None:
        self.workers = nodes * CORES
        self.now, self.busy, self.lost, self.driver_seconds = 0.0, 0.0, 0, 0.0
        self._mean = hours_between_failures * 3600
        self._free = [node for node in range(nodes) for _ in range(CORES)]
        self._on_node: list[dict[int, tuple[Cohort, float]]] = [{} for _ in range(nodes)]
        self._due: list[_Due] = []
        self._order, self._ready, self._last_clock = 0, False, time.process_time()
        for node in range(nodes):
            self._push(random.expovariate(1 / self._mean), node, None, None)

    def __enter__(self) -> SimulatedExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def start(self, cohorts: int) -> None:
        self._last_clock = time.process_time()

    def free(self) -> bool:
        return self._ready and bool(self._free)

    def submit(self, cohort: Cohort, task: Task) -> None:
        node, seconds = self._free.pop(), seconds_of(task)
        self._on_node[node][id(cohort)] = (cohort, self.now)
        for i in range(1, EPOCHS):
            self._push(self.now + seconds * i / EPOCHS, node, cohort, EpochDone(len(task.trials)))
        self._push(self.now + seconds, node, cohort, None, task)

    def _push(self, at: float, node: int, cohort: Cohort | None, event: Event | None, task: Task | None = None) -> None:
        self._order += 1
        heapq.heappush(self._due, _Due(at, self._order, node, cohort, event, task, self.now))

    def wait(self, hear: Hear, seconds: float | None) -> None:
        if not self._ready:
            self._ready = True
            hear(None, Ready(ENVIRONMENT))
            return
        due = heapq.heappop(self._due)
        self.now = max(self.now, due.at)
        running = self._on_node[due.node].get(id(due.cohort), (None, -1.0)) == (due.cohort, due.since)
        event = Finished(records(due.task)) if due.task and running else due.event
        begun = time.process_time()  # making records is the workers' time
        if due.cohort is None:
            self._fail(due.node, hear)
        elif running and event:
            if isinstance(event, Finished):
                del self._on_node[due.node][id(due.cohort)]
                self._free.append(due.node)
                self.busy += due.at - due.since
            hear(due.cohort, event)
        took = time.process_time() - begun
        self.driver_seconds += took
        self.now += took  # the driver does one thing at a time

    def _fail(self, node: int, hear: Hear) -> None:
        lost = list(self._on_node[node].values())
        self._on_node[node].clear()
        self._free += [node] * len(lost)  # a new machine of the same kind, at once
        self.lost += len(lost)
        self._push(self.now + random.expovariate(1 / self._mean), node, None, None)
        for cohort, _ in lost:
            hear(cohort, Died("its machine failed"))


def with_accounts(trials: int, dataset: Dataset, workers: int, go: Callable[[list[Cohort], Accounts], Any]) -> Any:
    """What `go` returns on the cohorts and the accounts of a study in a new store."""
    study = study_of(trials)
    with tempfile.TemporaryDirectory(prefix="fanin-sim-") as folder, Store.create(Path(folder)) as store:
        store.put_study(study, {"name": dataset.name, "fingerprint": dataset.fingerprint})
        accounts = Accounts([study], dataset, store, Watcher(), frozenset())
        cohorts = plan(accounts.missing(), features=784, classes=10, workers=workers)
        accounts.begin(cohorts)
        return go(cohorts, accounts)


def simulate(trials: int, nodes: int, hours: float, dataset: Dataset) -> str:
    """A row of the table: one study on so many machines."""
    executor = SimulatedExecutor(nodes, hours)

    def go(cohorts: list[Cohort], accounts: Accounts) -> int:
        dispatch(executor, cohorts, accounts, Deadline(None))
        return accounts.result().ran

    ran = with_accounts(trials, dataset, executor.workers, go)
    ideal = executor.busy / min(executor.workers, ran)
    return (
        f"{nodes:>6} {executor.workers:>8} {ran:>8} {executor.lost:>6} {executor.now:>11.0f} {ideal:>9.0f} "
        f"{executor.now / ideal - 1:>8.1%} {executor.driver_seconds / executor.now:>8.1%} "
        f"{1e3 * executor.driver_seconds / ran:>10.2f}"
    )


class _Nobody:
    """A process that need not be ended."""

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int:
        return 0


class SimulatedPool(Pool):
    """Pipes whose other ends one process holds, which answers as so many workers would."""

    def __init__(self, jobs: int) -> None:
        self._ends: list[Connection] = []
        super().__init__(None, jobs)  # type: ignore[arg-type] - no worker is set up
        self._child = os.fork()
        if self._child == 0:
            for handle in self._handles:
                handle.connection.close()
            _answer(self._ends)
            os._exit(0)
        for end in self._ends:
            end.close()

    def _start(self) -> Handle:
        ours, theirs = Pipe()
        self._ends.append(theirs)
        return Handle(_Nobody(), ours)  # type: ignore[arg-type] - stands for a process

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        os.waitpid(self._child, 0)


def _answer(ends: list[Connection]) -> None:
    """Be all workers, until the driver is gone."""
    due: list[tuple[float, int, Any]] = []
    for i, end in enumerate(ends):
        end.send(Ready(ENVIRONMENT))
        heapq.heappush(due, (float("inf"), i, None))
    order = len(ends)
    try:
        while True:
            first = due[0][0] - time.monotonic()
            for end in wait(ends, max(0.0, min(first, 1.0))):
                task = end.recv()  # type: ignore[union-attr] - of connections, wait returns such
                now, seconds = time.monotonic(), seconds_of(task)
                for epoch in range(1, EPOCHS):
                    order += 1
                    heapq.heappush(due, (now + seconds * epoch / EPOCHS, order, (end, EpochDone(len(task.trials)))))
                order += 1
                heapq.heappush(due, (now + seconds, order, (end, task)))
            while due[0][0] <= time.monotonic():
                _, _, (end, what) = heapq.heappop(due)
                end.send(Finished(records(what)) if isinstance(what, Task) else what)
    except (EOFError, ConnectionError):
        return


def overhead(workers: int, seconds: float, dataset: Dataset) -> str:
    """The driver's share of one core while so many workers train Lab 9's trials."""
    executor = LocalExecutor(dataset, "cpu", workers)
    usage: list[float] = []

    def go(cohorts: list[Cohort], accounts: Accounts) -> int:
        with SimulatedPool(workers) as pool:
            executor._pool = pool
            time.sleep(min(5.0, seconds / 4))
            begun, clock = time.process_time(), time.monotonic()
            try:
                dispatch(executor, cohorts, accounts, Deadline(seconds))
            except TimeUp:
                usage.append((time.process_time() - begun) / (time.monotonic() - clock))
        return accounts.result().ran

    ran = with_accounts(int(workers * max(3.0, 2 * seconds / TRIAL_SECONDS)), dataset, workers, go)
    return f"{workers} workers, {ran} trials recorded: the driver took {statistics.mean(usage):.1%} of one core"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--hours", type=float, default=24.0, help="mean time between a machine's failures")
    parser.add_argument("--pipes", type=int, help="measure the driver's share of a core with so many workers instead")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    random.seed(0)
    dataset = load("digits")
    if options.pipes:
        print(overhead(options.pipes, options.seconds, dataset))
        return
    print(" nodes  workers   trials   lost  makespan s   ideal s  over it   driver  ms a trial")
    for nodes in options.nodes:
        print(simulate(options.trials, nodes, options.hours, dataset), flush=True)


if __name__ == "__main__":
    main()
