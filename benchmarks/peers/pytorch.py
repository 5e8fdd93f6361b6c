"""PyTorch: a loop over tensors in memory, as it comes and with fanin's switches, and the course's own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise

import numpy as np
import torch
import torch._dynamo  # the first optimiser loads it, for more than a second; imports lie before every measurement
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fanin.datasets import Dataset
from fanin.engine import matmul
from stopwatch import Done, Stopwatch
from way import BATCH, HIDDEN, LR, WARM_UP, Way, dataset, in_memory


def notes(way: Way, watch: Stopwatch) -> Done:
    """The course's loop: pictures one by one through PIL and ToTensor, a DataLoader, default Adam."""
    loader = DataLoader(Pictures(dataset()), batch_size=BATCH, shuffle=True, drop_last=True)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    return _epoch(way, watch, model, optimizer, lambda: ((x.view(len(x), -1), y) for x, y in loader))


def eager(way: Way, watch: Stopwatch) -> Done:
    """Tensors in memory, a batch by index, default Adam."""
    model = network()
    return _epoch(way, watch, model, torch.optim.Adam(model.parameters(), lr=LR), _batches)


def fused(way: Way, watch: Stopwatch) -> Done:
    """The same with fanin's switches: matmul path, fused Adam, denormals flushed. The rest is the engine."""
    matmul.use(way.path)
    torch.set_flush_denormal(True)
    model = network()
    return _epoch(way, watch, model, torch.optim.Adam(model.parameters(), lr=LR, fused=True), _batches)


def arm(way: Way, watch: Stopwatch) -> Done:
    """`eager` from the bytes to the trained weights."""
    watch.start()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    for _ in range(way.epochs):
        loss = _steps(model, optimizer, islice(_batches(), way.steps))
    watch.stop()
    return Done(1, loss)


def network() -> nn.Sequential:
    """The network, freshly initialised."""
    sizes = (dataset().train.inputs.shape[1], *HIDDEN, dataset().n_classes)
    modules: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        modules += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        nn.init.xavier_uniform_(modules[-2].weight)
    return nn.Sequential(*modules[:-1])


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
