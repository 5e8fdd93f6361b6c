"""Optimisers that hold the wrong parameters, or whose settings cannot work."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import SGD, Adam

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, faulty
from tests.diagnosis.bed.data import batches, column, pictures, standard_targets, standardised
from tests.diagnosis.bed.judges import accuracy, r_squared
from tests.diagnosis.bed.models import SmallCNN, TokenRecurrent, Transformer, perceptron
from tests.diagnosis.bed.trained import body, coarse_digits


@faulty("optimizer")
def optimizer_of_the_old_layers(mended: bool) -> Setup:
    """Layers are replaced for new data after the optimiser was built: it holds the old ones."""
    d = data.digits()
    model = perceptron(32, 64, 5)
    optimizer = SGD(model.parameters(), lr=0.1)
    model[0], model[2] = nn.Linear(64, 64), nn.Linear(64, 10)
    if mended:
        optimizer = SGD(model.parameters(), lr=0.1)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d))


@faulty("optimizer")
def optimizer_of_another_model(mended: bool) -> Setup:
    """Two models in a notebook, and the optimiser of the first one."""
    d = pictures(data.digits())
    first, model = SmallCNN(), SmallCNN()
    optimizer = Adam(model.parameters() if mended else first.parameters(), lr=2e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=10)


@faulty("optimizer")
def optimizer_of_one_layer(mended: bool) -> Setup:
    """Only the head's parameters are handed over; the body is as it was drawn."""
    d = data.spirals()
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3))
    held = model.parameters() if mended else model[-1].parameters()
    optimizer = Adam(held, lr=5e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=40)


@faulty("optimizer")
def weight_decay_wins(mended: bool) -> Setup:
    """weight_decay=1 in SGD."""
    d = data.digits()
    model = perceptron(64, 64, 10)
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=1e-4 if mended else 1.0)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d))


@faulty("optimizer")
def weight_decay_wins_in_adam(mended: bool) -> Setup:
    """weight_decay=.5 in Adam, which adds it to the gradient."""
    d = column(standard_targets(standardised(data.friedman())))
    model = perceptron(10, 64, 1)
    optimizer = Adam(model.parameters(), lr=5e-3, weight_decay=0.0 if mended else 0.5)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d), epochs=30)


@faulty("optimizer", "learning-rate-high")
def momentum_of_one(mended: bool) -> Setup:
    """momentum=1: nothing is ever forgotten."""
    d = data.digits()
    model = perceptron(64, 64, 10)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9 if mended else 1.0)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d))


@faulty("optimizer", "learning-rate-low")
def eps_of_one(mended: bool) -> Setup:
    """eps=1 in Adam: it divides by one, not by the gradient's size."""
    d = data.reviews()
    model = TokenRecurrent(nn.GRU, 40, 24, 2)
    optimizer = Adam(model.parameters(), lr=5e-3, eps=1e-8 if mended else 1.0)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=12)


@faulty("optimizer", "learning-rate-low", "too-few-epochs")
def transformer_by_plain_sgd(mended: bool) -> Setup:
    """A transformer by SGD without momentum."""
    d = data.reviews()
    model = Transformer(40, 12, 2, depth=1)
    optimizer = Adam(model.parameters(), lr=2e-3) if mended else SGD(model.parameters(), lr=1e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=10)


@faulty("optimizer", "learning-rate-low", "too-few-epochs")
def embeddings_by_plain_sgd(mended: bool) -> Setup:
    """Matrix factorisation from small embeddings by SGD: rows are seen seldom."""
    d = data.ratings()

    class Factors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(60, 4), nn.Embedding(50, 4)
            for table in (self.users, self.items):
                nn.init.normal_(table.weight, std=0.1)

        def forward(self, x: Tensor) -> Tensor:
            return (self.users(x[:, 0]) * self.items(x[:, 1])).sum(1)

    model = Factors()
    optimizer = Adam(model.parameters(), lr=2e-2) if mended else SGD(model.parameters(), lr=0.01)
    judge = r_squared(d, reference=0.85)
    return Setup(model, batches(d, 64), nn.MSELoss(), optimizer, judge, budget=20)


@faulty("optimizer", "frozen-parameters")
def optimizer_of_the_frozen_body(mended: bool) -> Setup:
    """A trained body is frozen, and the optimiser holds that body, not the new head."""
    d = coarse_digits()
    model = nn.Sequential(body().requires_grad_(False), nn.Linear(48, 5))
    held = model[1] if mended else model[0]
    optimizer = Adam(held.parameters(), lr=1e-2)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=15)
