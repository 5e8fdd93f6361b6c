"""looks_linear and gaussian_submatrix: linear at the start, isometries, blocks, widths without partners."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from fanin import initializers
from fanin.initializers import Keyed
from fanin.streams import Stream
from tests.initializers.matrices import convolved, draw, eye

pytestmark = pytest.mark.usefixtures("one_thread")


def network(name: str, widths: list[int], *, seed: int = 0) -> list[Tensor]:
    ends = {"first": 0, "last": len(widths) - 2}
    return [
        draw(name, (out, into), noise=Keyed(Stream(seed, "weight", layer=i)), **{k: i == at for k, at in ends.items()})
        for i, (into, out) in enumerate(pairwise(widths))
    ]


def forward(weights: list[Tensor], x: Tensor) -> Tensor:
    """The outputs (out, n) of a ReLU network for inputs (in, n)."""
    for weight in weights[:-1]:
        x = (weight @ x).relu()
    return weights[-1] @ x


def nonlinearity(weights: list[Tensor]) -> float:
    """The largest difference of f(x) from A x, A the network's outputs for the unit vectors, relative to A x."""
    size = weights[0].shape[1]
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(size, 50)))
    linear = forward(weights, eye(size, size)) @ x
    return float((forward(weights, x) - linear).abs().max() / linear.abs().max())


WIDTHS = [[6, *[12] * 30, 6], [6, *[13] * 30, 6], [5, 11, 8, 3, 2, 14, 4], [3, 2, 3, 1], [7, 3]]


@pytest.mark.parametrize("widths", WIDTHS, ids=lambda w: f"{len(w) - 1} layers, {w[1]}")
@pytest.mark.parametrize("name", ["looks_linear", "gaussian_submatrix"])
def test_mirrored_networks_are_linear(name: str, widths: list[int]) -> None:
    weights = network(name, widths)
    assert [tuple(w.shape) for w in weights] == [(out, into) for into, out in pairwise(widths)]
    assert nonlinearity(weights) < 1e-12


def test_a_network_of_another_scheme_is_not_linear() -> None:
    weights = [draw("orthogonal", (out, into)) for into, out in pairwise(WIDTHS[0])]
    assert nonlinearity(weights) > 0.01


@pytest.mark.parametrize("hidden", [12, 13, 16])  # 13: the odd unit takes no part; 16: Q (8, 6), then (8, 8), (6, 8)
def test_looks_linear_is_an_isometry(hidden: int) -> None:
    weights = network("looks_linear", [6, *[hidden] * 20, hidden // 2])
    values = torch.linalg.svdvals(forward(weights, eye(6, 6)))
    assert torch.allclose(values, torch.ones(6, dtype=torch.float64), rtol=1e-12)


@pytest.mark.parametrize("name", ["looks_linear", "gaussian_submatrix"])
def test_blocks_are_mirrored(name: str) -> None:
    weight = draw(name, (10, 8))
    block = weight[:5, :4]
    assert torch.equal(weight, torch.cat([torch.cat([block, -block], 1), torch.cat([-block, block], 1)]))
    odd = draw(name, (11, 9))
    assert torch.equal(odd[:5, :4], block)
    assert torch.equal(odd[5:10, :8], torch.cat([-odd[:5, :4], odd[:5, :4]], 1))
    assert torch.equal(odd[10, :4], -odd[10, 4:8])  # the unit without partner reads pairs
    assert float(odd[10].abs().max()) > 0
    assert float(odd[:, 8].abs().max()) == 0  # and is not read


def test_a_unit_without_partner_learns() -> None:
    weights = [w.requires_grad_() for w in network("looks_linear", [4, 7, 7, 3])]
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 20)))
    forward(weights, x).square().sum().backward()
    assert weights[2].grad is not None
    assert float(weights[2].grad[:, 6].abs().min()) > 0


@pytest.mark.parametrize("name", ["looks_linear", "gaussian_submatrix"])
def test_mirrored_convolutions_are_linear(name: str) -> None:
    ends = [{"first": True}, {}, {}, {"last": True}]
    shapes = [(6, 3, 3, 3), (7, 6, 3, 3), (6, 7, 1, 3), (3, 6, 3, 3)]
    kernels = [draw(name, shape, seed=i, **end) for i, (shape, end) in enumerate(zip(shapes, ends, strict=True))]

    def outputs(x: Tensor) -> Tensor:
        for kernel in kernels[:-1]:
            x = convolved(x, kernel).relu()
        return convolved(x, kernels[-1])

    x, y = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, 3, 5, 5)))
    assert torch.allclose(outputs(x - 2 * y), outputs(x) - 2 * outputs(y), rtol=1e-10, atol=1e-12)
    if name == "looks_linear":
        assert float(outputs(x).norm()) == pytest.approx(float(x.norm()), rel=1e-12)


def test_a_single_layer_is_one_block() -> None:
    ends = {"first": True, "last": True}
    assert torch.equal(draw("looks_linear", (3, 7), **ends), draw("orthogonal", (3, 7)))
    assert torch.allclose(draw("gaussian_submatrix", (3, 7), **ends), draw("lecun_normal", (3, 7)), rtol=1e-15)


@pytest.mark.parametrize("name", ["looks_linear", "gaussian_submatrix"])
@pytest.mark.parametrize(("shape", "ends"), [((1, 5), {"first": True}), ((5, 1), {}), ((4, 1), {"last": True})])
def test_a_hidden_width_of_one_is_refused(name: str, shape: tuple[int, int], ends: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match=rf"{name}: expected hidden widths of at least 2.*got shape"):
        draw(name, shape, **ends)


@pytest.mark.parametrize(
    ("shape", "ends", "variance"),
    [
        ((100, 80), {}, 2 / 80),
        ((101, 81), {}, 1 / 40),
        ((100, 80), {"first": True}, 1 / 80),
        ((100, 80), {"last": True}, 2 / 80),
        ((40, 30, 3, 3), {}, 2 / 270),
    ],
    ids=str,
)
def test_gaussian_blocks(shape: tuple[int, ...], ends: dict[str, bool], variance: float) -> None:
    weight = draw("gaussian_submatrix", shape, **ends)
    half = weight[: shape[0] // 2, : shape[1] // 2].numpy().ravel()
    assert stats.kstest(half, "norm", args=(0, math.sqrt(variance))).pvalue > 1e-4
    assert half.var() == pytest.approx(variance, abs=5 * variance * (2 / half.size) ** 0.5)


def test_the_gaussian_blocks_variance_is_given_by_the_fan() -> None:
    usual = draw("gaussian_submatrix", (6, 4))
    fans = {"fan_in": 16, "fan_out": 6}
    assert torch.allclose(
        initializers.gaussian_submatrix(Keyed(Stream(0, "weight")), (6, 4), **fans), usual / 2, rtol=1e-15
    )


@pytest.mark.parametrize("hidden", [64, 65])
def test_gaussian_submatrix_keeps_the_second_moment(hidden: int) -> None:
    depth, count, pairs = 10, 150, hidden // 2
    x = torch.ones(20, 1, dtype=torch.float64)
    found = []
    for seed in range(count):
        weights = network("gaussian_submatrix", [20, *[hidden] * depth, 40], seed=seed)
        found.append(float(forward(weights, x).square().mean()))
    # a product of independent chi^2_n / n, which have mean 1 and variance 2 / n
    variance = (1 + 2 / pairs) ** depth * (1 + 2 / 40) - 1
    assert np.mean(found) == pytest.approx(1, abs=5 * math.sqrt(variance / count))
    signal = (weights[0] @ x).relu()
    assert float((weights[0] @ x)[: 2 * pairs].square().mean() / signal[: 2 * pairs].square().mean()) == pytest.approx(
        2
    )
