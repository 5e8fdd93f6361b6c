"""The competitors: each trains the same network for one epoch of the same data, as its users would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fanin.datasets import Dataset, open_shared
from fanin.driver.plan import stack_size
from fanin.engine import matmul
from fanin.engine.data import Data
from fanin.engine.train import train
from fanin.recipe import Recipe, Trial
from stopwatch import Done, Stopwatch

BATCH, LR, HIDDEN = 100, 0.001, (256, 256)
WARM_UP = 20  # steps

_OPTIONS = {
    "init": "xavier_uniform",
    "optimizer": {"name": "adam", "lr": LR},
    "batch_size": BATCH,
    "epochs": 2,
}
NN = Recipe.from_dict({"hidden": list(HIDDEN), **_OPTIONS})
DEEP = Recipe.from_dict({"hidden": "512x4", **_OPTIONS})


@dataclass(frozen=True)
class Way:
    """One competitor, as plain data that travels to a process; calling it does one epoch.

    train: a function below; steps: those of an epoch; path: the matmul path fanin takes on this machine.
    """

    train: Callable[[Way, Stopwatch], Done]
    steps: int
    path: str
    seed: int = 0
    recipe: Recipe = NN

    def __call__(self, watch: Stopwatch) -> Done:
        """One epoch, on torch's default settings unless the function changes them."""
        matmul.use("blas")
        torch.set_flush_denormal(False)
        torch.manual_seed(self.seed)
        return self.train(self, watch)


_DATA: list[Dataset] = []


def settle(folder: Path, threads: int) -> None:
    """Prepare this process: its threads, and the data every way reads."""
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    _DATA.append(open_shared(folder))


@cache
def in_memory() -> tuple[Tensor, Tensor]:
    """Training inputs (N, D) as float32 in training's scale, and labels."""
    data = _DATA[0]
    return torch.from_numpy(data.train.inputs) * data.scale, torch.from_numpy(data.train.labels)


# --- fanin


def fanin(way: Way, watch: Stopwatch) -> Done:
    """fanin's training loop, with its probe and its test set cut to one batch: the peers measure neither."""
    return _fanin(way, watch, tests=BATCH)


def fanin_whole(way: Way, watch: Stopwatch) -> Done:
    """The same with everything fanin does in an epoch: the test set twice (scaled, unscaled), the probe."""
    return _fanin(way, watch, tests=None)


def _fanin(way: Way, watch: Stopwatch, *, tests: int | None) -> Done:
    matmul.use(way.path)
    torch.set_flush_denormal(True)
    data = Data.of(_DATA[0], torch.device("cpu"))
    rows = way.steps * BATCH
    data = replace(
        data,
        train_inputs=data.train_inputs[:rows],
        train_labels=data.train_labels[:rows],
        test_inputs=data.test_inputs[:tests],
        test_labels=data.test_labels[:tests],
    )
    members = stack_size(way.recipe, data.features, data.classes)
    trials = [Trial(way.recipe, way.seed * members + m) for m in range(members)]

    def on_epoch(epoch: int) -> None:
        # the first epoch is the warm-up: what is measured is the real loop, into which no stopwatch reaches
        if epoch == 1:
            watch.start()
        else:
            watch.stop()

    outcomes = train(trials, [str(trial.seed) for trial in trials], data, on_epoch=on_epoch)
    return Done(members, fmean(outcome.record.epochs[-1].train_cost for outcome in outcomes))


# --- PyTorch


def notes(way: Way, watch: Stopwatch) -> Done:
    """The course's loop: pictures one by one through PIL and ToTensor, a DataLoader, default Adam."""
    loader = DataLoader(Pictures(_DATA[0]), batch_size=BATCH, shuffle=True, drop_last=True)
    model = _sequential(_DATA[0])
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    return _epoch(way, watch, model, optimizer, lambda: ((x.view(len(x), -1), y) for x, y in loader))


def eager(way: Way, watch: Stopwatch) -> Done:
    """Tensors in memory, a batch by index, default Adam."""
    model = _sequential(_DATA[0])
    return _epoch(way, watch, model, torch.optim.Adam(model.parameters(), lr=LR), _batches)


def fused(way: Way, watch: Stopwatch) -> Done:
    """The same with fanin's switches: matmul path, fused Adam, denormals flushed. The rest is the engine."""
    matmul.use(way.path)
    torch.set_flush_denormal(True)
    model = _sequential(_DATA[0])
    return _epoch(way, watch, model, torch.optim.Adam(model.parameters(), lr=LR, fused=True), _batches)


class Pictures(TorchDataset):
    """What torchvision.datasets.MNIST with transforms.ToTensor does for each picture."""

    def __init__(self, data: Dataset) -> None:
        height, width = data.image_shape or (1, data.train.inputs.shape[1])
        self._pictures = torch.from_numpy(data.train.inputs).view(-1, height, width)
        self._labels = torch.from_numpy(data.train.labels)
        self._levels = 1 / data.scale

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        picture, label = Image.fromarray(self._pictures[i].numpy()), int(self._labels[i])
        pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
        pixels = pixels.view(picture.size[1], picture.size[0], 1).permute((2, 0, 1)).contiguous()
        return pixels.to(dtype=torch.float32).div(self._levels), label


def _sequential(data: Dataset) -> nn.Sequential:
    sizes = (data.train.inputs.shape[1], *HIDDEN, data.n_classes)
    modules: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        modules += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        nn.init.xavier_uniform_(modules[-2].weight)
    return nn.Sequential(*modules[:-1])


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    inputs, labels = in_memory()
    for rows in torch.randperm(len(labels)).split(BATCH):
        yield inputs[rows], labels[rows]


def _epoch(
    way: Way,
    watch: Stopwatch,
    model: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
) -> Done:
    _steps(model, optimizer, islice(batches(), WARM_UP))
    watch.start()
    loss = _steps(model, optimizer, islice(batches(), way.steps))
    watch.stop()
    return Done(1, loss)


def _steps(model: nn.Sequential, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    total, count = torch.zeros(()), 0
    for count, (inputs, labels) in enumerate(batches, 1):  # noqa: B007 - the last is the number of steps
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return float(total) / count


# --- scikit-learn


def sklearn(way: Way, watch: Stopwatch) -> Done:
    """MLPClassifier; `partial_fit` is one epoch of `fit` without its warning that one is too few."""
    inputs, labels = (t.numpy() for t in in_memory())
    model = MLPClassifier(
        HIDDEN,
        solver="adam",
        batch_size=BATCH,
        learning_rate_init=LR,
        alpha=0.0,
        max_iter=1,
        random_state=way.seed,
    )
    rows = WARM_UP * BATCH
    model.partial_fit(inputs[:rows], labels[:rows], classes=np.unique(labels))
    rows = way.steps * BATCH
    watch.start()
    model.partial_fit(inputs[:rows], labels[:rows])
    watch.stop()
    return Done(1, float(model.loss_))
