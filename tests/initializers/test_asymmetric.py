"""Randomised asymmetric initialisation: its two distributions, where sigma comes from, and how many are born dead."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from fanin.initializers import Drawn, Keyed, kaiming_normal, random_asymmetric
from fanin.initializers.asymmetric import SIGMA
from fanin.streams import Stream

pytestmark = pytest.mark.usefixtures("one_thread")


def draw(rows: int, inputs: int, *, fan_in: int | None = None, seed: int = 0, noise: Any = None) -> Tensor:
    noise = noise or Keyed(Stream(seed, "weight"))
    return random_asymmetric(noise, (rows, inputs + 1), fan_in=fan_in or inputs, fan_out=rows)


def positive(rows: int, inputs: int) -> tuple[Tensor, Tensor]:
    """Weights, and where the positive entries are: those that do not change with the fan."""
    values = draw(rows, inputs)
    return values, values == draw(rows, inputs, fan_in=100 * inputs)


@pytest.mark.parametrize("inputs", [1, 2, 9])
def test_one_entry_of_each_row_is_beta_and_may_be_any(inputs: int) -> None:
    values, chosen = positive(6000, inputs)
    assert torch.equal(chosen.sum(1), torch.ones(6000, dtype=torch.int64))
    sizes = values[chosen].numpy()
    assert stats.kstest(sizes, "beta", args=(2, 1)).pvalue > 1e-4
    assert stats.kstest(sizes, "beta", args=(1, 1)).pvalue < 1e-4  # the check can fail
    assert sizes.mean() == pytest.approx(2 / 3, abs=5 * math.sqrt(1 / 18 / 6000))
    assert stats.chisquare(chosen.sum(0).numpy()).pvalue > 1e-4
    columns = chosen.int().argmax(1).numpy()
    assert abs(stats.spearmanr(columns, sizes).statistic) < 5 / math.sqrt(6000)  # independent of where


@pytest.mark.parametrize("inputs", [2, 9])
def test_the_others_are_normal(inputs: int) -> None:
    values, chosen = positive(4000, inputs)
    others, scale = values[~chosen].numpy(), SIGMA / math.sqrt(inputs)
    assert stats.kstest(others, "norm", args=(0, scale)).pvalue > 1e-4
    assert stats.kstest(others, "norm", args=(0, SIGMA / math.sqrt(inputs + 1))).pvalue < 1e-4
    assert others.mean() == pytest.approx(0, abs=5 * scale / math.sqrt(others.size))
    assert others.var() == pytest.approx(scale**2, abs=5 * scale**2 * math.sqrt(2 / others.size))


def half_moment(m: float, s: float) -> float:
    """E relu(m + s z)^2."""
    return (m * m + s * s) * stats.norm.cdf(m / s) + m * s * stats.norm.pdf(m / s)


def bound(m: float, s: float) -> float:
    """At least half_moment(m, s), for m >= 0."""
    return m * m + s * s / 2 + 2 * m * s / math.sqrt(2 * math.pi)


def averaged(f: Any, sigma: float) -> float:
    """E f(p, sigma), p ~ Beta(2, 1): what a wide layer keeps of the mean square of inputs that are all equal."""
    return integrate.quad(lambda p: 2 * p * f(p, sigma), 0, 1)[0]


def test_sigma_is_where_the_bound_keeps_the_second_moment() -> None:
    assert pytest.approx(0.6007, abs=5e-5) == SIGMA
    for m in np.linspace(0, 3, 31):
        for s in (0.01, 0.3, SIGMA, 2.0):
            assert half_moment(m, s) <= bound(m, s) + 1e-12
    assert half_moment(0.7, 0.6) == pytest.approx(  # by the definition
        integrate.quad(lambda z: max(0.7 + 0.6 * z, 0) ** 2 * stats.norm.pdf(z), -7 / 6, 9)[0]
    )
    assert averaged(bound, SIGMA) == pytest.approx(1, abs=1e-12)
    assert averaged(bound, 0.65) > 1.05


def test_a_wide_layer_keeps_less_than_the_bound() -> None:
    inputs, rows = 400, 5_000
    weight = draw(rows, inputs)
    squares = (weight[:, :-1].sum(1) + weight[:, -1]).relu().square()
    exact = averaged(half_moment, SIGMA)
    assert exact == pytest.approx(0.83, abs=0.005)
    # a bias is as good as an input of 1; with it s^2 is sigma^2 401 / 400
    assert float(squares.mean()) == pytest.approx(exact, abs=0.002 + 5 * float(squares.std()) / math.sqrt(rows))


def test_signals_do_not_explode() -> None:
    x = torch.ones(50, 1, dtype=torch.float64)
    for layer in range(60):
        weight = draw(50, 50, noise=Keyed(Stream(0, "weight", layer=layer)))
        x = (weight[:, :-1] @ x + weight[:, -1:]).relu()
        assert float(x.square().mean()) < 4
    assert float(x.square().mean()) > 1e-4  # the biases keep it from vanishing


def born_dead(scheme: str, networks: int = 4000, depth: int = 10, width: int = 2) -> float:
    """The share of ReLU networks of one input that are constant on [-sqrt(3), sqrt(3)]; the last layer is linear."""
    x = torch.linspace(-math.sqrt(3), math.sqrt(3), 41, dtype=torch.float64).expand(networks, 1, 41)
    for layer in range(depth - 1):
        noise, inputs = Keyed(Stream(0, "weight", layer=layer)), x.shape[1]
        if scheme == "random_asymmetric":  # rows are independent, so that one matrix is the rows of all networks
            both = draw(networks * width, inputs, noise=noise).reshape(networks, width, inputs + 1)
            x = (both[..., :-1] @ x + both[..., -1:]).relu()
        else:
            x = (kaiming_normal(noise, (networks, width, inputs), fan_in=inputs, fan_out=width) @ x).relu()
    return float((x.amax(2) == x.amin(2)).all(1).double().mean())


def test_fewer_are_born_dead_than_with_he() -> None:
    error = 5 * math.sqrt(0.25 / 4000)
    assert born_dead("kaiming_normal") == pytest.approx(0.877, abs=error)
    assert born_dead("random_asymmetric") == pytest.approx(0.235, abs=error)


def test_the_generator_is_honoured() -> None:
    def drawn(seed: int) -> Tensor:
        return draw(20, 10, noise=torch.Generator().manual_seed(seed))

    state = torch.random.get_rng_state()
    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert drawn(3).dtype == torch.float32
    assert draw(20, 10, noise=Drawn(dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("shape", [(3,), (4, 4, 3), (0, 3)], ids=str)
def test_impossible_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"random_asymmetric: expected a matrix's shape, \(out, in \+ 1\).*flatten"):
        random_asymmetric(None, shape, fan_in=3, fan_out=3)
