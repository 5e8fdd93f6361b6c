"""A way to train: what every competitor is told, and the data that all of them read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from fanin.datasets import Dataset, open_shared
from fanin.engine import matmul
from fanin.engine.data import Data
from fanin.recipe import Recipe
from stopwatch import Done, Stopwatch

BATCH, LR, HIDDEN = 100, 0.001, (256, 256)
WARM_UP = 20  # steps

_OPTIONS = {"init": "xavier_uniform", "optimizer": {"name": "adam", "lr": LR}, "batch_size": BATCH, "epochs": 2}
NN = Recipe.from_dict({"hidden": list(HIDDEN), **_OPTIONS})
NN_BF16 = Recipe.from_dict({"hidden": list(HIDDEN), "precision": "bf16", **_OPTIONS})
DEEP = Recipe.from_dict({"hidden": "512x4", **_OPTIONS})


@dataclass(frozen=True)
class Way:
    """One competitor, as plain data that travels to a process; calling it does the work.

    train: "module:function", loaded only in the process that trains, since not everybody has every library.
    steps: those of an epoch; path: the matmul path fanin takes on this machine; epochs: of a complete arm;
    members, precision: of the ways that have a choice. fanin's are in its recipe.
    """

    train: str
    steps: int
    path: str
    seed: int = 0
    recipe: Recipe = NN
    members: int = 1
    precision: str = "float32"
    epochs: int = 1

    def __call__(self, watch: Stopwatch) -> Done:
        """One epoch or one arm, on torch's default settings unless the function changes them."""
        module, _, function = self.train.partition(":")
        train = getattr(import_module(module), function)
        matmul.use("blas")
        torch.set_flush_denormal(False)
        torch.manual_seed(self.seed)
        return train(self, watch)


_DATA: list[Dataset] = []


def settle(folder: Path, threads: int) -> None:
    """Prepare this process: its threads, and the data every way reads."""
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    _DATA.append(open_shared(folder))


def dataset() -> Dataset:
    """The data set as stored: bytes, and what a byte is worth."""
    return _DATA[0]


@cache
def in_memory() -> tuple[Tensor, Tensor]:
    """Training inputs (N, D) as float32 in training's scale, and labels."""
    data = dataset()
    return torch.from_numpy(data.train.inputs) * data.scale, torch.from_numpy(data.train.labels)


def cut(data: Data, steps: int, tests: int | None) -> Data:
    """The data of the first steps of an epoch, and the first tests (None: all)."""
    rows = steps * BATCH
    return replace(
        data,
        train_inputs=data.train_inputs[:rows],
        train_labels=data.train_labels[:rows],
        test_inputs=data.test_inputs[:tests],
        test_labels=data.test_labels[:tests],
    )
