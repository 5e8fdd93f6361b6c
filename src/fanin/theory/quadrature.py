"""Expectations over a standard normal variable, exact to about 1e-9 wherever a function has kinks or steps.

Panels of Gauss-Lobatto nodes whose two highest Legendre coefficients are looked at: where they are not negligible the
panel is split, until they are. The outermost nodes lie a hair inside their panel, so that each side of a kink at a
panel's end (where catalogued activations have theirs) is seen from its own side.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fanin.activations import resolve
from fanin.choice import Choice, choose

Function = Callable[[Tensor], Tensor]
Activation = str | Choice | Function

REACH = 9.0  # standard deviations: beyond, the density is under 1e-18
_WIDTH, _ORDER = 0.25, 10  # of panels at first, in standard deviations; nodes in each
_SPLIT, _SPLITS = 16, 8  # into how many a panel is split, and how often
_TOLERANCE = 1e-9  # of a panel's share in the expectation
_MOST = 200_000  # nodes; a function that wants more is noise to us


@dataclass(frozen=True)
class Samples:
    """An activation on quadrature nodes: E g(u), u ~ N(0, q), is the sum of weight * g(u) over the last dimension."""

    weight: Tensor
    u: Tensor
    f: Tensor
    slope: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """The expectation of what takes these values at the nodes, (..., nodes) -> (...)."""
        return values @ self.weight


def function_of(activation: Activation) -> Function:
    """The elementwise function of tensors that `activation` stands for: f(z).

    A catalogue's name (or Choice) becomes its module; an nn.Module a copy of it in float64 and evaluation mode; any
    other callable is itself. TypeError for anything else.
    """
    if isinstance(activation, str | Choice):
        return resolve(choose("activation", activation)).module()
    if isinstance(activation, nn.Module):
        return copy.deepcopy(activation).double().eval()
    if callable(activation):
        return activation
    raise TypeError(f"activation: expected a name, a Choice, an nn.Module or a function of tensors; got {activation!r}")


def evaluate(f: Function, u: Tensor) -> tuple[Tensor, Tensor]:
    """f(u) and f'(u), elementwise, detached; ValueError where they are not numbers, or f is not elementwise."""
    with torch.inference_mode(False), torch.enable_grad():
        flat = u.clone().flatten().requires_grad_()  # a clone: what was made in inference mode has no gradients
        try:
            value, slope = _differentiated(f, flat)
        except RuntimeError as error:
            if "derivative" not in str(error):
                raise
            remedy = "write its steps with comparisons, as (z > 0).to(z.dtype)"
            raise ValueError(f"activation: {f!r} has no derivative in torch ({error}); {remedy}") from error
    value, slope = value.detach().double(), slope.detach()
    for what, found in (("f", value), ("f'", slope)):
        if (bad := found.isnan()).any():
            at = float(u.flatten()[bad][0])
            raise ValueError(f"activation: expected numbers; {what} of {f!r} is NaN at z = {at:.4g}")
    return value.view(u.shape), slope.view(u.shape)


def _differentiated(f: Function, flat: Tensor) -> tuple[Tensor, Tensor]:
    value = f(flat * 1)  # a copy, for functions that work in place
    if not isinstance(value, Tensor) or value.shape != flat.shape:
        raise ValueError(f"activation: expected an elementwise function of tensors; {f!r} changes the shape")
    if not value.requires_grad:  # a step written with comparisons has no graph, and slope 0
        return value, torch.zeros_like(flat)
    (slope,) = torch.autograd.grad(value.sum(), flat)
    return value, slope


def sample(f: Function, variance: float | Tensor, *, finer: int = 1) -> Samples:
    """Nodes on which E g(f(u), f'(u)), u ~ N(0, variance), is a weighted sum; a vector of variances gives rows.

    finer: how many times as many panels there are at first, for what varies on smaller scales than f.
    """
    scale = torch.as_tensor(variance, dtype=torch.float64).sqrt().unsqueeze(-1)

    def rows(z: Tensor) -> Tensor:
        value, slope = evaluate(f, scale * z)
        return torch.stack([value, slope])

    z, weight, values = integrate(rows, width=_WIDTH / finer)
    return Samples(weight, scale * z, values[0], values[1])


def integrate(values: Callable[[Tensor], Tensor], *, width: float = _WIDTH) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes z, weights w and values(z) (..., nodes): E values(z)^p, z ~ N(0, 1), p = 1 or 2, is values(z)**p @ w.

    Accurate to about 1e-9 of E values^2 also with kinks and steps anywhere. ValueError where 1e-6 cannot be had, be it
    that values are noise, have a pole, or grow as fast as the density falls.
    """
    left = torch.arange(-REACH, REACH, width, dtype=torch.float64)
    parts, total, nodes = [], torch.zeros(()), 0
    for level in range(_SPLITS + 1):
        z = left.unsqueeze(1) + width / 2 * (_X + 1)
        density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        found = values(z.flatten()).unflatten(-1, z.shape)
        mass = found.square() * density
        total = total + width / 2 * (mass @ _W).sum(-1)
        if level == 0:
            _check_ends(width / 2 * (mass[..., [0, -1], :] @ _W).sum(-1), total)
        size = total.unsqueeze(-1)
        error = torch.maximum(_residue(mass) / size, _residue(found * density) / size.sqrt()) * width / 2
        rough = (error > _TOLERANCE).flatten(0, -2).any(0)
        nodes += _SPLIT * _ORDER * int(rough.sum())
        if nodes > _MOST or level == _SPLITS:
            if float(error.nan_to_num().flatten(0, -2).amax(0).sum()) > 1e-6:
                raise ValueError("activation: too rough or too noisy a function to integrate to 1e-6")
            rough = torch.zeros_like(rough)
        weight = width / 2 * _W * density
        parts.append((z[~rough].flatten(), weight[~rough].flatten(), found[..., ~rough, :].flatten(-2)))
        if not rough.any():
            break
        total = total - width / 2 * (mass[..., rough, :] @ _W).sum(-1)
        width /= _SPLIT
        left = (left[rough].unsqueeze(1) + width * torch.arange(_SPLIT)).flatten()
    z, w, found = zip(*parts, strict=True)
    return torch.cat(z), torch.cat(w), torch.cat(found, -1)


def _check_ends(ends: Tensor, total: Tensor) -> None:
    """Functions of polynomial growth leave nothing at the ends; of what is small there, the rest may be smaller."""
    if bool(((ends > 1e-6 * total) & (ends > 1e-9) & total.isfinite()).any()):
        raise ValueError("activation: grows so fast that E f(z)^2 is infinite or far out; look at smaller variances")


def _residue(values: Tensor) -> Tensor:
    """How large the two highest Legendre coefficients of each panel are: (..., panels, nodes) -> (..., panels)."""
    return (values @ _NULL).abs().amax(-1)


def _lobatto(order: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Lobatto nodes and weights on [-1, 1], and what maps values there to the two last Legendre coefficients."""
    basis = np.polynomial.legendre.Legendre.basis
    x = np.concatenate([[-1.0], np.sort(basis(order - 1).deriv().roots().real), [1.0]])
    w = 2 / (order * (order - 1) * basis(order - 1)(x) ** 2)
    null = np.stack([(2 * k + 1) / 2 * w * basis(k)(x) for k in (order - 2, order - 1)], axis=1)
    x[[0, -1]] *= 1 - 1e-9
    return torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(null)


_X, _W, _NULL = _lobatto(_ORDER)
