"""lr_find: rates, smoothing and divergence against closed forms; that what it suggests trains well."""

from __future__ import annotations

import json
import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from fanin.diagnosis.lr_find import lr_find
from fanin.errors import FaninError

pytestmark = pytest.mark.usefixtures("one_thread")


class Point(nn.Module):
    """One weight w, whatever comes in: with the loss w^2 / 2, gradient descent is w <- (1 - lr) w."""

    def __init__(self, start=1.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, x):
        return self.w.expand(len(x))


def parabola(outputs, _):
    return outputs.square().mean() / 2


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01)


ZEROS = (torch.zeros(64, 1), torch.zeros(64))


def test_the_curve_is_the_closed_form():
    found = lr_find(Point(), ZEROS, loss=parabola, optimizer=sgd, seeds=2, low=1e-3, high=1.0, steps=40)
    ratio = (1e3) ** (1 / 39)
    assert found.rates == pytest.approx([1e-3 * ratio**i for i in range(40)])
    w, raw = 1.0, [0.5]
    for rate in found.rates:
        w *= 1 - rate
        raw.append(w * w / 2)
    mean, smoothed = 0.0, []
    for t, value in enumerate(raw, 1):
        mean = 0.8 * mean + 0.2 * value
        smoothed.append(mean / (1 - 0.8**t))
    for test in found.tests:
        assert test.losses == pytest.approx(smoothed[1:], rel=1e-9)
        assert not test.diverged
    # smoothed, it falls to the last rate, which is the least loss's
    assert found.suggestion == pytest.approx(0.1 * found.rates[-1])
    assert found.low == found.high == pytest.approx(found.suggestion)


def test_it_stops_where_it_diverges():
    """|1 - lr| > 1 from lr = 2 on; the test must end between there and the last rate."""
    found = lr_find(Point(), ZEROS, loss=parabola, optimizer=sgd, seeds=1, low=1e-2, high=1e4, steps=60)
    (test,) = found.tests
    assert test.diverged
    assert len(test.losses) < 60
    assert 2 < found.rates[len(test.losses) - 1] < 1e3
    assert found.suggestion < 2
    assert "1 diverged" in str(found)


def test_groups_keep_the_ratio_of_their_rates():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Point(), Point()

        def forward(self, x):
            return torch.stack([self.a(x), self.b(x)])

    model = Two()
    seen = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    optimizer = Recording([{"params": model.a.parameters(), "lr": 0.1}, {"params": model.b.parameters(), "lr": 0.02}])
    found = lr_find(model, ZEROS, loss=parabola, optimizer=optimizer, seeds=1, low=1e-4, high=1e-2, steps=10)
    assert [rates[0] for rates in seen[:10]] == pytest.approx(found.rates)
    assert all(b / a == pytest.approx(0.2) for a, b in seen)
    assert found.lr == 0.1
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02]


def test_a_loss_that_never_falls_gets_no_suggestion():
    found = lr_find(Point(0.0), ZEROS, loss=lambda o, _: o.square().mean() + 1, optimizer=sgd, seeds=2, steps=20)
    assert (found.suggestion, found.low, found.high) == (None, None, None)
    assert "no suggestion" in str(found)


def test_it_depends_on_its_arguments_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    data = (torch.randn(64, 4), torch.randn(64, 1))

    def find():
        return lr_find(model, data, seeds=2, steps=12).to_dict()

    first = find()
    torch.manual_seed(99)
    assert find() == first
    assert first["tests"][0]["losses"] != first["tests"][1]["losses"]


def digits(images):
    x, y = load_digits(return_X_y=True)
    rows = torch.tensor(x / 16, dtype=torch.float32)
    return rows.view(-1, 1, 8, 8) if images else rows, torch.tensor(y)


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))


def trained_loss(make, data, optimizer, rate, steps=100):
    """An obvious loop: the loss on all data after so many steps at a rate."""
    model, (x, y), g = make(), data, torch.Generator().manual_seed(1)
    moves = optimizer(model.parameters())
    for group in moves.param_groups:
        group["lr"] = rate
    for _ in range(steps):
        at = torch.randint(len(x), (32,), generator=g)
        moves.zero_grad()
        nn.functional.cross_entropy(model(x[at]), y[at]).backward()
        moves.step()
    with torch.no_grad():
        found = float(nn.functional.cross_entropy(model(x), y))
    return found if math.isfinite(found) else math.inf


@pytest.mark.parametrize(
    ("make", "images", "optimizer"),
    [(perceptron, False, sgd), (perceptron, False, torch.optim.Adam), (convolutional, True, torch.optim.Adam)],
    ids=["MLP, SGD", "MLP, Adam", "CNN, Adam"],
)
def test_what_it_suggests_trains_nearly_as_well_as_the_best_of_a_grid(make, images, optimizer):
    data = digits(images)
    found = lr_find(make(), data, optimizer=optimizer, seeds=3)
    assert found.low <= found.suggestion <= found.high < 30 * found.low
    losses = {rate: trained_loss(make, data, optimizer, rate) for rate in (1e-4, 1e-2, 1e-1)}
    there = trained_loss(make, data, optimizer, found.suggestion)
    start = math.log(10)
    best = min(losses.values())
    assert start - there > 0.8 * (start - best)  # four fifths of the best rate's progress, at the least
    assert start - losses[1e-4] < 0.8 * (start - best)  # which not every rate makes


def test_as_text_data_and_chart():
    found = lr_find(Point(), ZEROS, loss=parabola, optimizer=sgd, seeds=2, low=1e-3, high=1.0, steps=20)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["suggestion"] == found.suggestion
    assert len(plain["tests"]) == 2
    assert "lr = 1.0e-01 (from 1.0e-01 to 1.0e-01 over seeds)" in str(found)
    assert "lr = 0.01: 10 times less" in str(found) or "within a factor of ten" in str(found)
    html = found._repr_html_()
    assert "<svg" in html
    assert "1.0e-01" in html


def test_wrong_use_is_told():
    with pytest.raises(FaninError, match=r"expected 0 < low < high; got 1 and 0.1"):
        lr_find(Point(), ZEROS, low=1, high=0.1)
    with pytest.raises(FaninError, match="at least 10 steps and 1 seed; got 5 and 5"):
        lr_find(Point(), ZEROS, steps=5)
    with pytest.raises(FaninError, match="takes a step along its learning rate; got LBFGS"):
        lr_find(Point(), ZEROS, loss=parabola, optimizer=torch.optim.LBFGS)
    with pytest.raises(FaninError, match=r"expected an nn.Module; got function"):
        lr_find(parabola, ZEROS)
