"""Activations: f and f' against autograd, finite differences and closed forms; aliasing; the steepest slope."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import optimize
from torch import Tensor, nn

from fanin import activations
from fanin.activations import Activation, resolve
from fanin.catalogue import ACTIVATIONS
from fanin.choice import choose

pytestmark = pytest.mark.usefixtures("one_thread")

SPECS: list[Any] = [
    *ACTIVATIONS,
    *({"name": "leaky_relu", "negative_slope": s} for s in (0.0, 0.3, 1.0, 2.0)),
]
_SIZES = [0.0, 1e-300, 1e-30, 1e-8, 0.5, 1, 3, 8, 19.9, 20, 20.1, 36, 40, 100, 700, 1e4]
POINTS = torch.tensor([sign * size for size in _SIZES for sign in (1, -1)], dtype=torch.float64)
GRID = torch.cat([POINTS, torch.linspace(-12, 12, 4001, dtype=torch.float64)])


# by definition, apart from torch: large arguments in the form that does not overflow
CLOSED: dict[str, Any] = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)) if z > -700 else 0.0,
    "tanh": math.tanh,
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: z if z > 0 else 0.01 * z,
    "elu": lambda z: z if z > 0 else math.expm1(z),
    "selu": lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * math.expm1(z)),
    "gelu": lambda z: z * 0.5 * math.erfc(-z / math.sqrt(2)),
    "silu": lambda z: z / (1 + math.exp(-z)) if z > -700 else 0.0,
    "mish": lambda z: z * math.tanh(math.log1p(math.exp(z)) if z < 700 else z),
    "softplus": lambda z: math.log1p(math.exp(z)) if z < 700 else z,
    "softsign": lambda z: z / (1 + abs(z)),
}


def of(spec: Any) -> Activation:
    return resolve(choose("activation", spec))


def forward(activation: Activation, z: Tensor) -> Tensor:
    out = torch.full_like(z, float("nan"))
    activation.apply(z, out)
    return out


def slope(activation: Activation, z: Tensor) -> Tensor:
    saved = z.clone() if activation.saved == "input" else forward(activation, z)
    grad = torch.ones_like(z)
    activation.backward(grad, saved)
    return grad


def autograd(activation: Activation, z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_()
    f = activation.module()(z)
    (derivative,) = torch.autograd.grad(f.sum(), z)
    return f.detach(), derivative


def test_every_catalogue_name_has_a_function() -> None:
    assert set(CLOSED) == set(ACTIVATIONS)
    for name, entry in ACTIVATIONS.items():
        options = {option: default for option, (_, default) in entry.options.items()}
        assert isinstance(getattr(activations, name)(**options), Activation)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_f_against_its_definition(name: str) -> None:
    z = GRID[GRID.abs() < 1e5]
    expected = torch.tensor([CLOSED[name](float(v)) for v in z], dtype=torch.float64)
    # torch's softplus turns into z itself above 20, an error of exp(-20) = 2e-9 at most, relative 1e-10
    rtol = 2e-10 if name == "softplus" else 1e-12
    # silu and gelu far below 0: values of 1e-16 and less
    assert torch.allclose(forward(of(name), z), expected, rtol=rtol, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_f_and_its_module_agree(spec: Any, dtype: torch.dtype) -> None:
    activation, z = of(spec), GRID.to(dtype)
    module = activation.module()
    assert isinstance(module, nn.Module)
    assert torch.equal(forward(activation, z), module(z))
    assert activation.module() is not module  # a network needs its own


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_derivative_against_autograd(spec: Any) -> None:
    activation = of(spec)
    ours, theirs = slope(activation, GRID), autograd(activation, GRID)[1]
    # those that remember f(z) know a small slope to the rounding of f only: 1e-16 of the largest slope
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=5e-16), (
        GRID[(ours - theirs).abs() > 5e-16],
        ours,
        theirs,
    )


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_derivative_in_float32(spec: Any) -> None:
    activation = of(spec)
    z = GRID.float()
    exact = autograd(activation, z.double())[1]
    assert torch.allclose(slope(activation, z).double(), exact, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_derivative_against_finite_differences(spec: Any) -> None:
    activation = of(spec)
    z = torch.linspace(-9, 9, 1000, dtype=torch.float64)  # an even number: 0 itself is not among them
    h = 1e-5
    difference = (forward(activation, z + h) - forward(activation, z - h)) / (2 * h)
    assert torch.allclose(slope(activation, z), difference, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("relu", 0.0),
        ("leaky_relu", 0.01),
        ("elu", 1.0),
        ("selu", 1.0507009873554805 * 1.6732632423543772),
        ("tanh", 1.0),
        ("sigmoid", 0.25),
        ("gelu", 0.5),
        ("silu", 0.5),
        ("mish", 0.6),
        ("softplus", 0.5),
        ("softsign", 1.0),
        ("identity", 1.0),
    ],
)
def test_the_derivative_at_zero_is_pytorchs(spec: str, value: float) -> None:
    z = torch.tensor([0.0, -0.0], dtype=torch.float64)
    assert slope(of(spec), z).tolist() == pytest.approx([value] * 2, rel=1e-12)
    assert autograd(of(spec), z)[1].tolist() == pytest.approx([value] * 2, rel=1e-12)


@pytest.mark.parametrize("size", [1, 3, 7, 16, 31, 257])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_in_place_is_the_same(spec: Any, size: int) -> None:
    activation = of(spec)
    z = 3 * torch.randn(2, size, generator=torch.Generator().manual_seed(0))
    kept, apart = z.clone(), forward(activation, z)
    assert torch.equal(z, kept)  # z is not touched when `out` is another
    inplace = z.clone()
    activation.apply(inplace, inplace)
    assert torch.equal(inplace, apart)
    view = z.clone()
    activation.apply(view, view.view(2, size))  # the same memory, another tensor
    assert torch.equal(view, apart)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_backward_multiplies_in_place_and_leaves_what_was_saved(spec: Any) -> None:
    activation = of(spec)
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(5, 33, generator=generator, dtype=torch.float64)
    grad = torch.randn(5, 33, generator=generator, dtype=torch.float64)
    saved = z.clone() if activation.saved == "input" else forward(activation, z)
    kept, given, memory = saved.clone(), grad.clone(), grad.data_ptr()
    activation.backward(grad, saved)
    assert grad.data_ptr() == memory
    assert torch.equal(saved, kept)
    assert torch.allclose(grad, given * slope(activation, z), rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_not_finite_is_as_in_the_module_and_stays_in_its_place(spec: Any, value: float) -> None:
    activation = of(spec)
    z = torch.full((40,), 0.7)
    clean = forward(activation, z)
    z[17] = value
    out = forward(activation, z)
    module = activation.module()(z)
    assert torch.equal(out.isnan(), module.isnan())
    assert torch.equal(out.nan_to_num(), module.nan_to_num())
    elsewhere = torch.arange(40) != 17
    assert torch.equal(out[elsewhere], clean[elsewhere])
    if math.isnan(value):
        assert bool(out[17].isnan())


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_steepest_slope(spec: Any) -> None:
    activation = of(spec)
    bounded = float(forward(activation, torch.tensor([1e8, -1e8], dtype=torch.float64)).abs().max()) < 10
    assert (activation.steepest is not None) == bounded  # it can saturate on both sides
    if activation.steepest is None:
        return

    def negative(z: float) -> float:
        return -float(slope(activation, torch.tensor([z], dtype=torch.float64)).abs())

    starts = [-5.0, -1.0, -0.3, 0.2, 1.0, 4.0]
    found = max(-optimize.minimize_scalar(negative, bracket=(s, s + 0.1)).fun for s in starts)
    grid = float(slope(activation, GRID).abs().max())
    assert activation.steepest == pytest.approx(max(found, grid), rel=1e-9)


def test_the_comparison_with_autograd_can_fail() -> None:
    activation = of("tanh")
    z = torch.tensor([0.3], dtype=torch.float64)
    wrong = torch.ones(1, dtype=torch.float64)
    activation.backward(wrong, z)  # z where f(z) is meant
    assert not torch.allclose(wrong, autograd(activation, z)[1], rtol=1e-9)
