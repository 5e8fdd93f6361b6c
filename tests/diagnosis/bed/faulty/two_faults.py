"""Programs with two faults: each of the two is a right answer, the one that costs more stands first."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, faulty
from tests.diagnosis.bed.data import batches, column, pictures, standard_targets, standardised
from tests.diagnosis.bed.judges import accuracy, r_squared
from tests.diagnosis.bed.models import Recurrent, SmallCNN, perceptron


@faulty("output-activation", "learning-rate-low")
def softmax_and_a_low_rate(mended: bool) -> Setup:
    """A softmax before cross-entropy, and SGD at .01."""
    d = data.digits()
    model = perceptron(64, 64, 10)
    if not mended:
        model.append(nn.Softmax(dim=1))
    optimizer = SGD(model.parameters(), lr=0.1 if mended else 0.01)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d))


@faulty("input-scale", "too-few-epochs", "learning-rate-low")
def raw_wine_three_epochs(mended: bool) -> Setup:
    """Wine's raw features, and three epochs."""
    d = standardised(data.wine()) if mended else data.wine()
    model = perceptron(13, 32, 3)
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 16), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=25 if mended else 3)


@faulty("loss", "output-activation", "learning-rate-high")
def squared_error_of_relu(mended: bool) -> Setup:
    """Class numbers under squared error, from an output behind ReLU, by SGD at .1."""
    d = data.iris()
    if mended:
        model = perceptron(4, 16, 3)
        return Setup(
            model, batches(d, 16), nn.CrossEntropyLoss(), SGD(model.parameters(), lr=0.1), accuracy(d), budget=40
        )
    model = perceptron(4, 16, 1).append(nn.ReLU())
    numbers = column(d)
    judge = accuracy(d, pick=lambda outputs: -(outputs - outputs.new_tensor([0.0, 1.0, 2.0])).abs())
    return Setup(model, batches(numbers, 16), nn.MSELoss(), SGD(model.parameters(), lr=0.1), judge, budget=40)


@faulty("label-range", "output-activation", "output-shape")
def raw_targets_behind_relu(mended: bool) -> Setup:
    """Targets of 1990 +- 5 of shape (N,) against outputs (N, 1) behind ReLU."""
    d = data.friedman()
    scaled = column(standard_targets(d))
    raw = d.targets(d.y + 1976, d.y_test + 1976)
    model = perceptron(10, 64, 1)
    if not mended:
        model.append(nn.ReLU())
    trained, judge = (scaled, r_squared(scaled)) if mended else (raw, r_squared(raw))
    return Setup(model, batches(trained, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), judge, budget=40)


@faulty("learning-rate-high", "input-scale")
def bytes_at_a_high_rate(mended: bool) -> Setup:
    """Pixels 0..255, and Adam at .1."""
    d = pictures(data.digits() if mended else data.bytes_of_digits())
    model = SmallCNN()
    optimizer = Adam(model.parameters(), lr=2e-3 if mended else 0.1)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=10)


@faulty("layers", "output-activation", "label-range")
def first_step_behind_tanh(mended: bool) -> Setup:
    """Three times a sum behind tanh, read from the state after the first number."""
    d = data.sums()
    d = d.targets(3 * d.y, 3 * d.y_test)

    class Adder(Recurrent):
        def forward(self, x):
            out = self.rnn(x)[0]
            return self.head(out[:, -1]) if mended else self.head(out[:, 0]).tanh()

    model = Adder(nn.GRU, 1, 24, 1)
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=1e-2), r_squared(d), budget=15)


@faulty("symmetry", "optimizer", "init-scale")
def zero_weights_and_heavy_decay(mended: bool) -> Setup:
    """Zero weights, and a weight decay of one half."""
    d = column(data.moons())
    model = perceptron(2, 32, 1)
    if not mended:
        for p in model.parameters():
            nn.init.zeros_(p)
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=0.0 if mended else 0.5)
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), optimizer, accuracy(d), budget=30)
