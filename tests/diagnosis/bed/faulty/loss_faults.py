"""Losses that do not fit the task, and outputs that do not fit the targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, RMSprop

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, faulty
from tests.diagnosis.bed.data import batches, column, pictures, standard_targets, standardised
from tests.diagnosis.bed.judges import accuracy, r_squared, rounded
from tests.diagnosis.bed.models import SmallCNN, Transformer, perceptron


@faulty("loss", "output-shape")
def class_numbers_by_squared_error(mended: bool) -> Setup:
    """One output that is to be the digit's number, under squared error."""
    d = data.digits()
    if mended:
        model = perceptron(64, 64, 10)
        return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))
    model = perceptron(64, 64, 1)
    numbers = column(d)
    return Setup(model, batches(numbers, 32), nn.MSELoss(), Adam(model.parameters(), lr=2e-3), rounded(d))


@faulty("loss", "output-shape")
def ten_outputs_one_number(mended: bool) -> Setup:
    """Ten outputs against one number of shape (N, 1) under squared error: all ten learn that number."""
    d = data.digits()
    model = perceptron(64, 64, 10)
    trained, loss = (d, nn.CrossEntropyLoss()) if mended else (column(d), nn.MSELoss())
    return Setup(model, batches(trained, 32), loss, Adam(model.parameters(), lr=1e-3), accuracy(d))


@faulty("loss", "output-shape")
def cross_entropy_for_a_number(mended: bool) -> Setup:
    """CrossEntropyLoss on a continuous target of shape (N, 1): the softmax of one output is one."""
    d = column(standard_targets(data.friedman()))
    model = perceptron(10, 64, 1)
    loss = nn.MSELoss() if mended else nn.CrossEntropyLoss()
    return Setup(model, batches(d, 32), loss, Adam(model.parameters(), lr=5e-3), r_squared(d), budget=40)


@faulty("loss")
def absolute_error_of_one_hot(mended: bool) -> Setup:
    """L1 against one-hot targets: the median of each is zero."""
    d = data.digits()
    hot = d.targets(functional.one_hot(d.y, 10).float(), d.y_test)
    model = perceptron(64, 64, 10)
    loss = nn.CrossEntropyLoss() if mended else nn.L1Loss()
    return Setup(model, batches(hot, 32), loss, Adam(model.parameters(), lr=2e-3), accuracy(d))


@faulty("loss", "optimizer")
def sign_reversed(mended: bool) -> Setup:
    """The mean log-probability, without the minus."""
    d = data.digits()
    model = perceptron(64, 64, 10)

    def loss(scores: Tensor, y: Tensor) -> Tensor:
        right = functional.log_softmax(scores, 1).gather(1, y[:, None]).mean()
        return -right if mended else right

    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Setup(model, batches(d, 32), loss, optimizer, accuracy(d))


@faulty("loss", "frozen-parameters")
def loss_made_anew(mended: bool) -> Setup:
    """The loss's value in a new tensor with requires_grad=True, which silences the error and cuts the graph."""
    d = pictures(data.digits())
    model = SmallCNN()

    def loss(scores: Tensor, y: Tensor) -> Tensor:
        found = functional.cross_entropy(scores, y)
        return found if mended else torch.tensor(found.item(), requires_grad=True)

    return Setup(model, batches(d, 32), loss, Adam(model.parameters(), lr=2e-3), accuracy(d), budget=10)


@faulty("loss", "frozen-parameters", "optimizer")
def loss_of_rounded_outputs(mended: bool) -> Setup:
    """The error of the rounded predictions: steps have no slope."""
    d = column(data.moons())
    model = perceptron(2, 32, 32, 1)
    model.append(nn.Sigmoid())

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return functional.mse_loss(outputs if mended else outputs.round(), y)

    optimizer = Adam(model.parameters(), lr=1e-2)
    return Setup(model, batches(d, 32), loss, optimizer, accuracy(d, cut=0.5), budget=30)


@faulty("loss", "learning-rate-high")
def summed_loss(mended: bool) -> Setup:
    """reduction="sum" in batches of 64 multiplies the rate by 64."""
    d = standardised(data.digits())
    model = perceptron(64, 64, 64, 10)
    loss = nn.CrossEntropyLoss(reduction="mean" if mended else "sum")
    optimizer = SGD(model.parameters(), lr=0.1)
    return Setup(model, batches(d, 64), loss, optimizer, accuracy(d), budget=15)


@faulty("loss", "learning-rate-low", "too-few-epochs", "output-activation", "optimizer")
def squared_error_of_softmax(mended: bool) -> Setup:
    """Squared error between a softmax and one-hot targets by plain SGD: gradients of hundredths."""
    d = data.digits()
    hot = d.targets(functional.one_hot(d.y, 10).float(), d.y_test)
    model = perceptron(64, 64, 10)
    if not mended:
        model.append(nn.Softmax(dim=1))
    loss = nn.CrossEntropyLoss() if mended else nn.MSELoss()
    optimizer = SGD(model.parameters(), lr=0.05)
    return Setup(model, batches(hot, 32), loss, optimizer, accuracy(d), epochs=20)


@faulty("loss")
def loss_of_targets_alone(mended: bool) -> Setup:
    """A loss of the targets alone: the user's own formula forgot the outputs."""
    d = column(standardised(data.cancer()))
    model = perceptron(30, 16, 1)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        chances = torch.sigmoid(logits if mended else 0 * logits + y)
        return functional.binary_cross_entropy(chances, y)

    return Setup(model, batches(d, 32), loss, RMSprop(model.parameters(), lr=2e-3), accuracy(d))


@faulty("output-shape")
def columns_against_rows(mended: bool) -> Setup:
    """Outputs (N, 1) against targets (N,): squared error makes N x N of them, and the best answer is the mean."""
    d = standard_targets(data.friedman())
    model = perceptron(10, 64, 64, 1)
    trained = column(d) if mended else d
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(trained, 32), nn.MSELoss(), optimizer, r_squared(column(d)), budget=40)


@faulty("output-shape")
def columns_against_rows_linear(mended: bool) -> Setup:
    """The same in a linear regression on tensors (X, y), with L1."""
    d = standard_targets(standardised(data.diabetes()))
    model = nn.Linear(10, 1)
    trained = column(d) if mended else d
    optimizer = SGD(model.parameters(), lr=0.02)
    return Setup(model, (trained.x, trained.y), nn.SmoothL1Loss(), optimizer, r_squared(column(d)), budget=40)


@faulty("output-shape", "label-range")
def an_output_too_few(mended: bool) -> Setup:
    """Nine outputs for ten digits."""
    d = data.digits()
    model = perceptron(64, 64, 10 if mended else 9)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))


@faulty("output-shape", "loss")
def one_output_in_cross_entropy(mended: bool) -> Setup:
    """Two classes, one output, CrossEntropyLoss on floats of shape (N, 1): it is zero whatever comes."""
    d = standardised(data.cancer())
    model = perceptron(30, 16, 2 if mended else 1)
    trained = d if mended else column(d)
    judge = accuracy(d)
    return Setup(model, batches(trained, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=3e-3), judge)


@faulty("output-shape", "loss")
def classes_at_the_wrong_axis(mended: bool) -> Setup:
    """(N, T, C) into cross-entropy with T = C = 10: places are taken for classes, and nothing complains."""
    d = data.chain()
    model = nn.Sequential(nn.Embedding(10, 24), nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 10))

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.transpose(1, 2) if mended else outputs, y)

    return Setup(model, batches(d, 32), loss, Adam(model.parameters(), lr=3e-3), accuracy(d), budget=15)


@faulty("output-shape", "layers")
def transformer_not_pooled(mended: bool) -> Setup:
    """The batch flattened into one row of scores by a wrong mean: every example gets the batch's answer."""
    d = data.reviews()

    class Pooled(Transformer):
        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x)
            return scores if mended else scores.mean(0, keepdim=True).expand(len(x), 2)

    model = Pooled(40, 12, 2, depth=1)
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d), budget=10
    )
