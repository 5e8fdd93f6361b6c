"""Activation functions and their derivatives, as in-place kernels on preallocated buffers, and as nn.Modules.

Each function below bears its catalogue name and returns an Activation for the given options.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fanin.choice import Choice

_aten = torch.ops.aten

# Klambauer et al. (2017), the constants torch.nn.SELU uses
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@dataclass(frozen=True)
class Activation:
    """f and f' for explicit gradients.

    apply(z, out): out = f(z); `out` may be z itself. backward(grad, saved): grad *= f'(z), in place.
    saved: whether `backward` wants z or f(z); f(z) may then overwrite z. steepest: sup |f'| if f is bounded (it can
    saturate), else None. module: f as a plain nn.Module.
    """

    apply: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]
    saved: Literal["input", "output"]
    steepest: float | None
    module: Callable[[], nn.Module]


def resolve(choice: Choice) -> Activation:
    """The Activation that a recipe's choice names."""
    return getattr(sys.modules[__name__], choice.name)(**choice.keywords())


def identity() -> Activation:
    """f(z) = z."""
    return Activation(
        lambda z, out: out if out.data_ptr() == z.data_ptr() else out.copy_(z),
        lambda grad, saved: grad,
        "output",
        None,
        nn.Identity,
    )


def sigmoid() -> Activation:
    """f(z) = 1 / (1 + exp(-z)); f' = f (1 - f)."""
    return Activation(
        lambda z, out: torch.sigmoid(z, out=out),
        lambda grad, saved: _aten.sigmoid_backward.grad_input(grad, saved, grad_input=grad),
        "output",
        0.25,
        nn.Sigmoid,
    )


def tanh() -> Activation:
    """f(z) = tanh z; f' = 1 - f^2."""
    return Activation(
        lambda z, out: torch.tanh(z, out=out),
        lambda grad, saved: _aten.tanh_backward.grad_input(grad, saved, grad_input=grad),
        "output",
        1.0,
        nn.Tanh,
    )


def relu() -> Activation:
    """f(z) = max(z, 0); f' = 1 for z > 0, else 0 (0 at 0, as in PyTorch)."""
    return Activation(
        lambda z, out: torch.clamp_min(z, 0, out=out),
        lambda grad, saved: _aten.threshold_backward.grad_input(grad, saved, 0, grad_input=grad),
        "output",
        None,
        nn.ReLU,
    )


def leaky_relu(negative_slope: float) -> Activation:
    """f(z) = z for z > 0, else negative_slope * z."""
    return Activation(
        lambda z, out: _aten.leaky_relu.out(z, negative_slope, out=out),
        lambda grad, saved: _aten.leaky_relu_backward.grad_input(grad, saved, negative_slope, True, grad_input=grad),
        "output",
        None,
        lambda: nn.LeakyReLU(negative_slope),
    )


def _elu(alpha: float, scale: float, module: Callable[[], nn.Module]) -> Activation:
    return Activation(
        lambda z, out: _aten.elu.out(z, alpha, scale, 1, out=out),
        lambda grad, saved: _aten.elu_backward.grad_input(grad, alpha, scale, 1, True, saved, grad_input=grad),
        "output",
        None,
        module,
    )


def elu() -> Activation:
    """f(z) = z for z > 0, else exp(z) - 1."""
    return _elu(1.0, 1.0, nn.ELU)


def selu() -> Activation:
    """f(z) = scale * (z for z > 0, else alpha * (exp(z) - 1))."""
    return _elu(_SELU_ALPHA, _SELU_SCALE, nn.SELU)


def gelu() -> Activation:
    """f(z) = z Phi(z); f' = Phi(z) + z phi(z)."""
    return Activation(
        lambda z, out: _aten.gelu.out(z, out=out),
        lambda grad, saved: _aten.gelu_backward.grad_input(grad, saved, grad_input=grad),
        "input",
        None,
        nn.GELU,
    )


def silu() -> Activation:
    """f(z) = z s(z), s the sigmoid; f' = s (1 + z (1 - s))."""
    return Activation(
        lambda z, out: _aten.silu.out(z, out=out),
        lambda grad, saved: _aten.silu_backward.grad_input(grad, saved, grad_input=grad),
        "input",
        None,
        nn.SiLU,
    )


def mish() -> Activation:
    """f(z) = z tanh(softplus(z))."""
    return Activation(
        lambda z, out: _aten.mish.out(z, out=out),
        lambda grad, saved: grad.copy_(_aten.mish_backward(grad, saved)),
        "input",
        None,
        nn.Mish,
    )


def softplus() -> Activation:
    """f(z) = log(1 + exp z); f' = sigmoid(z)."""
    return Activation(
        lambda z, out: _aten.softplus.out(z, out=out),
        lambda grad, saved: _aten.softplus_backward.grad_input(grad, saved, 1, 20, grad_input=grad),
        "input",
        None,
        nn.Softplus,
    )


def softsign() -> Activation:
    """f(z) = z / (1 + |z|); f' = (1 - |f|)^2."""
    return Activation(
        lambda z, out: torch.div(z, 1 + z.abs(), out=out),
        lambda grad, saved: grad.mul_((1 - saved.abs()).square_()),
        "output",
        1.0,
        nn.Softsign,
    )
