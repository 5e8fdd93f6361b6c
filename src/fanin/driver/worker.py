"""A worker process: one thread, one core, one cohort at a time. Started as `python -m fanin.driver.worker FD`."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # before torch loads

import contextlib
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from fanin.catalogue import STACKED_OPTIMIZERS
from fanin.datasets import Dataset, open_shared
from fanin.driver.messages import Answer, EpochDone, Failed, Finished, Ready, Setup, Task
from fanin.engine import exactness, matmul
from fanin.engine.data import Data
from fanin.engine.environment import environment
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
        self._stack_exactly: dict[tuple[object, ...], bool] = {}  # asked once for each shape

    def train(self, task: Task, say: Callable[[EpochDone], object]) -> Finished:
        """The records of a task's trials, in their order."""
        matmul.use(task.path)
        outcomes: list[Outcome] = []
        for trials, ids in self._stacks(task):
            outcomes += train(trials, ids, self._data, device=self._device, on_epoch=lambda n: say(EpochDone(n)))
        unsaved = None
        for trial, outcome in zip(task.trials, outcomes, strict=True):
            if outcome.record.trial_id in task.keep:
                try:
                    self._save(task, trial, outcome)
                except OSError as error:  # the records are worth more than the parameters
                    unsaved = f"{task.weights}: trained weights cannot be written ({error})"
        return Finished([outcome.record for outcome in outcomes], unsaved)

    def _stacks(self, task: Task) -> list[tuple[list[Trial], list[str]]]:
        """The task in one stack if stacked products are exact here, else every trial alone."""
        recipe = task.trials[0].recipe
        sizes = tuple(widths(recipe, self._data.features, self._data.classes))
        on_a_card = self._device.type == "cuda" and recipe.optimizer.name in STACKED_OPTIMIZERS
        if on_a_card or len(task.trials) == 1 or self._exact(task, sizes):
            return [(task.trials, task.ids)]
        return [([trial], [trial_id]) for trial, trial_id in zip(task.trials, task.ids, strict=True)]

    def _exact(self, task: Task, sizes: tuple[int, ...]) -> bool:
        recipe = task.trials[0].recipe
        sparse = self._data.sparse(recipe) is not None
        key = (task.path, sizes, recipe.batch_size, len(task.trials), recipe.precision, sparse)
        if key not in self._stack_exactly:
            self._stack_exactly[key] = exactness.stacks_exactly(
                sizes,
                recipe.batch_size,
                len(task.trials),
                precision=recipe.precision,
                device=self._device,
                sparse=sparse,
            )
        return self._stack_exactly[key]

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


def preferred_path(device: torch.device) -> str:
    """The matmul path for a device; the choice is the processor's, and on a card its other path would mean TF32."""
    return matmul.choose().path if device.type == "cpu" else "blas"


def explain(error: BaseException) -> str:
    """One line: the error and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(frame.filename)}, line {frame.lineno})"  # noqa: PTH119


def serve(connection: Connection) -> None:
    """Answer the driver until it closes the connection or dies."""
    setup: Setup = connection.recv()
    worker = Worker(setup)

    def say(answer: Answer) -> None:
        connection.send(answer)

    device = torch.device(setup.device)
    matmul.use(preferred_path(device))
    say(Ready(environment(device, members=1)))
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
    with contextlib.suppress(EOFError, ConnectionError):  # the driver is gone
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
