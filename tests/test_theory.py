"""Gains and mean-field theory against closed forms, scipy's quadrature and published figures."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate, stats

from fanin.catalogue import ACTIVATIONS
from fanin.theory import MeanField, critical_weight_variance, function_of, gain

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
    assert shifted == pytest.approx(1 / math.sqrt(wanted), rel=1e-5)


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


CRITICAL = [(1e-4, 1.0860), (0.01, 1.4242), (0.04, 1.7008), (0.05, 1.7610), (0.1, 1.9861), (0.2, 2.2852)]


@pytest.mark.parametrize(("bias_variance", "weight_variance"), CRITICAL)
def test_the_critical_line_of_tanh(bias_variance: float, weight_variance: float) -> None:
    assert critical_weight_variance("tanh", bias_variance) == pytest.approx(weight_variance, abs=5.1e-5)


SCALES = [(1.0, 3.63), (1.3, 7.83), (1.5, 15.79), (1.7, 74.9), (1.9, 39.4), (2.0, 25.2), (2.5, 11.8), (3.0, 9.05)]


@pytest.mark.parametrize(("weight_variance", "scale"), [*SCALES, (4.0, 6.98)])
def test_depth_scales_of_tanh(weight_variance: float, scale: float) -> None:
    digits = 0.5 * 10 ** -len(str(scale).partition(".")[2])
    assert MeanField("tanh", weight_variance, 0.05).depth_scale == pytest.approx(scale, abs=1.02 * digits)


@pytest.mark.parametrize(("weight_variance", "scale"), [(1.0, 3.63), (1.5, 15.8), (2.0, -21.5), (3.0, -5.27)])
def test_gradient_depth_scales_of_tanh(weight_variance: float, scale: float) -> None:
    digits = 0.5 * 10 ** -len(str(scale).partition(".")[2])
    found = MeanField("tanh", weight_variance, 0.05).gradient_depth_scale
    assert found == pytest.approx(scale, abs=1.02 * digits)


@pytest.mark.parametrize(
    ("keep", "depth"), [(0.5, 4.8), (0.7, 7.2), (0.8, 9.3), (0.9, 13.6), (0.95, 19.0), (0.99, 36.9)]
)
def test_trainable_depth_of_relu_under_dropout(keep: float, depth: float) -> None:
    assert MeanField("relu", 2 * keep, keep=keep).trainable_depth == pytest.approx(depth, abs=0.051)


@pytest.mark.parametrize("c", [0.0, 0.3, 0.9])
def test_the_correlation_map_of_relu_is_the_arc_cosine_kernel(c: float) -> None:
    wanted = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi  # Cho and Saul (2009)
    assert MeanField("relu", 2.0).next_correlation(c) == pytest.approx(wanted, abs=1e-6)


def test_he_keeps_the_variance_and_others_do_not() -> None:
    assert MeanField("relu", 2.0).variance == pytest.approx(1)
    assert MeanField("relu", 2.0).chi == pytest.approx(1)
    assert MeanField("relu", 1.0).next_variance(1.0) == pytest.approx(0.5)  # Xavier: halves at every equal layer
    assert MeanField("relu", 1 / 3).next_variance(1.0) == pytest.approx(1 / 6)  # PyTorch's default
    assert MeanField("relu", 2.1).variance == math.inf
