"""overfit_one_batch: what can be learnt by heart is, what cannot is not, and the words say which."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from fanin.diagnosis.one_batch import overfit_one_batch
from fanin.errors import FaninError

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(classes=3, n=64):
    """Inputs that tell nothing about the targets: one batch can be learnt by heart all the same."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 5, generator=g), torch.randint(0, classes, (n,), generator=g)


def mlp(outputs=3, last=()):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, outputs), *last)


def rate(lr):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


def test_noise_can_be_learnt_by_heart():
    found = overfit_one_batch(mlp(), noise(), optimizer=rate(0.5), batch_size=16)
    assert found
    assert found.passed
    assert found.own.learnt == 1.0
    assert (found.examples, found.steps) == (16, 200)
    assert found.verdict.startswith("It learns one batch of 16 by heart")
    assert found.own.final < 0.1 < found.own.first


def test_the_share_learnt_is_accuracy_above_chance():
    """One step at rate 0: the score of the untrained network itself, counted by hand."""
    x, y = noise(n=16)
    model = mlp()
    found = overfit_one_batch(model, [(x, y)], loss=nn.CrossEntropyLoss(), optimizer=rate(0.0), steps=1)
    with torch.no_grad():
        guess = model(x).argmax(1)
    by_class = [float((guess[y == c] == c).double().mean()) for c in range(3)]
    assert found.own.learnt == pytest.approx(max(0.0, (sum(by_class) / 3 - 1 / 3) / (1 - 1 / 3)))
    assert found.own.first == found.own.final == pytest.approx(nn.functional.cross_entropy(model(x), y).item())


def test_for_numbers_it_is_the_explained_share_of_the_variance():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(16, 5, generator=g)
    y = torch.randn(16, 2, generator=g)
    model = mlp(2)
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].bias.copy_(y.mean(0))
    found = overfit_one_batch(model, [(x, y)], optimizer=rate(0.0), steps=1)
    assert found.own.learnt == pytest.approx(0.0, abs=1e-6)
    assert overfit_one_batch(model, [(x, y)], optimizer=rate(0.1), steps=400).own.learnt > 0.9


def test_an_optimiser_that_stands_in_the_way():
    found = overfit_one_batch(mlp(), noise(), optimizer=rate(1e-9), batch_size=16)
    assert found.passed
    assert found.own.learnt < 0.5
    assert "with Adam, but not as given" in found.verdict


def test_a_network_that_cannot_learn():
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            return self.inner(torch.zeros_like(x))

    found = overfit_one_batch(Blind(), noise(), optimizer=rate(0.5), batch_size=32)
    assert not found
    assert max(found.own.learnt, found.adam.learnt) < 0.2
    assert "does not learn one batch of 32" in found.verdict
    assert "wired wrongly" in found.verdict


def test_a_run_that_breaks_off_has_learnt_nothing():
    found = overfit_one_batch(mlp(), noise(), optimizer=rate(1e30), batch_size=16)
    assert found.own.learnt == 0
    assert found.adam.learnt > 0.95


def test_what_raises_is_said():
    def loss(outputs, targets):
        raise ZeroDivisionError("by zero")

    found = overfit_one_batch(mlp(), noise(), loss=loss, batch_size=16)
    assert not found
    assert "it raised ZeroDivisionError: by zero" in str(found)


def test_it_depends_on_its_arguments_alone():
    model = mlp(last=[nn.Dropout(0.2)])

    def find():
        return overfit_one_batch(model, noise(), optimizer=rate(0.1), steps=5).to_dict()

    first = find()
    torch.manual_seed(99)
    assert find() == first


def test_as_data_and_chart():
    found = overfit_one_batch(mlp(), noise(), optimizer=rate(0.5), steps=10)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["passed"] == found.passed
    assert plain["verdict"] == found.verdict
    assert "<svg" in found._repr_html_()


def test_wrong_use_is_told():
    with pytest.raises(FaninError, match="steps: expected at least 1; got 0"):
        overfit_one_batch(mlp(), noise(), steps=0)
    with pytest.raises(FaninError, match=r"expected an nn.Module; got list"):
        overfit_one_batch([], noise())
