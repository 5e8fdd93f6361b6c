"""Healthy set-ups with two classes, or with several labels at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, RMSprop

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, healthy
from tests.diagnosis.bed.data import batches, column, standardised
from tests.diagnosis.bed.judges import accuracy, labels_right
from tests.diagnosis.bed.models import perceptron


@healthy
def cancer_logits() -> Setup:
    """Breast cancer, standardised, one raw output and BCEWithLogitsLoss."""
    d = column(standardised(data.cancer()))
    model = perceptron(30, 16, 1)
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), Adam(model.parameters(), lr=3e-3), accuracy(d))


@healthy
def cancer_sigmoid_bce() -> Setup:
    """A sigmoid at the end and BCELoss: they belong together."""
    d = column(standardised(data.cancer()))
    model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
    judge = accuracy(d, cut=0.5)
    return Setup(
        model, batches(d, 32), nn.BCELoss(), Adam(model.parameters(), lr=3e-3), judge, eval_data=d.test, epochs=20
    )


@healthy
def cancer_two_outputs() -> Setup:
    """Two outputs and cross-entropy."""
    d = standardised(data.cancer())
    model = perceptron(30, 32, 2, activation=nn.Tanh)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), SGD(model.parameters(), lr=0.05), accuracy(d))


@healthy
def cancer_logistic_regression() -> Setup:
    """Logistic regression on tensors (X, y)."""
    d = column(standardised(data.cancer()))
    model = nn.Linear(30, 1)
    return Setup(
        model, (d.x, d.y), functional.binary_cross_entropy_with_logits, SGD(model.parameters(), lr=0.1), accuracy(d)
    )


@healthy
def moons_squeezed() -> Setup:
    """Outputs squeezed to (N,) against targets (N,), both by the user's own loss."""
    d = data.moons()
    d = d.targets(d.y.float(), d.y_test.float())
    model = perceptron(2, 32, 32, 1)

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), y)

    return Setup(model, batches(d, 32), loss, Adam(model.parameters(), lr=5e-3), accuracy(d), budget=30)


@healthy
def circles_tanh_rmsprop() -> Setup:
    """A circle in a ring, tanh, RMSprop."""
    d = column(data.circles())
    model = perceptron(2, 16, 16, 1, activation=nn.Tanh)
    optimizer = RMSprop(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), optimizer, accuracy(d), epochs=40)


@healthy
def hinge_on_signs() -> Setup:
    """Targets -1 and 1 with the hinge loss, which wants them so."""
    d = standardised(data.cancer())
    signs = d.targets(2.0 * d.y - 1, d.y_test)
    model = perceptron(30, 16, 1)

    def hinge(outputs: Tensor, y: Tensor) -> Tensor:
        return (1 - y * outputs.squeeze(1)).clamp_min(0).mean()

    return Setup(model, batches(signs, 32), hinge, Adam(model.parameters(), lr=3e-3), accuracy(d))


@healthy
def tanh_on_signs() -> Setup:
    """Targets -1 and 1, tanh at the end, squared error: all of one range."""
    d = data.moons()
    signs = d.targets(2.0 * d.y[:, None] - 1, d.y_test)
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1), nn.Tanh())
    return Setup(model, batches(signs, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), accuracy(d), budget=30)


@healthy
def rare_class_with_weight() -> Setup:
    """One positive in seventeen, BCEWithLogitsLoss with pos_weight."""
    d = column(standardised(data.rare()))
    model = perceptron(12, 24, 1)
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([12.0]))
    return Setup(model, batches(d, 64), loss, AdamW(model.parameters(), lr=5e-3), accuracy(d))


@healthy
def labels_logits() -> Setup:
    """Six labels at once, raw outputs, BCEWithLogitsLoss."""
    d = data.labelled()
    model = perceptron(20, 64, 6)
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), Adam(model.parameters(), lr=3e-3), labels_right(d))


@healthy
def labels_sigmoid() -> Setup:
    """Six labels at once, sigmoids, BCELoss, batch normalisation between."""
    d = data.labelled()
    model = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 6), nn.Sigmoid())
    judge = labels_right(d, cut=0.5)
    return Setup(model, batches(d, 50), nn.BCELoss(), Adam(model.parameters(), lr=3e-3), judge, eval_data=d.test)
