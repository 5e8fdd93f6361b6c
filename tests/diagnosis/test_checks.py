"""Each cause: a network that has it is told so among the first three, and its mended twin is told nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fanin.diagnosis import diagnose
from fanin.diagnosis.checks import CHECKS
from fanin.finding import CAUSES

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 60


def clusters(n: int = 320, scale: float = 1.0, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Four clouds of points in ten dimensions, of deviation 1 in all."""
    g = torch.Generator().manual_seed(1)
    y = torch.randint(0, 4, (n,), generator=g)
    centres = 1.6 * torch.randn(4, 10, generator=torch.Generator().manual_seed(2))
    X = centres[y] + torch.randn(n, 10, generator=g)
    X = (X - X.mean(0)) / X.std(0)
    return X * scale + shift, y


def waves(n: int = 320, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """A smooth function of three numbers, of mean 0 and deviation 1 times `scale`."""
    X = torch.randn(n, 3, generator=torch.Generator().manual_seed(3))
    y = (X[:, :1] + 0.5 * X[:, 1:2] * X[:, 2:]).tanh()
    return X, scale * (y - y.mean()) / y.std()


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU, end: tuple[nn.Module, ...] = ()) -> nn.Sequential:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for a, b in pairwise(widths[:-1]):
        parts += [nn.Linear(a, b), activation()]
    return nn.Sequential(*parts, nn.Linear(*widths[-2:]), *end)


def adam(lr: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=lr)


def sgd(lr: float, **options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **options)


def weights(model: nn.Module, change: Callable[[Tensor], Any]) -> nn.Module:
    """The model with every matrix changed in place."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                change(p)
    return model


def zeroed(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    return model


def deep(activation: type[nn.Module]) -> nn.Sequential:
    return mlp(10, *[24] * 8, 4, activation=activation)


class Detached(nn.Module):
    """Its first layer's output is detached on the way."""

    def __init__(self, *, detach: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.detach = nn.Linear(10, 3), nn.Linear(3, 4), detach

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.last(h.detach() * 0.05 if self.detach else h)


class Noisy(nn.Module):
    """Dropout by a function."""

    def __init__(self, *, forget: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.forget = nn.Linear(10, 32), nn.Linear(32, 4), forget

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.last(nn.functional.dropout(h, 0.3, training=self.forget or self.training))


@dataclass(frozen=True)
class Pair:
    """A faulty set-up and its mended twin, as arguments of diagnose."""

    cause: str
    faulty: Callable[[], dict[str, Any]]
    mended: Callable[[], dict[str, Any]]


def _plain(**fields: Any) -> dict[str, Any]:
    return {"model": mlp(10, 32, 32, 4), "data": clusters(), "optimizer": adam(0.01)} | fields


def _regression(**fields: Any) -> dict[str, Any]:
    return {"model": mlp(3, 32, 32, 1), "data": waves(), "loss": nn.MSELoss(), "optimizer": adam(0.01)} | fields


def _random_labels() -> tuple[Tensor, Tensor]:
    X, y = clusters(1024)
    return X, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(4))]


def _nan() -> tuple[Tensor, Tensor]:
    X, y = clusters()
    X[3, 2] = torch.nan
    return X, y


def _few() -> dict[str, Any]:
    X, _ = clusters(24)
    noise = torch.randint(0, 4, (24,), generator=torch.Generator().manual_seed(5))
    return {"model": mlp(10, 64, 64, 4), "data": (X, noise), "eval_data": clusters(200), "optimizer": adam(0.01)}


def _saturated() -> nn.Module:
    return weights(mlp(10, 32, 32, 4, activation=nn.Tanh), lambda p: p.normal_(0, 20))


def _dying() -> nn.Module:
    model = mlp(10, 32, 32, 4)
    with torch.no_grad():
        model[2].bias.fill_(-50.0)
    return model


PAIRS = [
    Pair(
        "output-activation",
        lambda: _plain(model=mlp(10, 32, 4, end=(nn.Softmax(1),)), loss=nn.CrossEntropyLoss()),
        _plain,
    ),
    Pair(
        "output-activation",
        lambda: _plain(loss=nn.NLLLoss()),
        lambda: _plain(model=mlp(10, 32, 4, end=(nn.LogSoftmax(1),)), loss=nn.NLLLoss()),
    ),
    Pair("output-activation", lambda: _regression(model=mlp(3, 32, 1, end=(nn.Sigmoid(),))), _regression),
    Pair("loss", lambda: _plain(loss=lambda z, y: -nn.functional.cross_entropy(z, y)), _plain),
    Pair("output-shape", lambda: _regression(data=(waves()[0], waves()[1][:, 0])), _regression),
    Pair("label-range", lambda: _plain(data=(clusters()[0], clusters()[1] + 1), loss=nn.CrossEntropyLoss()), _plain),
    Pair("label-range", lambda: _regression(data=waves(scale=50_000.0)), _regression),
    Pair(
        "input-scale",
        lambda: _plain(data=clusters(scale=100.0, shift=3000.0), optimizer=sgd(0.05)),
        lambda: _plain(optimizer=sgd(0.05)),
    ),
    Pair(
        "eval-mismatch", lambda: _plain(eval_data=clusters(100, scale=255.0)), lambda: _plain(eval_data=clusters(100))
    ),
    Pair("learning-rate-high", lambda: _plain(optimizer=adam(5.0)), _plain),
    Pair("learning-rate-low", lambda: _plain(optimizer=adam(1e-8)), _plain),
    Pair(
        "too-few-epochs", lambda: _plain(optimizer=sgd(0.02), epochs=2), lambda: _plain(optimizer=sgd(0.02), epochs=60)
    ),
    Pair("init-scale", lambda: _plain(model=weights(mlp(10, 32, 32, 4), lambda p: p.normal_(0, 30))), _plain),
    Pair("symmetry", lambda: _plain(model=zeroed(mlp(10, 32, 32, 4))), _plain),
    Pair("vanishing-gradient", lambda: _plain(model=deep(nn.Sigmoid)), lambda: _plain(model=deep(nn.GELU))),
    Pair(
        "exploding-gradient",
        lambda: {"model": weights(deep(nn.ReLU), lambda p: p.mul_(12)), "data": clusters(), "optimizer": sgd(0.05)},
        lambda: _plain(model=deep(nn.GELU)),
    ),
    Pair(
        "saturation", lambda: _plain(model=_saturated()), lambda: _plain(model=mlp(10, 32, 32, 4, activation=nn.Tanh))
    ),
    Pair("dead-units", lambda: _plain(model=_dying()), _plain),
    Pair("non-finite", lambda: _plain(data=_nan()), _plain),
    Pair("optimizer", lambda: _plain(optimizer=sgd(0.1, weight_decay=5.0)), lambda: _plain(optimizer=sgd(0.1))),
    Pair("batch-size", lambda: _norm(2), lambda: _norm(32)),
    Pair("capacity", lambda: _plain(model=mlp(10, 1, 4)), _plain),
    Pair("missing-nonlinearity", lambda: _plain(model=mlp(10, 32, 32, 4, activation=nn.Identity)), _plain),
    Pair(
        "frozen-parameters", lambda: _plain(model=Detached(detach=True)), lambda: _plain(model=Detached(detach=False))
    ),
    Pair("wrong-mode", lambda: _plain(model=Noisy(forget=True)), lambda: _plain(model=Noisy(forget=False))),
    Pair("overfitting", _few, lambda: _plain(eval_data=clusters(200))),
    Pair("no-signal", lambda: _plain(data=_random_labels()), _plain),
    Pair("layers", lambda: _plain(model=mlp(10, 32, 4, end=(nn.Dropout(0.5),))), _plain),
]


def _norm(size: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*clusters()), batch_size=size, shuffle=True)
    return {"model": model, "data": data, "optimizer": adam(0.01)}


def test_every_cause_has_a_check_and_a_pair() -> None:
    assert set(CHECKS) == set(CAUSES)
    assert {pair.cause for pair in PAIRS} == set(CAUSES)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: p.cause)
def test_a_cause_is_found_and_its_mended_twin_is_not_accused(pair: Pair) -> None:
    found = diagnose(**pair.faulty(), steps=STEPS)
    assert pair.cause in [f.cause for f in found.findings[:3]], str(found)
    twin = diagnose(**pair.mended(), steps=STEPS)
    assert not twin.findings, str(twin)
