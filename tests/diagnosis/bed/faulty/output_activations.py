"""Last activations that do not fit the loss: the most frequent fault of real programs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, RMSprop

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, faulty
from tests.diagnosis.bed.data import batches, column, own_targets, pictures, standard_targets, standardised
from tests.diagnosis.bed.judges import accuracy, labels_right, r_squared
from tests.diagnosis.bed.models import Autoencoder, Recurrent, perceptron


@faulty("output-activation")
def softmax_then_cross_entropy(mended: bool) -> Setup:
    """A softmax layer before CrossEntropyLoss, which has its own."""
    d = data.digits()
    last = nn.Identity() if mended else nn.Softmax(dim=1)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10), last)
    optimizer = SGD(model.parameters(), lr=0.1)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=15)


@faulty("output-activation")
def softmax_in_a_cnn(mended: bool) -> Setup:
    """functional.softmax at the end of forward, cross-entropy outside; SGD with momentum."""
    d = pictures(data.digits())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)
            self.fc1, self.fc2 = nn.Linear(16 * 16, 64), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.conv2(functional.relu(self.conv1(x)))).flatten(1)
            x = self.fc2(functional.relu(self.fc1(x)))
            return x if mended else functional.softmax(x, dim=1)

    model = Net()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=6)


@faulty("output-activation")
def softmax_then_cross_entropy_wine(mended: bool) -> Setup:
    """The same on wine's three classes, tensors (X, y), evaluation data beside it."""
    d = standardised(data.wine())
    model = perceptron(13, 32, 3)
    if not mended:
        model.append(nn.Softmax(dim=-1))
    optimizer = SGD(model.parameters(), lr=0.02)
    return Setup(model, (d.x, d.y), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test, budget=12)


@faulty("output-activation")
def sigmoid_then_cross_entropy(mended: bool) -> Setup:
    """A sigmoid on each of ten scores, then cross-entropy."""
    d = data.digits()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(64, 64), nn.Linear(64, 32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.fc2(functional.relu(self.fc1(x))))
            return self.fc3(x) if mended else torch.sigmoid(self.fc3(x))

    model = Net()
    optimizer = SGD(model.parameters(), lr=0.1)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=15)


@faulty("output-activation", "dead-units")
def relu_then_cross_entropy(mended: bool) -> Setup:
    """ReLU behind every layer, the last one too: scores under zero get no gradient."""
    d = standardised(data.blobs())
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    if not mended:
        model.append(nn.ReLU())
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=0.01), accuracy(d))


@faulty("output-activation", "loss")
def raw_scores_into_nll(mended: bool) -> Setup:
    """NLLLoss on raw scores: the loss goes under zero and down without end."""
    d = data.digits()
    model = perceptron(64, 64, 10)
    if mended:
        model.append(nn.LogSoftmax(dim=1))
    return Setup(model, batches(d, 32), nn.NLLLoss(), Adam(model.parameters(), lr=1e-3), accuracy(d))


@faulty("output-activation", "loss")
def softmax_into_nll(mended: bool) -> Setup:
    """NLLLoss on probabilities, whose logarithm was forgotten."""
    d = data.digits()
    model = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 10))
    model.append(nn.LogSoftmax(dim=1) if mended else nn.Softmax(dim=1))
    optimizer = SGD(model.parameters(), lr=0.05)
    return Setup(model, batches(d, 32), nn.NLLLoss(), optimizer, accuracy(d), epochs=12)


@faulty("output-activation", "loss")
def raw_scores_into_bce(mended: bool) -> Setup:
    """BCELoss on raw scores: PyTorch refuses what is outside [0, 1]."""
    d = column(standardised(data.cancer()))
    model = perceptron(30, 16, 1)
    if mended:
        model.append(nn.Sigmoid())
    judge = accuracy(d, cut=0.5)
    return Setup(model, batches(d, 32), nn.BCELoss(), Adam(model.parameters(), lr=3e-3), judge)


@faulty("output-activation", "loss")
def sigmoid_then_bce_with_logits(mended: bool) -> Setup:
    """A sigmoid before BCEWithLogitsLoss; read as the logits that it takes them for, all are positive."""
    d = column(standardised(data.rare()))
    model = perceptron(12, 16, 1)
    if not mended:
        model.append(nn.Sigmoid())
    judge = accuracy(d, reference=0.88)
    return Setup(
        model,
        batches(d, 32),
        nn.BCEWithLogitsLoss(),
        Adam(model.parameters(), lr=3e-3),
        judge,
        eval_data=d.test,
        budget=30,
    )


@faulty("output-activation", "loss")
def sigmoid_then_bce_with_logits_moons(mended: bool) -> Setup:
    """The same on two moons by SGD: it learns, but far more slowly."""
    d = column(data.moons())
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
    loss = nn.BCELoss() if mended else nn.BCEWithLogitsLoss()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Setup(model, batches(d, 32), loss, optimizer, accuracy(d, cut=0.5), budget=12)


@faulty("output-activation", "output-shape")
def softmax_of_one_unit(mended: bool) -> Setup:
    """Softmax over a single output: always one."""
    d = column(standardised(data.cancer()))
    model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1))
    model.append(nn.Sigmoid() if mended else nn.Softmax(dim=1))
    return Setup(model, batches(d, 32), nn.BCELoss(), Adam(model.parameters(), lr=3e-3), accuracy(d, cut=0.5))


@faulty("output-activation", "output-shape")
def softmax_of_one_unit_mse(mended: bool) -> Setup:
    """The same under squared error and momentum."""
    d = column(data.moons())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))
            return x.sigmoid() if mended else x.softmax(-1)

    model = Net()
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, accuracy(d, cut=0.5), budget=30)


@faulty("output-activation")
def softmax_over_the_batch(mended: bool) -> Setup:
    """Softmax over dim 0, the batch, and cross-entropy behind it."""
    d = data.digits()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc2(functional.relu(self.fc1(x)))
            return x if mended else functional.softmax(x, dim=0)

    model = Net()
    optimizer = SGD(model.parameters(), lr=0.1)
    return Setup(model, batches(d, 32), functional.cross_entropy, optimizer, accuracy(d), budget=15)


@faulty("output-activation", "label-range")
def sigmoid_for_raw_targets(mended: bool) -> Setup:
    """Targets of 14 +- 5, and a sigmoid at the end of the regression."""
    d = column(data.friedman())
    model = perceptron(10, 64, 64, 1)
    if not mended:
        model.append(nn.Sigmoid())
    return Setup(
        model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d, reference=0.9), budget=40
    )


@faulty("output-activation")
def relu_for_signed_targets(mended: bool) -> Setup:
    """Standardised targets, half of them negative, and a ReLU at the end."""
    d = column(standard_targets(data.friedman()))
    model = perceptron(10, 64, 1)
    if not mended:
        model.append(nn.ReLU())
    optimizer = Adam(model.parameters(), lr=5e-3)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d), eval_data=d.test, budget=40)


@faulty("output-activation", "label-range")
def tanh_for_wide_targets(mended: bool) -> Setup:
    """Targets between -4 and 4, tanh at the end."""
    d = data.sine()
    d = d.targets(4 * d.y, 4 * d.y_test)
    model = perceptron(1, 48, 48, 1, activation=nn.Tanh)
    if not mended:
        model.append(nn.Tanh())
    return Setup(model, (d.x, d.y), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d), budget=60)


@faulty("output-activation", "label-range")
def sigmoid_on_sums(mended: bool) -> Setup:
    """An LSTM that adds signed numbers, read through a sigmoid."""
    d = data.sums()

    class Adder(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            total = super().forward(x)
            return total if mended else torch.sigmoid(total)

    model = Adder(nn.LSTM, 1, 24, 1)
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=1e-2), r_squared(d), budget=12)


@faulty("output-activation", "input-scale")
def sigmoid_autoencoder_of_standardised(mended: bool) -> Setup:
    """An autoencoder that ends in a sigmoid, on standardised inputs."""
    d = standardised(data.cancer())
    d = own_targets(d, 0.75)
    model = Autoencoder(30, 32, 8, nn.Identity() if mended else nn.Sigmoid())
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d), budget=30)


@faulty("output-activation")
def softmax_on_labels(mended: bool) -> Setup:
    """Six labels that may hold together, through a softmax: they must share one."""
    d = data.labelled()
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 6))
    model.append(nn.Sigmoid() if mended else nn.Softmax(dim=1))
    return Setup(model, batches(d, 32), nn.BCELoss(), Adam(model.parameters(), lr=3e-3), labels_right(d, cut=0.5))


@faulty("output-activation")
def tanh_on_classes(mended: bool) -> Setup:
    """Tanh and softmax behind the scores of three waves, cross-entropy behind those: none is ever sure."""
    d = data.waves()

    class Teller(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x)
            return scores if mended else functional.softmax(torch.tanh(scores), dim=1)

    model = Teller(nn.GRU, 1, 24, 3)
    optimizer = RMSprop(model.parameters(), lr=2e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=8)
