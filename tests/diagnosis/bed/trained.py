"""Networks that have been trained before, for set-ups that build on them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.nn import functional
from torch.optim import Adam

from tests.diagnosis.bed import data
from tests.diagnosis.bed.data import Split, batches, pictures
from tests.diagnosis.bed.models import SmallCNN, perceptron


def trained(make: Callable[[], nn.Module], split: Split, epochs: int) -> nn.Module:
    """make() after some epochs of Adam, always on the same random numbers, whatever the seed of the case."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = make()
        optimizer = Adam(model.parameters(), lr=3e-3)
        for _ in range(epochs):
            for x, y in batches(split, 32, drop_last=True):
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
    return model


def coarse_digits() -> Split:
    """Digits in five classes, two by two: what a body that tells all ten is then tuned to."""
    d = data.digits()
    return d.targets(d.y // 2, d.y_test // 2)


@cache
def _of_ten() -> nn.Module:
    """A network that tells ten digits."""
    return trained(lambda: perceptron(64, 96, 48, 10), data.digits(), 6)


@cache
def _with_norm() -> nn.Module:
    """The same with batch normalisation."""

    def layers() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 10))

    return trained(layers, data.digits(), 6)


@cache
def _convolutional() -> nn.Module:
    """A convolutional network that tells ten digits."""
    return trained(SmallCNN, pictures(data.digits()), 10)


def body() -> nn.Module:
    """All but the head of a trained network: 64 inputs, 48 features."""
    return copy.deepcopy(_of_ten())[:-1]


def body_with_norm() -> nn.Module:
    """The same with batch normalisation: 96 features."""
    return copy.deepcopy(_with_norm())[:-1]


def whole_cnn() -> nn.Module:
    """A trained convolutional network, head and all."""
    return copy.deepcopy(_convolutional())
