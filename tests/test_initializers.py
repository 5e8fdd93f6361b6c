"""Initialisers: closed-form moments, distributions, orthogonality, one noise for all, and parity with torch.nn.init."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from fanin import initializers
from fanin.catalogue import BIAS_INITIALIZERS, INITIALIZERS
from fanin.choice import choose
from fanin.engine.network import Network
from fanin.initializers import Keyed, Place, initialize
from fanin.recipe import Recipe, Trial
from fanin.streams import Stream

pytestmark = pytest.mark.usefixtures("one_thread")

FAN_IN, FAN_OUT = 200, 100


# name, options -> (mean, variance), by the closed form, and the distribution's name
MOMENTS: list[tuple[dict[str, Any], float, float, str]] = [
    ({"name": "default"}, 0, 1 / (3 * FAN_IN), "uniform"),
    ({"name": "normal", "mean": 0.5, "std": 0.2}, 0.5, 0.04, "norm"),
    ({"name": "uniform", "low": -1.0, "high": 3.0}, 1.0, 16 / 12, "uniform"),
    ({"name": "lecun_uniform"}, 0, 1 / FAN_IN, "uniform"),
    ({"name": "lecun_uniform", "gain": 3.0}, 0, 9 / FAN_IN, "uniform"),
    ({"name": "lecun_normal"}, 0, 1 / FAN_IN, "norm"),
    ({"name": "xavier_uniform"}, 0, 2 / (FAN_IN + FAN_OUT), "uniform"),
    ({"name": "xavier_uniform", "gain": 5 / 3}, 0, 25 / 9 * 2 / (FAN_IN + FAN_OUT), "uniform"),
    ({"name": "xavier_normal"}, 0, 2 / (FAN_IN + FAN_OUT), "norm"),
    ({"name": "kaiming_uniform"}, 0, 2 / FAN_IN, "uniform"),
    ({"name": "kaiming_normal"}, 0, 2 / FAN_IN, "norm"),
    ({"name": "kaiming_normal", "gain": 1.0}, 0, 1 / FAN_IN, "norm"),
    ({"name": "kaiming_normal", "mode": "fan_out", "negative_slope": 1.0}, 0, 1 / FAN_OUT, "norm"),
    ({"name": "kaiming_uniform", "mode": "fan_avg"}, 0, 4 / (FAN_IN + FAN_OUT), "uniform"),
    ({"name": "truncated_normal", "mean": 0.3, "std": 0.5}, 0.3, 0.25, "truncnorm"),
    ({"name": "truncated_normal", "cut": 0.5}, 0, 1, "truncnorm"),
    ({"name": "variance_scaling"}, 0, 1 / FAN_IN, "truncnorm"),
    ({"name": "variance_scaling", "scale": 3.0, "mode": "fan_avg", "distribution": "uniform"}, 0, 0.02, "uniform"),
    ({"name": "variance_scaling", "mode": "fan_out", "distribution": "normal"}, 0, 1 / FAN_OUT, "norm"),
    ({"name": "snn"}, 0, 1 / FAN_IN, "norm"),
    ({"name": "mup"}, 0, 1 / FAN_IN, "norm"),
    ({"name": "critical"}, 0, 1 / FAN_IN, "norm"),
]

# matrices made as a whole: tests/initializers/test_matrices.py, test_asymmetric.py
FIXED = {"identity", "dirac", "hadamard", "idinit"}
RANDOM = {"orthogonal", "delta_orthogonal", "sparse", "looks_linear", "gaussian_submatrix", "random_asymmetric"}


def draw(spec: Any, *, seed: int = 0, shape: tuple[int, ...] = (FAN_OUT, FAN_IN), **fans: int) -> Tensor:
    fans = {"fan_in": FAN_IN, "fan_out": FAN_OUT} | fans
    return initialize(choose("init", spec), Keyed(Stream(seed, "weight")), shape, **fans)


def test_every_catalogue_name_has_a_function_with_its_options() -> None:
    for name, entry in INITIALIZERS.items():
        parameters = inspect.signature(getattr(initializers, name)).parameters
        assert set(parameters) == {"noise", "shape", "fan_in", "fan_out", *entry.options, *entry.needs}
        defaults = {name: p.default for name, p in parameters.items() if name in entry.options}
        assert defaults == {name: default for name, (_, default) in entry.options.items()}
    assert {spec["name"] for spec, *_ in MOMENTS} == set(INITIALIZERS) - {"zeros", "constant"} - FIXED - RANDOM


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("spec", "mean", "variance", "kind"), MOMENTS, ids=lambda v: str(v) if isinstance(v, dict) else ""
)
def test_moments_and_distribution(spec: Any, mean: float, variance: float, kind: str, seed: int) -> None:
    values = draw(spec, seed=seed).numpy().ravel()
    n, kurtosis = len(values), 1.8 if kind == "uniform" else 3.0
    assert abs(values.mean() - mean) < 5 * math.sqrt(variance / n)
    assert abs(values.var() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / n)
    if kind == "truncnorm":
        cut = spec.get("cut", 2.0)
        scale = math.sqrt(variance / stats.truncnorm(-cut, cut).var())
        assert stats.kstest(values, kind, args=(-cut, cut, mean, scale)).pvalue > 1e-3
        return
    scale = math.sqrt(variance) if kind == "norm" else math.sqrt(12 * variance)
    start = mean if kind == "norm" else mean - scale / 2
    assert stats.kstest(values, kind, args=(start, scale)).pvalue > 1e-3
    if kind == "uniform":
        assert abs(values - mean).max() < scale / 2  # strictly inside
        assert abs(values - mean).max() > 0.999 * scale / 2


def test_the_distribution_test_can_fail() -> None:
    values = draw("kaiming_normal").numpy().ravel()
    wrong = math.sqrt(2 / FAN_OUT)  # fan_out in the place of fan_in
    assert stats.kstest(values, "norm", args=(0, wrong)).pvalue < 1e-6


def test_zeros_and_constant() -> None:
    assert torch.equal(draw("zeros"), torch.zeros(FAN_OUT, FAN_IN, dtype=torch.float64))
    assert torch.equal(
        draw({"name": "constant", "value": -0.3}), torch.full((FAN_OUT, FAN_IN), -0.3, dtype=torch.float64)
    )


@pytest.mark.parametrize("gain", [1.0, 2**0.5, 0.1])
@pytest.mark.parametrize("shape", [(5, 5), (8, 3), (3, 8), (1, 6), (6, 1), (1, 1), (50, 20)], ids=str)
def test_orthogonal(shape: tuple[int, int], gain: float) -> None:
    q = draw({"name": "orthogonal", "gain": gain}, shape=shape)
    assert q.shape == shape
    gram = q @ q.T if shape[0] <= shape[1] else q.T @ q
    assert torch.allclose(gram, gain**2 * torch.eye(min(shape), dtype=torch.float64), atol=1e-12)


def test_orthogonal_is_haar_distributed() -> None:
    # under the Haar measure signs are fair, E[trace] = 0 and E[trace^2] = 1; QR without the sign fix fails this
    draws = [draw("orthogonal", seed=seed, shape=(4, 4)) for seed in range(600)]
    trace = np.array([float(q.trace()) for q in draws])
    assert abs(trace.mean()) < 5 / 600**0.5
    assert trace.var() == pytest.approx(1, abs=5 * (2 / 600) ** 0.5)
    first = np.array([float(q[0, 0]) for q in draws])
    # one coordinate of a uniform point on the sphere in 4 dimensions: (x + 1) / 2 is Beta(3/2, 3/2)
    assert stats.kstest((first + 1) / 2, "beta", args=(1.5, 1.5)).pvalue > 1e-3
    assert 240 < sum(float(torch.linalg.det(q)) > 0 for q in draws) < 360


def test_schemes_share_their_noise() -> None:
    uniform = [draw(s) for s in ("xavier_uniform", "kaiming_uniform", "lecun_uniform", "default")]
    normal = [draw(s) for s in ("xavier_normal", "kaiming_normal", "lecun_normal", {"name": "normal", "std": 0.7})]
    for family in (uniform, normal):
        for other in family[1:]:
            ratio = other / family[0]
            assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-12)
            assert float(ratio[0, 0]) > 0
    # and the two families share it too: the same ranks
    assert torch.equal(uniform[0].flatten().argsort(), normal[0].flatten().argsort())


@pytest.mark.parametrize("spec", [s for s, *_ in MOMENTS] + sorted(RANDOM), ids=str)
def test_seeds_and_repeats(spec: Any) -> None:
    assert torch.equal(draw(spec), draw(spec))
    assert not torch.equal(draw(spec), draw(spec, seed=1))


@pytest.mark.parametrize("spec", ["default", "lecun_uniform", "xavier_normal", "kaiming_uniform"])
def test_fans_are_given_never_read_from_a_shape(spec: str) -> None:
    usual = draw(spec, shape=(6, 4))
    assert torch.equal(draw(spec, shape=(4, 6)).flatten(), usual.flatten())
    assert torch.equal(draw(spec, shape=(24,)), usual.flatten())
    assert not torch.equal(draw(spec, shape=(6, 4), fan_in=4, fan_out=6), usual)


TORCH: list[tuple[str, Callable[[Tensor], object]]] = [
    ("default", lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5))),
    ("xavier_uniform", nn.init.xavier_uniform_),
    ("xavier_normal", nn.init.xavier_normal_),
    ("kaiming_uniform", lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu")),
    ("kaiming_normal", lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
    ("lecun_uniform", lambda w: nn.init.kaiming_uniform_(w, nonlinearity="linear")),
    ("lecun_normal", lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear")),
    ("orthogonal", nn.init.orthogonal_),
]


@pytest.mark.parametrize(("name", "theirs"), TORCH)
def test_the_same_distribution_as_torchs(name: str, theirs: Callable[[Tensor], object]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weight = torch.empty(FAN_OUT, FAN_IN)
        theirs(weight)
    assert stats.ks_2samp(draw(name).numpy().ravel(), weight.double().numpy().ravel()).pvalue > 1e-3


@pytest.mark.parametrize("name", BIAS_INITIALIZERS)
def test_biases(name: str) -> None:
    noise = Keyed(Stream(0, "bias"))
    bias = initialize(choose("bias_init", name), noise, (FAN_OUT,), fan_in=FAN_IN, fan_out=FAN_OUT)
    assert bias.shape == (FAN_OUT,)
    if name == "default":
        assert 0.9 < float(bias.abs().max()) * math.sqrt(FAN_IN) < 1


@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_network_of_a_stack_starts_as_its_trial_says(name: str) -> None:
    # the stack is a tensor (M, out, in), which torch.nn.init would take for a convolution
    recipe = Recipe(hidden=(5, 7), init=name, bias_init="default")
    trials = [Trial(recipe, seed) for seed in (4, 9, 4)]
    network = Network(recipe, [6, 5, 7, 3], 3, dtype=torch.float64, device=torch.device("cpu"))
    network.initialize(trials)
    for m, trial in enumerate(trials):
        for i, (fan_in, fan_out) in enumerate([(6, 5), (5, 7), (7, 3)]):
            fans = {"fan_in": fan_in, "fan_out": fan_out}
            place = Place("relu" if i < 2 else None, bias_variance=1 / (3 * fan_in), first=i == 0, last=i == 2)
            shape = (fan_out, fan_in + INITIALIZERS[name].draws_bias)
            weight = initialize(recipe.init, Keyed(Stream(trial.seed, "weight", layer=i)), shape, **fans, place=place)
            bias = initialize(recipe.bias_init, Keyed(Stream(trial.seed, "bias", layer=i)), (fan_out,), **fans)
            if INITIALIZERS[name].draws_bias:
                weight, bias = weight[:, :-1], weight[:, -1]
            state = network.state(m)
            assert torch.equal(state[f"layers.{i}.weight"], weight)
            assert torch.equal(state[f"layers.{i}.bias"], bias)
