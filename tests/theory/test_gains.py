"""Gains against closed forms, scipy's quadrature, published figures and torch's own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import integrate, stats
from torch import nn

from fanin.catalogue import ACTIVATIONS
from fanin.choice import choose
from fanin.theory import GainWarning, critical_weight_variance, function_of, gain, gains_table, torch_gain_difference

GAINS = {
    "relu": (1.4142, 1.4142),
    "tanh": (1.5925, 1.4674),
    "sigmoid": (1.8462, 4.7226),
    "softsign": (2.3375, 2.0958),
    "elu": (1.2452, 1.2234),
    "selu": (1.0000, 0.9660),
    "gelu": (1.5335, 1.4811),
    "silu": (1.6765, 1.6233),
    "mish": (1.4868, 1.4448),
    "softplus": (1.0419, 1.8462),
}


@pytest.mark.parametrize("name", GAINS)
def test_published_gains(name: str) -> None:
    forward, backward = GAINS[name]
    assert gain(name) == pytest.approx(forward, abs=5.1e-5)
    assert gain(name, "backward") == pytest.approx(backward, abs=5.1e-5)
    assert min(forward, backward) - 1e-4 < gain(name, "both") < max(forward, backward) + 1e-4


def test_closed_forms() -> None:
    assert gain("relu") == pytest.approx(math.sqrt(2), abs=1e-9)
    # E z^2 Phi(z)^2 = 1/3 + t and E (Phi(z) + z phi(z))^2 = 1/3 + 4 t / 3, t = 1 / (2 pi sqrt(3)), by Stein's identity
    t = 1 / (2 * math.pi * math.sqrt(3))
    assert gain("gelu") == pytest.approx((1 / 3 + t) ** -0.5, abs=1e-9)
    assert gain("gelu", "backward") == pytest.approx((1 / 3 + 4 * t / 3) ** -0.5, abs=1e-9)


def test_gain_of_a_function() -> None:
    def leaky(z: torch.Tensor) -> torch.Tensor:
        return torch.where(z > 0, z, 0.2 * z)

    assert gain(leaky) == pytest.approx(math.sqrt(2 / (1 + 0.2**2)), abs=1e-9)
    assert gain(leaky, "backward") == pytest.approx(1.3868, abs=5e-5)
    shifted = gain(lambda z: torch.relu(z - 0.123))  # a kink where no panel ends
    wanted = integrate.quad(lambda z: (z - 0.123) ** 2 * stats.norm.pdf(z), 0.123, 12)[0]
    assert shifted == pytest.approx(1 / math.sqrt(wanted), rel=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gains_against_adaptive_quadrature(name: str) -> None:
    f = function_of(name)

    def moment(z: float) -> float:
        return float(f(torch.tensor(z, dtype=torch.float64))) ** 2 * float(stats.norm.pdf(z))

    wanted = sum(integrate.quad(moment, a, b, epsabs=1e-12)[0] for a, b in ((-10, 0), (0, 10)))
    assert gain(name) == pytest.approx(1 / math.sqrt(wanted), abs=1e-6)


def test_an_unknown_direction() -> None:
    with pytest.raises(ValueError, match="expected forward, backward or both; got 'sideways'"):
        gain("relu", "sideways")


@pytest.mark.parametrize("slope", [0.01, 0.2, 0.9])
def test_leaky_relu_with_its_slope(slope: float) -> None:
    wanted = math.sqrt(2 / (1 + slope**2))
    chosen = choose("activation", {"name": "leaky_relu", "negative_slope": slope})
    for activation in (chosen, nn.LeakyReLU(slope), nn.LeakyReLU(slope, inplace=True)):
        assert gain(activation) == pytest.approx(wanted, abs=1e-9)
        assert gain(activation, "backward") == pytest.approx(wanted, abs=1e-9)


def test_a_module_is_taken_as_it_stands_and_left_alone() -> None:
    module = nn.PReLU(init=0.3)
    assert gain(module) == pytest.approx(math.sqrt(2 / (1 + 0.3**2)), abs=1e-7)  # 0.3 as float32 has it
    assert module.weight.dtype == torch.float32
    assert module.training
    with torch.no_grad():
        module.weight.fill_(1.0)
    assert gain(module) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_kinks_anywhere(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    at = [float(x) for x in torch.randn(3, generator=generator, dtype=torch.float64)]
    slope = [float(x) for x in torch.rand(3, generator=generator, dtype=torch.float64) + 0.5]

    def bent(z: torch.Tensor) -> torch.Tensor:
        return sum((s * torch.relu(z - k) for k, s in zip(at, slope, strict=True)), torch.zeros_like(z))

    def moment(low: float, high: float) -> float:
        # between kinks f is a line a z + b, whose second moment over [low, high] has a closed form
        a = sum(s for k, s in zip(at, slope, strict=True) if k <= low)
        b = -sum(s * k for k, s in zip(at, slope, strict=True) if k <= low)
        p, d = stats.norm.cdf([low, high]), stats.norm.pdf([low, high])
        ends = [low * d[0] if math.isfinite(low) else 0, high * d[1] if math.isfinite(high) else 0]
        second = p[1] - p[0] - (ends[1] - ends[0])
        return float(a * a * second - 2 * a * b * (d[1] - d[0]) + b * b * (p[1] - p[0]))

    edges = [-math.inf, *sorted(at), math.inf]
    wanted = sum(moment(low, high) for low, high in pairwise(edges))
    assert gain(bent) == pytest.approx(wanted**-0.5, rel=1e-8)
    slopes = sum(
        float(stats.norm.cdf(high) - stats.norm.cdf(low))
        * sum(s for k, s in zip(at, slope, strict=True) if k <= low) ** 2
        for low, high in pairwise(edges)
    )
    assert gain(bent, "backward") == pytest.approx(slopes**-0.5, rel=1e-8)


@pytest.mark.parametrize("at", [-1.7, 0.0, 0.249, 0.2500001, 1.0])
def test_steps(at: float) -> None:
    def step(z: torch.Tensor) -> torch.Tensor:
        return (z > at).double()

    assert gain(step) == pytest.approx(float(stats.norm.sf(at)) ** -0.5, rel=1e-7)
    with pytest.raises(ValueError, match=r"no backward gain: E f'\(z\)\^2 under N\(0, 1\) is 0"):
        gain(step, "backward")
    assert gain(step, "both") == pytest.approx(math.sqrt(2) * gain(step), rel=1e-12)


@pytest.mark.parametrize("frequency", [3.0, 40.0])
def test_periodic_functions(frequency: float) -> None:
    damped = math.exp(-2 * frequency**2)  # E cos(2 a z)
    found = gain(lambda z: torch.sin(frequency * z))
    assert found == pytest.approx(((1 - damped) / 2) ** -0.5, abs=1e-9)
    found = gain(lambda z: torch.sin(frequency * z), "backward")
    assert found == pytest.approx(((1 + damped) / 2) ** -0.5 / frequency, abs=1e-9)


def test_what_has_no_gain_says_so() -> None:
    with pytest.raises(ValueError, match="has no forward gain"):
        gain(torch.zeros_like)
    with pytest.raises(ValueError, match="changes the shape"):
        gain(lambda z: z[:1])
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="too rough"):
        gain(lambda z: torch.randn(z.shape, generator=generator, dtype=z.dtype))
    with pytest.raises(TypeError, match=r"expected a name, a Choice, an nn\.Module or a function of tensors; got 3"):
        gain(3)


def test_where_torch_differs() -> None:
    differs = {row.name for row in gains_table() if torch_gain_difference(row.name)}
    assert differs == {"sigmoid", "tanh", "selu"}
    text = str(torch_gain_difference("tanh"))
    assert "1.6667" in text
    assert "1.5925" in text
    assert torch_gain_difference("gelu") is None  # torch has none
    assert torch_gain_difference(nn.Tanh()) is None  # nor for modules


def test_the_warning_is_asked_for() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gain("tanh") == pytest.approx(1.5925, abs=5.1e-5)
        assert gain("relu", compare=True) == pytest.approx(math.sqrt(2))
    with pytest.warns(GainWarning, match="sigmoid: torch.nn.init.calculate_gain has 1.0000, but 1.8462 keeps"):
        gain("sigmoid", compare=True)


def test_the_table_has_every_activation() -> None:
    rows = {row.name: row for row in gains_table()}
    assert list(rows) == list(ACTIVATIONS)
    for name, (forward, backward) in GAINS.items():
        assert rows[name].forward == pytest.approx(forward, abs=5.1e-5)
        assert rows[name].backward == pytest.approx(backward, abs=5.1e-5)
        mean = (rows[name].forward ** -2 + rows[name].backward ** -2) / 2
        assert rows[name].both == pytest.approx(mean**-0.5, rel=1e-12)
    assert rows["selu"].torch == nn.init.calculate_gain("selu")
    assert rows["leaky_relu"].torch == nn.init.calculate_gain("leaky_relu")
    assert rows["mish"].torch is None


def test_the_documents_table_is_what_is_computed() -> None:
    text = (Path(__file__).parents[2] / "docs" / "theory.md").read_text()
    for row in gains_table():
        theirs = "-" if row.torch is None else f"{row.torch:.4f}"
        assert f"| {row.name} | {row.forward:.4f} | {row.backward:.4f} | {row.both:.4f} | {theirs} |" in text


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gains_do_not_depend_on_the_callers_mode(mode: Callable[[], Any]) -> None:
    with mode():
        assert gain("tanh", "backward") == pytest.approx(1.4674, abs=5e-5)
        assert critical_weight_variance("tanh", 0.0501) == pytest.approx(1.7616, abs=1e-3)
