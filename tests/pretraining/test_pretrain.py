"""pretrain_: the weights that a module gets, which modules it takes, and what it leaves as it was."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fanin.pretraining.autoencoder import StackedAutoencoder
from fanin.pretraining.dbn import DBN
from fanin.pretraining.pretrain import pretrain_

pytestmark = pytest.mark.usefixtures("one_thread")


OPTIONS = {"epochs": 2, "batch_size": 10, "seed": 1}


def data() -> np.ndarray:
    return np.random.default_rng(6).uniform(size=(30, 8)).astype(np.float32)


def mlp(activation: type[nn.Module] = nn.Sigmoid, **linear: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, 6, **linear),
        activation(),
        nn.Dropout(0.3),
        nn.Linear(6, 4, **linear),
        activation(),
        nn.Linear(4, 3),
    )


@pytest.mark.parametrize("method", ["dbn", "autoencoder", "denoising"])
def test_a_module_gets_the_weights_of_the_stack(method: str) -> None:
    module = mlp().train()
    identities, last = [id(p) for p in module.parameters()], module[-1].weight.clone()
    report = pretrain_(module, data(), method=method, **OPTIONS)
    noise = {"corruption": "masking"} if method == "denoising" else {}
    alone = (DBN if method == "dbn" else StackedAutoencoder)((6, 4), **OPTIONS, **noise).fit(data())
    theirs = [m for m in alone.to_sequential() if isinstance(m, nn.Linear)]
    for mine, its in zip((module[0], module[3]), theirs, strict=True):
        assert torch.equal(mine.weight, its.weight)
        assert torch.equal(mine.bias, its.bias)
    assert torch.equal(module[-1].weight, last)
    assert [id(p) for p in module.parameters()] == identities
    assert all(m.training for m in module.modules())
    assert (report.layers, report.left) == (("0", "3"), ("5",))
    assert len(report.history) == 4
    assert str(report).splitlines() == [
        f"0: pre-trained, 2 epochs ({method})",
        f"3: pre-trained, 2 epochs ({method})",
        "5: left alone, the last layer",
    ]
    np.testing.assert_allclose(module.eval()[:5](torch.from_numpy(data())).detach(), alone.transform(data()), atol=1e-6)
    assert all(p.requires_grad for p in module.parameters())


class Named(nn.Module):
    """Layers in another order than they run in, activations as functions, data that are scaled and flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.upper = nn.Linear(6, 4)
        self.lower = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.lower(x.flatten(1) / 255))
        return self.out(torch.relu(self.upper(x)))


def test_any_module_whose_layers_are_a_chain() -> None:
    pictures = torch.from_numpy(data() * 255).view(30, 2, 4)
    module = Named().double()
    report = pretrain_(module, pictures, method="denoising", **OPTIONS, dtype=torch.float64, amount=0.1)
    assert report.layers == ("lower", "upper")
    seen = pictures.double().flatten(1) / 255
    alone = StackedAutoencoder(
        (6, 4), activation="relu", corruption="masking", amount=0.1, dtype=torch.float64, **OPTIONS
    ).fit(seen)
    np.testing.assert_array_equal(module.lower.weight.detach(), alone.coefs_[0].T)
    np.testing.assert_array_equal(module.upper.bias.detach(), alone.intercepts_[1])
    assert module.lower.weight.dtype == torch.float64


def test_leaky_slopes_are_kept() -> None:
    module = nn.Sequential(nn.Linear(8, 6), nn.LeakyReLU(0.3, inplace=True), nn.Linear(6, 3))
    report = pretrain_(module, data(), method="autoencoder", **OPTIONS)
    assert report.model.activation == {"name": "leaky_relu", "negative_slope": pytest.approx(0.3)}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sigmoid(self.first(x))
        return self.last(h + torch.sigmoid(self.second(h)))


REFUSED = [
    (lambda: mlp(nn.ReLU), {}, r'expected sigmoid after every hidden layer for method="dbn"; got relu'),
    (
        lambda: nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)),
        {},
        "2: expected one",
    ),
    (lambda: mlp(bias=False), {}, "0: expected a bias"),
    (lambda: nn.Sequential(nn.Linear(8, 3)), {}, "a hidden Linear layer before the last"),
    (
        lambda: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6, eps=1), nn.Sigmoid(), nn.Linear(6, 3)),
        {},
        "3: expected sigmoid of the layer before as its input; got other values",
    ),
    (Residual, {}, "last: expected sigmoid of the layer before"),
    (
        lambda: nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(12, 2)),
        {},
        "Linear layers alone",
    ),
    (mlp, {"method": "dnb"}, "did you mean 'dbn'"),
    (mlp, {"method": "denoising", "amount": 2.0}, "amount"),
    (nn.Identity, {}, "without parameters"),
]


@pytest.mark.parametrize(("make", "options", "message"), REFUSED)
def test_what_is_refused_is_left_as_it_was(make: Any, options: dict[str, Any], message: str) -> None:
    module = make().train()
    before = [p.clone() for p in module.parameters()]
    with pytest.raises(ValueError, match=message):
        pretrain_(module, data(), **OPTIONS | options)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))
    assert all(m.training for m in module.modules())
    assert not any(m._forward_hooks for m in module.modules())


def test_data_that_are_refused() -> None:
    broken = data()
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="got nan in row 2, column 1"):
        pretrain_(mlp(), broken, **OPTIONS)
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\] for cross-entropy"):
        pretrain_(mlp(), data() * 3, method="autoencoder", **OPTIONS)


def test_pretraining_helps_a_deep_sigmoid_network_with_few_labels() -> None:
    """Five sigmoid layers, random starts: gradients vanish; after pre-training the same epochs learn."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 1200)
    prototypes = rng.uniform(size=(4, 20)) < 0.5
    x = (prototypes[labels] ^ (rng.uniform(size=(1200, 20)) < 0.1)).astype(np.float32)

    def accuracy(pretrained: bool) -> float:
        torch.manual_seed(0)
        widths = [20, 30, 30, 30, 30]
        hidden = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.Sigmoid())]
        module = nn.Sequential(*hidden, nn.Linear(30, 4))
        if pretrained:
            init = {"name": "xavier_uniform", "gain": 4.0}
            pretrain_(module, x, method="denoising", epochs=10, batch_size=20, lr=0.1, init=init)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        inputs, targets = torch.from_numpy(x), torch.from_numpy(labels)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[:100]), targets[:100]).backward()
            optimizer.step()
        with torch.no_grad():
            return float((module(inputs[200:]).argmax(1) == targets[200:]).float().mean())

    plain, better = accuracy(False), accuracy(True)
    assert plain < 0.5
    assert better > 0.9
