"""Healthy fine-tuning: a trained body, whole, frozen, or under a head of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, healthy
from tests.diagnosis.bed.data import batches, pictures
from tests.diagnosis.bed.judges import accuracy
from tests.diagnosis.bed.models import perceptron
from tests.diagnosis.bed.trained import body, body_with_norm, coarse_digits, whole_cnn


@healthy
def tuned_whole() -> Setup:
    """A trained body and a new head, all trained at a small rate."""
    d = coarse_digits()
    model = nn.Sequential(body(), nn.Linear(48, 5))
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=1e-3), accuracy(d), budget=15
    )


@healthy
def tuned_head_frozen_body() -> Setup:
    """requires_grad=False in the body, the optimiser over the head only."""
    d = coarse_digits()
    model = nn.Sequential(body().requires_grad_(False), nn.Linear(48, 5))
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model[1].parameters(), lr=1e-2), accuracy(d))


@healthy
def tuned_head_only_in_optimizer() -> Setup:
    """The body keeps its gradients; the optimiser holds the head only."""
    d = coarse_digits()
    model = nn.Sequential(body(), nn.Linear(48, 5))
    optimizer = SGD(model[1].parameters(), lr=0.1, momentum=0.9)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test, epochs=20)


@healthy
def tuned_two_rates() -> Setup:
    """The body at a tenth of the head's rate, in two groups."""
    d = coarse_digits()
    model = nn.Sequential(body(), nn.Linear(48, 5))
    groups = [{"params": model[0].parameters(), "lr": 3e-4}, {"params": model[1].parameters(), "lr": 3e-3}]
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), AdamW(groups), accuracy(d))


@healthy
def tuned_under_no_grad() -> Setup:
    """The trained body runs under no_grad in forward; a small network learns on its features."""
    d = coarse_digits()

    class OnFeatures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body().requires_grad_(False)
            self.head = perceptron(48, 32, 5)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.body(x)
            return self.head(features)

    model = OnFeatures()
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.head.parameters(), lr=5e-3), accuracy(d))


@healthy
def tuned_frozen_norm() -> Setup:
    """The trained body's batch normalisation stays in evaluation mode by an own train(), as with small batches."""
    d = coarse_digits()

    class Tuned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body_with_norm().requires_grad_(False)
            self.head = nn.Linear(96, 5)

        def train(self, mode: bool = True) -> Tuned:
            super().train(mode)
            self.body.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    model = Tuned().train()
    return Setup(model, batches(d, 16), nn.CrossEntropyLoss(), Adam(model.head.parameters(), lr=1e-2), accuracy(d))


@healthy
def resumed_training() -> Setup:
    """A network that has already learnt its task, trained on at a small rate: the loss is low and stays so."""
    d = pictures(data.digits())
    model = whole_cnn()
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), SGD(model.parameters(), lr=1e-3), accuracy(d), budget=3)
