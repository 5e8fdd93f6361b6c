"""The plain loop that the proof trains with: nothing in it is fanin's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.diagnosis.bed.case import Setup
from tests.diagnosis.bed.judges import WORST

BATCH = 32  # where a set-up gives data without saying how it is cut


def batches_of(data: Any) -> DataLoader:
    """A loader as it is; a dataset, or tensors (X, y), in shuffled batches of 32."""
    if isinstance(data, DataLoader):
        return data
    return DataLoader(data if isinstance(data, Dataset) else TensorDataset(*data), batch_size=BATCH, shuffle=True)


def epoch_of(loader: DataLoader) -> Iterator[list[Tensor]]:
    """One pass over the loader's batches; tensors are cut whole, which takes half the time and gives the same."""
    dataset = loader.dataset
    if not isinstance(dataset, TensorDataset):
        yield from loader
        return
    for rows in loader.batch_sampler:
        yield [tensor[rows] for tensor in dataset.tensors]


def train(setup: Setup) -> None:
    """Epochs of forward, backward, step. The model stays in the mode in which it was handed over."""
    optimizer = setup.optimizer
    if not isinstance(optimizer, Optimizer):
        optimizer = optimizer(setup.model.parameters())
    loader = batches_of(setup.data)
    for _ in range(setup.training):
        for x, y in epoch_of(loader):
            optimizer.zero_grad()
            setup.loss(setup.model(x), y).backward()
            optimizer.step()


def trained_score(setup: Setup, seed: int = 0) -> float:
    """Held-out score after the set-up's own epochs; the worst there is where the program raises."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            train(setup)
            return setup.judge.score(setup.model)
        except (RuntimeError, ValueError, IndexError):  # what torch raises for shapes and labels that do not fit
            return WORST
