"""Initial weights and depths that let no signal through."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, faulty
from tests.diagnosis.bed.data import batches, column, standard_targets, standardised
from tests.diagnosis.bed.judges import accuracy, r_squared
from tests.diagnosis.bed.models import Recurrent, perceptron


def linears(model: nn.Module) -> list[nn.Linear]:
    """The Linear layers, from the inputs to the outputs."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


@faulty("init-scale", "exploding-gradient", "learning-rate-high")
def normal_weights(mended: bool) -> Setup:
    """Weights from N(0, 1), as torch.randn gives them."""
    d = data.digits()
    model = perceptron(64, 128, 128, 128, 10)
    if not mended:
        for layer in linears(model):
            nn.init.normal_(layer.weight)
    optimizer = SGD(model.parameters(), lr=0.1)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=25)


@faulty("init-scale", "saturation")
def normal_weights_tanh(mended: bool) -> Setup:
    """N(0, 1) in a tanh network: every unit at its end."""
    d = standardised(data.digits())
    model = perceptron(64, 64, 64, 64, 10, activation=nn.Tanh)
    if not mended:
        for layer in linears(model):
            nn.init.normal_(layer.weight)
    optimizer = SGD(model.parameters(), lr=0.02)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=20)


@faulty("init-scale", "vanishing-gradient")
def tiny_weights(mended: bool) -> Setup:
    """Weights from N(0, 1e-3^2), an old default."""
    d = data.digits()
    model = perceptron(64, 64, 64, 64, 10)
    if not mended:
        for layer in linears(model):
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.zeros_(layer.bias)
    optimizer = SGD(model.parameters(), lr=0.1)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d))


@faulty("symmetry", "init-scale")
def zero_weights(mended: bool) -> Setup:
    """All parameters zero."""
    d = data.digits()
    model = perceptron(64, 64, 10)
    if not mended:
        for p in model.parameters():
            nn.init.zeros_(p)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))


@faulty("symmetry", "init-scale")
def constant_weights(mended: bool) -> Setup:
    """All weights .1: the units of a layer are one unit."""
    d = column(data.moons())
    model = perceptron(2, 32, 32, 1, activation=nn.Tanh)
    if not mended:
        for layer in linears(model):
            nn.init.constant_(layer.weight, 0.1)
            nn.init.zeros_(layer.bias)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), optimizer, accuracy(d), budget=40)


@faulty("vanishing-gradient", "init-scale", "saturation")
def eight_sigmoid_layers(mended: bool) -> Setup:
    """Eight sigmoid layers as PyTorch initialises them; mended by ReLU."""
    d = data.digits()
    model = perceptron(64, *[64] * 8, 10, activation=nn.ReLU if mended else nn.Sigmoid)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d, reference=0.90))


@faulty("vanishing-gradient", "init-scale")
def twenty_default_layers(mended: bool) -> Setup:
    """Twenty ReLU layers as PyTorch initialises them: a sixth of the second moment at each; mended by He's."""
    d = standardised(data.digits())
    model = perceptron(64, *[64] * 20, 10)
    if mended:
        for layer in linears(model)[:-1]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    optimizer = SGD(model.parameters(), lr=0.01)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d, reference=0.92), budget=30)


@faulty("exploding-gradient", "init-scale", "learning-rate-high", "non-finite")
def twice_he(mended: bool) -> Setup:
    """Twelve ReLU layers with twice He's deviation: signals grow fourfold in square at each layer."""
    d = standardised(data.digits())
    model = perceptron(64, *[64] * 12, 10)
    for layer in linears(model)[:-1]:
        nn.init.normal_(layer.weight, std=(2 / layer.in_features) ** 0.5 * (1 if mended else 2))
        nn.init.zeros_(layer.bias)
    optimizer = SGD(model.parameters(), lr=0.01)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=20)


@faulty("exploding-gradient", "init-scale", "learning-rate-high", "non-finite")
def rnn_explodes(mended: bool) -> Setup:
    """A ReLU RNN over twenty steps with recurrent weights of twice the identity's size."""
    d = data.waves()
    model = Recurrent(nn.RNN, 1, 24, 3, nonlinearity="relu")
    with torch.no_grad():
        nn.init.orthogonal_(model.rnn.weight_hh_l0, gain=1.0 if mended else 4.0)
    optimizer = Adam(model.parameters(), lr=2e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d, reference=0.95), budget=15)


@faulty("saturation", "init-scale")
def biases_of_twelve(mended: bool) -> Setup:
    """Biases of 12 in sigmoid units: all are at one."""
    d = data.digits()
    model = perceptron(64, 64, 10, activation=nn.Sigmoid)
    if not mended:
        nn.init.constant_(model[0].bias, 12.0)
    optimizer = SGD(model.parameters(), lr=0.5)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=25)


@faulty("dead-units", "init-scale")
def born_dead(mended: bool) -> Setup:
    """Biases of -5 before ReLU: no unit is ever on."""
    d = data.digits()
    model = perceptron(64, 64, 32, 10)
    if not mended:
        for layer in linears(model)[:-1]:
            nn.init.constant_(layer.bias, -5.0)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d))


@faulty("dead-units", "capacity", "vanishing-gradient")
def narrow_and_deep(mended: bool) -> Setup:
    """Width two, twelve ReLU layers, zero biases: dead at birth more often than not; mended by width."""
    d = data.sine()
    width = 32 if mended else 2
    model = perceptron(1, *[width] * (3 if mended else 12), 1)
    for layer in linears(model):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    optimizer = Adam(model.parameters(), lr=5e-3)
    return Setup(model, batches(d, 20), nn.MSELoss(), optimizer, r_squared(d), budget=60)


@faulty("dead-units", "learning-rate-high", "init-scale")
def relu_regression_dies(mended: bool) -> Setup:
    """A first layer pushed under zero by biases of -8 in a regression of standard targets."""
    d = column(standard_targets(standardised(data.friedman())))
    model = perceptron(10, 64, 1)
    if not mended:
        nn.init.constant_(model[0].bias, -8.0)
    optimizer = Adam(model.parameters(), lr=5e-3)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d, reference=0.9), budget=30)


@faulty("non-finite")
def root_of_zero(mended: bool) -> Setup:
    """The distance of a pair by sqrt of a sum that is zero at once: its slope is infinite."""
    d = data.pairs()

    class Distance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = perceptron(64, 64, 16), nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            square = (self.encoder(x[:, 0]) - self.encoder(x[:, 1])).square().sum(1, keepdim=True)
            return self.head((square + (1e-6 if mended else 0.0)).sqrt()).squeeze(1)

    model = Distance()
    same = d.x.clone()
    same[:40, 1] = same[:40, 0]  # some pairs are the same picture twice
    d = d.inputs(same, d.x_test)
    judge = accuracy(d, pick=lambda logits: logits.unsqueeze(1))
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), Adam(model.parameters(), lr=3e-3), judge, budget=12)
