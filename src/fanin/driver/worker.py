"""A worker: one thread, one core, one cohort at a time. As a process: `python -m fanin.driver.worker FD`."""

from __future__ import annotations

import os
import sys

if "torch" not in sys.modules:  # before it loads; a caller's own process keeps its settings
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import contextlib
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from fanin.datasets import Dataset, open_shared
from fanin.driver import checkpoints
from fanin.driver.deadline import TimeUp
from fanin.driver.fingerprint import KEYS
from fanin.driver.messages import Answer, EpochDone, Failed, Finished, Noticed, Ready, Setup, Task, Word
from fanin.engine import exactness, matmul
from fanin.engine.checkpoint import Checkpoint
from fanin.engine.data import Data
from fanin.engine.environment import environment
from fanin.engine.export import packed
from fanin.engine.ledger import Outcome
from fanin.engine.network import widths
from fanin.engine.train import train
from fanin.errors import FaninError
from fanin.execution import steps_on_card
from fanin.recipe import ENGINE_REVISION, Trial

_SECONDS_BETWEEN_WORDS = 0.1  # small networks finish hundreds of epochs a second, and the driver hears them all


class Worker:
    """Trains what it is given, on one data set."""

    def __init__(self, dataset: Dataset, device: str) -> None:
        _settle()
        self._device = torch.device(device)
        self._dataset = dataset
        self._data = Data.of(dataset, self._device)
        self._stack_exactly: dict[tuple[object, ...], bool] = {}  # asked once for each shape

    def describe(self) -> Ready:
        """What it runs on, with the matmul path it would take."""
        _settle()
        matmul.use(preferred_path(self._device))
        return Ready(environment(self._device, members=1))

    def answer(self, task: Task, say: Callable[[Word], object]) -> Finished | Failed:
        """The task's records, or why there are none; `say` hears of epochs, and what is to be noticed, on the way."""
        try:
            return self.train(task, say)
        except (EOFError, ConnectionError, TimeUp):  # there is nobody to answer to
            raise
        except (Exception, SystemExit) as error:  # a user's network that calls exit() ends its trial, and not the run
            return Failed(explain(error))

    def train(self, task: Task, say: Callable[[Word], object]) -> Finished:
        """The records of a task's trials, in their order."""
        _settle()
        matmul.use(task.path)
        outcomes: list[Outcome] = []
        on_epoch = _gathered(say)
        stacks = self._stacks(task)
        for trials, ids in stacks:
            checkpoint = self._checkpoint(task, ids, len(stacks), say)
            outcomes += train(
                trials,
                ids,
                self._data,
                device=self._device,
                on_epoch=on_epoch,
                checkpoint=checkpoint,
                folder=task.folder,
            )
        kept = {
            outcome.record.trial_id: self._packed(trial, outcome)
            for trial, outcome in zip(task.trials, outcomes, strict=True)
            if outcome.record.trial_id in task.keep
        }
        return Finished([outcome.record for outcome in outcomes], kept)

    def _checkpoint(self, task: Task, ids: list[str], stacks: int, say: Callable[[Word], object]) -> Checkpoint | None:
        """Where a stack of the task, one of so many, leaves its state: at the end too, for it is recorded with them."""
        now = environment(self._device, members=len(ids))
        runs_on = {key: now[key] for key in KEYS} | {"revision": ENGINE_REVISION}
        return checkpoints.of_stack(
            task.checkpoints, ids, share=stacks, runs_on=runs_on, notice=lambda text: say(Noticed(text))
        )

    def _stacks(self, task: Task) -> list[tuple[list[Trial], list[str]]]:
        """The task in one stack if stacked products are exact here, else every trial alone."""
        recipe = task.trials[0].recipe
        sizes = tuple(widths(recipe, self._data.features, self._data.classes))
        on_a_card = self._device.type == "cuda" and steps_on_card(recipe)
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

    def _packed(self, trial: Trial, outcome: Outcome) -> bytes:
        metadata = {
            "trial": outcome.record.trial_id,
            "seed": str(trial.seed),
            "data": self._dataset.name,
            "fingerprint": self._dataset.fingerprint,
            "scale": repr(self._dataset.scale),
        }
        return packed(trial.recipe, outcome.state, metadata)


def _settle() -> None:
    """Settings that are a thread's own, and decide bits and speed: wherever a worker computes, they come first."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # Adam's moments of pixels that are never lit decay into denormals


def _gathered(say: Callable[[EpochDone], object]) -> Callable[[int], None]:
    """Hears of every epoch and says so at once, unless it has just spoken; the last ones stand in the result."""
    members, spoken = 0, -_SECONDS_BETWEEN_WORDS

    def on_epoch(n: int) -> None:
        nonlocal members, spoken
        members, now = members + n, time.monotonic()
        if now - spoken >= _SECONDS_BETWEEN_WORDS:
            say(EpochDone(members))
            members, spoken = 0, now

    return on_epoch


def preferred_path(device: torch.device) -> str:
    """The matmul path for a device; the choice is the processor's, and on a card its other path would mean TF32."""
    return matmul.choose().path if device.type == "cpu" else "blas"


def explain(error: BaseException) -> str:
    """One line: the error and where it was raised; of what the user can mend its own words."""
    words = "; ".join(str(error).splitlines())
    if isinstance(error, FaninError):
        return words
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {words} ({Path(frame.filename).name}, line {frame.lineno})"


def serve(connection: Connection) -> None:
    """Answer the driver until it closes the connection or dies."""
    setup: Setup = connection.recv()
    worker = Worker(open_shared(setup.data), setup.device)

    def say(answer: Answer) -> None:
        connection.send(answer)

    say(worker.describe())
    while True:
        say(worker.answer(connection.recv(), say))


def main() -> None:
    """Entry point: argv[1] is the inherited file descriptor of the connection."""
    with contextlib.suppress(EOFError, ConnectionError):  # the driver is gone
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
