"""A worker process: one thread, one core, one cohort at a time. Started as `python -m fanin.driver.worker FD`."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # before torch loads

import contextlib
import signal
import sys
import traceback
from collections.abc import Callable
from functools import cache, partial
from multiprocessing.connection import Connection

import torch

from fanin.datasets import Dataset, open_shared
from fanin.driver.messages import Answer, EpochDone, Failed, Finished, Ready, Setup, Task
from fanin.engine import matmul
from fanin.engine.data import Data
from fanin.engine.export import save_weights
from fanin.engine.ledger import Outcome
from fanin.engine.network import widths
from fanin.engine.train import train
from fanin.recipe import Trial


class Worker:
    """Trains what it is given; `say` sends an answer to the driver."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # Adam's moments of pixels that are never lit decay into denormals
        self._device = torch.device(setup.device)
        self._dataset: Dataset = open_shared(setup.data)
        self._data = Data.of(self._dataset, self._device)

    def train(self, task: Task, say: Callable[[EpochDone], object]) -> Finished:
        """The records of a task's trials, in their order."""
        matmul.use(task.path)
        outcomes: list[Outcome] = []
        for trials, ids in self._stacks(task):
            told = partial(_tell, say, len(trials))
            outcomes += train(trials, ids, self._data, device=self._device, on_epoch=told)
        for trial, outcome in zip(task.trials, outcomes, strict=True):
            if outcome.record.trial_id in task.keep:
                self._save(task, trial, outcome)
        return Finished([outcome.record for outcome in outcomes])

    def _stacks(self, task: Task) -> list[tuple[list[Trial], list[str]]]:
        """The task in one stack if stacked products are exact here, else every trial alone."""
        recipe = task.trials[0].recipe
        sizes = tuple(widths(recipe, self._data.features, self._data.classes))
        if len(task.trials) == 1 or _exact(task.path, sizes, recipe.batch_size, len(task.trials)):
            return [(task.trials, task.ids)]
        return [([trial], [trial_id]) for trial, trial_id in zip(task.trials, task.ids, strict=True)]

    def _save(self, task: Task, trial: Trial, outcome: Outcome) -> None:
        metadata = {
            "trial": outcome.record.trial_id,
            "seed": str(trial.seed),
            "data": self._dataset.name,
            "fingerprint": self._dataset.fingerprint,
            "scale": repr(self._dataset.scale),
        }
        path = task.weights / f"{outcome.record.trial_id}.safetensors"
        save_weights(path, trial.recipe, outcome.state, metadata)


def _tell(say: Callable[[EpochDone], object], members: int, epoch: int) -> None:
    say(EpochDone(epoch, members))


@cache
def _exact(path: str, sizes: tuple[int, ...], batch: int, members: int) -> bool:
    matmul.use(path)
    return matmul.stacks_exactly(list(sizes), batch, members)


def explain(error: BaseException) -> str:
    """One line: the error and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(frame.filename)}, line {frame.lineno})"  # noqa: PTH119


def serve(connection: Connection) -> None:
    """Answer the driver until it closes the connection or dies."""
    worker = Worker(connection.recv())

    def say(answer: Answer) -> None:
        connection.send(answer)

    say(Ready(matmul.choose().path))
    while True:
        task: Task = connection.recv()
        try:
            answer: Answer = worker.train(task, say)
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            answer = Failed(explain(error))
        say(answer)


def main() -> None:
    """Entry point: argv[1] is the inherited file descriptor of the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    with contextlib.suppress(EOFError, ConnectionError):  # the driver is gone
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
