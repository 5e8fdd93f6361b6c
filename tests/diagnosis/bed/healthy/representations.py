"""Healthy autoencoders and embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, healthy
from tests.diagnosis.bed.data import batches, own_targets, standardised
from tests.diagnosis.bed.judges import Judge, accuracy, r_squared
from tests.diagnosis.bed.models import Autoencoder

# Principal components of the digits explain .67 (8 of them), .85 (16) and .28 (2) of the test half's variance.


@healthy
def autoencoder_sigmoid() -> Setup:
    """Pixels in [0, 1], sigmoid at the end, squared error."""
    d = own_targets(data.digits(), 0.85)
    model = Autoencoder(64, 64, 16, nn.Sigmoid())
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d), budget=30)


@healthy
def autoencoder_cross_entropy() -> Setup:
    """Pixels in [0, 1] as probabilities: raw outputs, BCEWithLogitsLoss, whose floor is well over 0."""
    d = own_targets(data.digits(), 0.67)
    model = Autoencoder(64, 64, 8, nn.Identity())
    judge = r_squared(d, pick=torch.sigmoid)
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), Adam(model.parameters(), lr=3e-3), judge, epochs=30)


@healthy
def autoencoder_of_two() -> Setup:
    """A code of two numbers, for a picture: a bottleneck on purpose."""
    d = own_targets(data.digits(), 0.35)
    model = Autoencoder(64, 96, 2, nn.Identity())
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=2e-3), r_squared(d), budget=40)


@healthy
def autoencoder_linear() -> Setup:
    """Two linear layers with nothing between: principal components by gradient descent, on purpose."""
    d = own_targets(data.digits(), 0.67)
    mean = d.x.mean(0)
    d = own_targets(d.inputs(d.x - mean, d.x_test - mean), 0.67)
    model = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 64))
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=3e-3), r_squared(d), budget=30)


@healthy
def autoencoder_denoising() -> Setup:
    """Noise on the inputs (new at every look), clean targets, tied weights, functional layers."""
    d = own_targets(data.digits(), 0.67)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(48, 64) / 8)
            self.up, self.down = nn.Parameter(torch.zeros(48)), nn.Parameter(torch.zeros(64))

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                x = x + 0.2 * torch.randn_like(x)
            code = torch.relu(functional.linear(x, self.weight, self.up))
            return functional.linear(code, self.weight.T, self.down)

    model = Tied()
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=2e-3), r_squared(d), budget=20)


@healthy
def variational_autoencoder() -> Setup:
    """A tuple (outputs, mean, log variance), reconstruction plus divergence."""
    d = own_targets(data.digits(), 0.50)

    class Variational(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.mean, self.spread = nn.Linear(64, 64), nn.Linear(64, 6), nn.Linear(64, 6)
            self.decoder = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            h = torch.relu(self.enter(x))
            mean, spread = self.mean(h), self.spread(h)
            code = mean + torch.randn_like(mean) * (spread / 2).exp() if self.training else mean
            return self.decoder(code), mean, spread

    def loss(outputs: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        made, mean, spread = outputs
        divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()
        return functional.binary_cross_entropy_with_logits(made, x, reduction="sum") / len(x) + 0.5 * divergence

    model = Variational()
    judge = r_squared(d, pick=lambda outputs: torch.sigmoid(outputs[0]))
    return Setup(model, batches(d, 32), loss, Adam(model.parameters(), lr=3e-3), judge, budget=25)


class Twin(nn.Module):
    """One encoder for both of a pair (N, 2, 64); their distance."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.encoder(x[:, 0]), self.encoder(x[:, 1])
        return (left - right).square().sum(1, keepdim=True).add(1e-6).sqrt()


@healthy
def siamese_contrastive() -> Setup:
    """One encoder for two digits, the contrastive loss on their distance."""
    d = data.pairs()

    def loss(distance: Tensor, same: Tensor) -> Tensor:
        distance = distance.squeeze(1)
        return (same * distance.square() + (1 - same) * (1 - distance).clamp_min(0).square()).mean()

    model = Twin()
    judge = accuracy(d, cut=-0.5, pick=torch.neg)
    return Setup(model, batches(d, 32), loss, Adam(model.parameters(), lr=2e-3), judge, budget=15)


@healthy
def siamese_logit() -> Setup:
    """The same pairs by an affine function of the distance and BCEWithLogitsLoss."""
    d = data.pairs()

    class Same(Twin):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 1)
            nn.init.constant_(self.head.weight, -3.0)  # the farther apart, the less they are the same
            nn.init.constant_(self.head.bias, 1.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(super().forward(x)).squeeze(1)

    model = Same()
    judge = Judge(accuracy(d, pick=lambda logits: logits.unsqueeze(1)).score, d.reference)
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), Adam(model.parameters(), lr=3e-3), judge, budget=15)


@healthy
def nearest_prototype() -> Setup:
    """Normalised embeddings, cosine to learned prototypes by a temperature, cross-entropy."""
    d = standardised(data.digits())

    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
            self.prototypes = nn.Parameter(torch.randn(10, 16))

        def forward(self, x: Tensor) -> Tensor:
            return 10 * functional.normalize(self.body(x), dim=1) @ functional.normalize(self.prototypes, dim=1).T

    model = Cosine()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=15)


@healthy
def mixture_of_experts() -> Setup:
    """A softmax inside the network (a gate over experts), raw outputs at its end."""
    d = data.digits()

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(64, 3)
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10)) for _ in range(3)
            )

        def forward(self, x: Tensor) -> Tensor:
            share = self.gate(x).softmax(1).unsqueeze(2)
            return (share * torch.stack([expert(x) for expert in self.experts], 1)).sum(1)

    model = Experts()
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=3e-3), accuracy(d), budget=15
    )
