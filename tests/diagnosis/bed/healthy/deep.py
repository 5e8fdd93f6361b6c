"""Healthy deep networks: well initialised, normalised, or with ways around."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, healthy
from tests.diagnosis.bed.data import batches, standardised
from tests.diagnosis.bed.judges import accuracy
from tests.diagnosis.bed.models import ResidualBlock, perceptron


@healthy
def relu_of_twelve_he() -> Setup:
    """Twelve ReLU layers, He's initialisation."""
    d = standardised(data.digits())
    model = perceptron(64, *[64] * 12, 10)
    for layer in model[:-1:2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-4), accuracy(d))


@healthy
def tanh_of_fifteen_orthogonal() -> Setup:
    """Fifteen tanh layers, orthogonal weights near the critical gain."""
    d = standardised(data.digits())
    model = perceptron(64, *[64] * 15, 10, activation=nn.Tanh)
    for layer in model[:-1:2]:
        nn.init.orthogonal_(layer.weight, gain=1.05)
        nn.init.zeros_(layer.bias)
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=15)


@healthy
def residual_of_ten() -> Setup:
    """Ten residual blocks behind a linear layer."""
    d = data.digits()
    blocks = [ResidualBlock(32) for _ in range(10)]
    model = nn.Sequential(nn.Linear(64, 32), *blocks, nn.LayerNorm(32), nn.Linear(32, 10))
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d), budget=10)


@healthy
def residual_from_zero() -> Setup:
    """Residual branches whose last layers start at zero: the network starts as a linear one."""
    d = data.digits()
    blocks = [ResidualBlock(48, nn.BatchNorm1d) for _ in range(5)]
    for block in blocks:
        nn.init.zeros_(block.fc2.weight)
        nn.init.zeros_(block.fc2.bias)
    model = nn.Sequential(nn.Linear(64, 48), *blocks, nn.ReLU(), nn.Linear(48, 10))
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d), budget=10)


@healthy
def scaled_branches() -> Setup:
    """Residual branches by a learned factor that starts at zero (ReZero)."""
    d = data.digits()

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.alpha = nn.Linear(48, 48), nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.alpha * torch.relu(self.fc(x))

    model = nn.Sequential(nn.Linear(64, 48), *(Branch() for _ in range(8)), nn.Linear(48, 10))
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))


@healthy
def batch_norm_of_eight() -> Setup:
    """Eight layers with batch normalisation, PyTorch's own initialisation."""
    d = data.digits()
    layers: list[nn.Module] = []
    for before in [64] * 8:
        layers += [nn.Linear(before, 64), nn.BatchNorm1d(64), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    return Setup(
        model, batches(d, 64), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d), budget=15
    )


@healthy
def default_of_five() -> Setup:
    """Five ReLU layers as PyTorch initialises them: small signals at birth, and Adam does not mind."""
    d = data.digits()
    model = perceptron(64, *[64] * 5, 10)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))


@healthy
def dense_connections() -> Setup:
    """Every layer sees all that came before (torch.cat)."""
    d = data.digits()

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(64 + 16 * i, 16) for i in range(5))
            self.head = nn.Linear(64 + 16 * 5, 10)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.cat([x, torch.relu(layer(x))], 1)
            return self.head(x)

    model = Dense()
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))


@healthy
def gated_highway() -> Setup:
    """Six highway layers: sigmoid gates whose bias starts at -1."""
    d = data.digits()

    class Highway(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.change, self.gate = nn.Linear(width, width), nn.Linear(width, width)
            nn.init.constant_(self.gate.bias, -1.0)

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.gate(x))
            return gate * torch.relu(self.change(x)) + (1 - gate) * x

    model = nn.Sequential(nn.Linear(64, 40), *(Highway(40) for _ in range(6)), nn.Linear(40, 10))
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=3e-3), accuracy(d))
