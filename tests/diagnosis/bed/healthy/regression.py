"""Healthy regressions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, RMSprop

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, healthy
from tests.diagnosis.bed.data import batches, column, standard_targets, standardised
from tests.diagnosis.bed.judges import r_squared
from tests.diagnosis.bed.models import perceptron


@healthy
def diabetes_standardised() -> Setup:
    """Inputs and targets standardised; little data, much noise; few epochs."""
    d = column(standard_targets(standardised(data.diabetes())))
    model = perceptron(10, 16, 1)
    optimizer = Adam(model.parameters(), lr=3e-3, weight_decay=1e-2)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d), budget=20)


@healthy
def diabetes_linear() -> Setup:
    """Linear regression by SGD."""
    d = column(standard_targets(standardised(data.diabetes())))
    model = nn.Linear(10, 1)
    return Setup(
        model, (d.x, d.y), nn.MSELoss(), SGD(model.parameters(), lr=0.02), r_squared(d), eval_data=d.test, epochs=30
    )


@healthy
def friedman_adam() -> Setup:
    """Uniform inputs, standard targets, two ReLU layers."""
    d = column(standard_targets(data.friedman()))
    model = perceptron(10, 64, 64, 1)
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=3e-3), r_squared(d), budget=40)


@healthy
def friedman_sgd() -> Setup:
    """Standardised inputs, SGD with momentum, squeezed outputs."""
    d = standard_targets(standardised(data.friedman()))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = perceptron(10, 48, 48, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x).squeeze(-1)

    model = Net()
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d, reference=0.88), budget=30)


@healthy
def friedman_huber() -> Setup:
    """Huber's loss, SiLU, AdamW."""
    d = column(standard_targets(standardised(data.friedman())))
    model = perceptron(10, 64, 1, activation=nn.SiLU)
    return Setup(model, batches(d, 32), nn.HuberLoss(), AdamW(model.parameters(), lr=5e-3), r_squared(d), budget=40)


@healthy
def friedman_absolute() -> Setup:
    """L1 loss on standard targets."""
    d = column(standard_targets(data.friedman()))
    model = perceptron(10, 64, 32, 1)
    return Setup(model, batches(d, 32), nn.L1Loss(), Adam(model.parameters(), lr=3e-3), r_squared(d), epochs=50)


@healthy
def friedman_raw_targets() -> Setup:
    """Targets of 14 +- 5 as they are: near enough to zero for Adam at .01."""
    d = column(data.friedman())
    model = perceptron(10, 64, 64, 1)
    return Setup(model, batches(d, 16), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d), budget=40)


@healthy
def sine_tanh() -> Setup:
    """A sine through tanh units."""
    d = data.sine()
    model = perceptron(1, 48, 48, 1, activation=nn.Tanh)
    return Setup(model, batches(d, 20), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d), budget=50)


@healthy
def sine_bounded_output() -> Setup:
    """Tanh at the end, which reaches all but the noise of the targets."""
    d = data.sine()
    model = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
    return Setup(
        model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d, reference=0.95), budget=50
    )


@healthy
def sine_rmsprop_batch_norm() -> Setup:
    """Batch normalisation in a regression, RMSprop."""
    d = data.sine()
    model = nn.Sequential(
        nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 1)
    )
    optimizer = RMSprop(model.parameters(), lr=2e-3)
    return Setup(model, batches(d, 30), nn.MSELoss(), optimizer, r_squared(d, reference=0.96), budget=50)


@healthy
def shares_by_sigmoid() -> Setup:
    """Targets in [0, 1] and a sigmoid at the end."""
    d = column(data.friedman())
    low, high = d.y.min(), d.y.max()
    d = d.targets((d.y - low) / (high - low), (d.y_test - low) / (high - low))
    model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d), budget=40)


@healthy
def positive_by_softplus() -> Setup:
    """Positive targets and softplus at the end."""
    d = column(data.friedman())
    d = d.targets(d.y.clamp_min(0) / 10, d.y_test.clamp_min(0) / 10)
    model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.Softplus())
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d), budget=40)


@healthy
def counts_by_poisson() -> Setup:
    """Counts, the log rate as output, PoissonNLLLoss. A rate explains only what the counts' own noise leaves: .6."""
    x = torch.rand(1000, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rate = torch.exp(1.2 + x[:, :1] + x[:, 1:2] * x[:, 2:3])
    y = torch.poisson(rate, generator=torch.Generator().manual_seed(1))
    d = data.Split(x[:700], y[:700], x[700:], y[700:], 0.50)
    model = perceptron(4, 32, 32, 1)
    judge = r_squared(d, pick=torch.exp)
    return Setup(model, batches(d, 32), nn.PoissonNLLLoss(), Adam(model.parameters(), lr=3e-3), judge, budget=15)


@healthy
def mean_and_variance() -> Setup:
    """Two heads as a tuple, Gaussian log-likelihood as the user's own loss; it may go under zero."""
    d = data.sine()

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
            self.mean, self.spread = nn.Linear(64, 1), nn.Linear(64, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.body(x)
            return self.mean(h), functional.softplus(self.spread(h)) + 1e-3

    def loss(outputs: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return functional.gaussian_nll_loss(outputs[0], y, outputs[1])

    model = Heads()
    judge = r_squared(d, pick=lambda outputs: outputs[0], reference=0.95)
    return Setup(model, batches(d, 20), loss, Adam(model.parameters(), lr=5e-3), judge, budget=60)


@healthy
def two_tasks_in_a_dict() -> Setup:
    """A dict of two outputs, the sum of two losses."""
    d = standardised(data.friedman())
    d = standard_targets(d)

    class Tasks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(10, 64), nn.ReLU())
            self.value, self.high = nn.Linear(64, 1), nn.Linear(64, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = self.body(x)
            return {"value": self.value(h).squeeze(1), "high": self.high(h).squeeze(1)}

    def loss(outputs: dict[str, Tensor], y: Tensor) -> Tensor:
        high = functional.binary_cross_entropy_with_logits(outputs["high"], (y > 0).float())
        return functional.mse_loss(outputs["value"], y) + 0.3 * high

    model = Tasks()
    judge = r_squared(d, pick=lambda outputs: outputs["value"], reference=0.90)
    return Setup(model, batches(d, 32), loss, Adam(model.parameters(), lr=5e-3), judge, budget=40)


@healthy
def ratings_of_embeddings() -> Setup:
    """Matrix factorisation: two embeddings and their inner product."""
    d = data.ratings()

    class Factors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(60, 4), nn.Embedding(50, 4)
            for table in (self.users, self.items):
                nn.init.normal_(table.weight, std=0.3)

        def forward(self, x: Tensor) -> Tensor:
            return (self.users(x[:, 0]) * self.items(x[:, 1])).sum(1)

    model = Factors()
    optimizer = Adam(model.parameters(), lr=2e-2, weight_decay=1e-4)
    return Setup(model, batches(d, 64), nn.MSELoss(), optimizer, r_squared(d), budget=25)
