"""Predictions by layer against simulated networks: means, and how many draws lie in the bands."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fanin.profile import Band
from fanin.theory import MeanField, function_of, predict
from fanin.theory.quadrature import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

DRAWS, DEPTH = 300, 12


def pairs(activation: str, width: int, w: float, b: float, *, start: float = 0.5, keep: float = 1.0) -> Tensor:
    """Second moments and cosines of two inputs by layer, (DEPTH, 2, DRAWS), exactly distributed and without a matrix.

    Given the second moments and the inner product of two layers' activations, the pre-activations of all units of the
    next are independent pairs of normal variables with these for covariance.
    """
    generator = torch.Generator().manual_seed(width)
    f = function_of(activation)
    yy, zz, yz = torch.ones(DRAWS).double(), torch.ones(DRAWS).double(), torch.full((DRAWS,), start).double()
    layers = []
    for _ in range(DEPTH):
        k, m, x = w * yy + b, w * zz + b, w * yz + b
        c = (x / (k * m).sqrt()).clamp(-1, 1).unsqueeze(1)
        e = torch.randn(2, DRAWS, width, generator=generator, dtype=torch.float64)
        y, z = f(k.sqrt().unsqueeze(1) * e[0]), f(m.sqrt().unsqueeze(1) * (c * e[0] + (1 - c * c).sqrt() * e[1]))
        layers.append(
            torch.stack([y.square().mean(1), (y * z).mean(1) / (y.square().mean(1) * z.square().mean(1)).sqrt()])
        )
        if keep < 1:
            mask = (torch.rand(2, DRAWS, width, generator=generator) < keep) / keep
            y, z = y * mask[0], z * mask[1]
        yy, zz, yz = y.square().mean(1), z.square().mean(1), (y * z).mean(1)
    return torch.stack(layers)


def inside(values: Tensor, band: Band) -> float:
    return float(((values >= band.low) & (values <= band.high)).double().mean())


def errors_off(values: Tensor, band: Band) -> float:
    """By how many standard errors the mean is off."""
    return abs(float(values.mean()) - band.mean) / (float(values.std()) / math.sqrt(len(values)))


NETWORKS = [("relu", 2.0, 0.0), ("tanh", 1.0, 0.0), ("tanh", 1.761, 0.05), ("tanh", 3.0, 0.05), ("gelu", 2.0, 0.1)]


@pytest.mark.parametrize(("activation", "w", "b"), NETWORKS)
def test_width_1024_is_within_the_predicted_spread(activation: str, w: float, b: float) -> None:
    measured = pairs(activation, 1024, w, b)
    layers = predict([64, *[1024] * DEPTH, 10], activation, weight_variances=w, bias_variances=b, input_correlation=0.5)
    for i, layer in enumerate(layers[:-1]):
        assert errors_off(measured[i, 0], layer.activation) < 5
        assert 0.90 <= inside(measured[i, 0], layer.activation) <= 0.99
        assert 0.88 <= inside(measured[i, 1], layer.correlation) <= 0.995
        wrong = Band(1.1 * layer.activation.mean, 1.1 * layer.activation.low, 1.1 * layer.activation.high)
        if i == 0:  # a tenth off is seen
            assert errors_off(measured[i, 0], wrong) > 20


@pytest.mark.parametrize(("activation", "w", "b"), NETWORKS[:3])
@pytest.mark.parametrize("width", [64, 256])
def test_narrower_networks(activation: str, w: float, b: float, width: int) -> None:
    measured = pairs(activation, width, w, b)
    layers = predict(
        [64, *[width] * DEPTH, 10], activation, weight_variances=w, bias_variances=b, input_correlation=0.5
    )
    for i, layer in enumerate(layers[:-1]):
        assert errors_off(measured[i, 0], layer.activation) < 5
        assert 0.88 <= inside(measured[i, 0], layer.activation) <= 0.99


@pytest.mark.parametrize("activation", ["gelu", "silu", "elu", "selu", "softplus", "sigmoid"])
def test_narrow_and_deep_networks_have_bands(activation: str) -> None:
    for layer in predict([20, *[16] * 20, 3], activation, weight_variances=2.0, bias_variances=0.1, keep=0.9):
        for band in (layer.activation, layer.gradient, layer.correlation, layer.jacobian):
            assert band.low <= band.mean
            assert band.low < band.high


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_dropout(keep: float) -> None:
    measured = pairs("relu", 1024, 2 * keep, 0.0, keep=keep)
    layers = predict([64, *[1024] * DEPTH, 10], "relu", weight_variances=2 * keep, keep=keep, input_correlation=0.5)
    for i, layer in enumerate(layers[:-1]):
        assert errors_off(measured[i, 0], layer.activation) < 5
        assert 0.88 <= inside(measured[i, 0], layer.activation) <= 0.99
        assert 0.88 <= inside(measured[i, 1], layer.correlation) <= 0.995


def whole(widths: list[int], activation: str, w: float, draws: int) -> Tensor:
    """With real matrices: second moments, gradients, Jacobians of one input by layer, (draws, 3, layers)."""
    generator = torch.Generator().manual_seed(0)
    f, n0, rows = function_of(activation), widths[0], []
    for _ in range(draws):
        h = torch.randn(n0, generator=generator, dtype=torch.float64)
        h *= math.sqrt(n0) / h.norm()
        weights, slopes, moments, jacobians = [], [], [], []
        jacobian = torch.eye(n0, dtype=torch.float64)
        for i, (n, fan_in) in enumerate(zip(widths[1:], widths[:-1], strict=True)):
            weights.append(torch.randn(n, fan_in, generator=generator, dtype=torch.float64) * math.sqrt(w / fan_in))
            z = weights[-1] @ h
            h, slope = (z, torch.ones_like(z)) if i == len(widths) - 2 else evaluate(f, z)
            jacobian = slope.unsqueeze(1) * (weights[-1] @ jacobian)
            slopes.append(slope)
            moments.append(float(h.square().mean()))
            jacobians.append(float(torch.linalg.svdvals(jacobian).square().mean()))
        gradient = torch.randn(widths[-1], generator=generator, dtype=torch.float64)
        gradients = [float(gradient.square().mean())]
        for weight, slope in zip(weights[:0:-1], slopes[-2::-1], strict=True):
            gradient = slope * (gradient @ weight)
            gradients.append(float(gradient.square().mean()))
        rows.append([moments, gradients[::-1], jacobians])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("activation", "w"), [("relu", 2.0), ("tanh", 1.0)])
def test_whole_networks_with_real_matrices(activation: str, w: float) -> None:
    widths = [24, 96, 64, 96, 64, 80, 16]
    measured = whole(widths, activation, w, 200)
    layers = predict(widths, activation, weight_variances=w)
    for i, layer in enumerate(layers):
        for k, band in enumerate((layer.activation, layer.gradient, layer.jacobian)):
            assert errors_off(measured[:, k, i], band) < 5
            assert 0.88 <= inside(measured[:, k, i], band) <= 0.995
    # with another width in its place this would fail
    other = predict([24, 96, 96, 96, 96, 96, 16], activation, weight_variances=w)
    assert errors_off(measured[:, 1, 1], other[1].gradient) > 5


def test_the_spread_of_relu_is_the_product() -> None:
    width, depth = 100, 30
    layers = predict([10, *[width] * depth, 1], "relu", weight_variances=2.0)
    for i, layer in enumerate(layers[:-1], 1):
        assert layer.activation.mean == pytest.approx(1, rel=1e-6)
        spread = math.log(layer.activation.high / layer.activation.low) / (2 * 1.959964)
        assert math.expm1(spread**2) == pytest.approx((1 + 5 / width) ** i - 1, rel=1e-4)
        back = math.log(layer.gradient.high / layer.gradient.low) / (2 * 1.959964)
        wanted = (1 + 5 / width) ** (depth + 1 - i) * (1 + 2 / 1) - 1
        assert math.expm1(back**2) == pytest.approx(wanted, rel=1e-4)


def test_means_are_the_mean_field_maps() -> None:
    field = MeanField("tanh", 1.5, 0.1)
    layers = predict([50, *[10**9] * 6, 5], "tanh", weight_variances=1.5, bias_variances=0.1, input_correlation=0.3)
    q, c = 1.5 + 0.1, (1.5 * 0.3 + 0.1) / 1.6
    for layer in layers[:-1]:
        moment = (field.next_variance(q) - 0.1) / 1.5
        assert layer.activation.mean == pytest.approx(moment, rel=1e-7)
        q = 1.5 * moment + 0.1
    fixed = predict([50, *[10**9] * 6, 5], "tanh", weight_variances=1.5, input_second_moment=(field.variance) / 1.5)
    assert fixed[0].activation.mean == pytest.approx((field.variance - 0.1) / 1.5, rel=1e-7)
    deep = predict([50, *[10**6] * 40, 5], "tanh", weight_variances=3.0, bias_variances=0.05, input_correlation=c)
    chaotic = MeanField("tanh", 3.0, 0.05)
    wanted = (chaotic.correlation * chaotic.variance - 0.05) / (chaotic.variance - 0.05)  # of f(z), from that of z
    assert deep[-2].correlation.mean == pytest.approx(wanted, abs=1e-3)
    assert deep[-1].correlation.mean == pytest.approx(chaotic.correlation, abs=1e-3)
    ratio = deep[20].gradient.mean / deep[21].gradient.mean
    assert ratio == pytest.approx(chaotic.chi, rel=1e-4)


def test_averages_over_inputs_are_narrower() -> None:
    def spread(**options: float) -> float:
        layers = predict([64, 256, 256, 10], "relu", weight_variances=2.0, **options)  # type: ignore[arg-type]
        return layers[1].activation.high / layers[1].activation.low

    assert spread(inputs=100) < spread(inputs=2) < spread()
    assert spread(inputs=100, input_correlation=1.0) == pytest.approx(spread(), rel=1e-4)


def test_variances_by_layer_or_by_fan() -> None:
    one = predict([40, 30, 20, 5], "relu", weight_variances=2.0, bias_variances=0.1)
    listed = predict([40, 30, 20, 5], "relu", weight_variances=[2 / 40, 2 / 30, 2 / 20], bias_variances=[0.1] * 3)
    assert one == listed
    assert [layer.layer for layer in one] == [1, 2, 3]


def test_deep_networks_neither_underflow_nor_overflow() -> None:
    down = predict([10, *[100] * 60, 10], "relu", weight_variances=1.0)
    assert down[59].activation.mean == pytest.approx(0.5**60, rel=1e-3)
    up = predict([10, *[100] * 50, 10], "relu", weight_variances=1e5)
    assert up[49].activation.mean == pytest.approx(5e4**50, rel=1e-3)
    low = predict([10, *[100] * 50, 10], "relu", weight_variances=1e-5)
    assert low[49].activation.mean == pytest.approx(5e-6**50, rel=1e-3)
    none = predict([10, 100, 10], "tanh", weight_variances=0.0)
    assert none[0].activation == Band(0.0, 0.0, 0.0)
    assert none[0].correlation.mean == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": [5]}, "widths: expected"),
        ({"weight_variances": [1.0]}, "weight_variances: expected one number, or one for each of 2 layers; got 1"),
        ({"weight_variances": -1.0}, "weight_variances: expected finite"),
        ({"keep": 0.0}, "keep: expected"),
        ({"input_correlation": 2.0}, "input_correlation: expected"),
        ({"level": 1.0}, "level: expected"),
        ({"inputs": 0}, "inputs: expected"),
        ({"normalization": "layer"}, "normalization: expected none or batch; got 'layer'"),
        ({"normalization": "batch"}, "inputs: batch normalisation wants a batch of at least 2"),
    ],
    ids=str,
)
def test_what_makes_no_network(change: dict[str, object], message: str) -> None:
    given = {"widths": [5, 4, 3], "activation": "relu", "weight_variances": 2.0} | change
    with pytest.raises(ValueError, match=message):
        predict(**given)  # type: ignore[arg-type]
