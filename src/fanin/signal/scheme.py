"""One initialiser at a glance: what it says of itself, what it draws for a shape, what that does to second moments."""

from __future__ import annotations

import inspect
import math

import torch

from fanin import initializers
from fanin.choice import Choice
from fanin.initializers import Keyed, Place, initialize
from fanin.initializers.draw import draws_bias
from fanin.initializers.variance import weight_variance
from fanin.profile import SchemeProfile
from fanin.streams import Stream

_BINS = 33  # an odd number, so that one bin is about the middle


def describe(init: Choice, shape: tuple[int, ...], activation: Choice, *, seed: int = 0) -> SchemeProfile:
    """An initialiser's documentation, Var W for a weight of `shape`, and its factors on E[h^2] and E[g^2] per layer.

    shape: (out, in), or (out, in, *kernel) of a convolution; fans are in and out times the kernel's size. The factors
    are fan_in Var W E f(z)^2 forward and fan_out Var W E f'(z)^2 back, z ~ N(0, 1), for a hidden layer after which
    `activation` follows; per equal layer the same with in = out. Raises ValueError where the scheme cannot be drawn.
    """
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"shape: expected (out, in) or (out, in, *kernel), all at least 1; got {shape}")
    place = Place(activation=activation)
    fan_out, fan_in = fans(shape)
    drawn_shape = (shape[0], shape[1] + 1) if draws_bias(init) else shape
    noise = Keyed(Stream(seed, "weight", layer=1))
    drawn = initialize(init, noise, drawn_shape, fan_in=fan_in, fan_out=fan_out, place=place)
    weight = drawn[:, : shape[1]] if draws_bias(init) else drawn
    closed = weight_variance(init, fan_in=fan_in, fan_out=fan_out, place=place)
    equal = weight_variance(init, fan_in=fan_in, fan_out=fan_in, place=place)
    low, high = float(weight.min()), float(weight.max())
    counts = torch.histc(weight, _BINS, low, high) if high > low else torch.zeros(0)
    return SchemeProfile(
        name=init.name,
        documentation=inspect.getdoc(getattr(initializers, init.name)) or "",
        options=init.options,
        shape=shape,
        fan_in=fan_in,
        fan_out=fan_out,
        variance=closed,
        measured_mean=float(weight.mean()),
        measured_std=float(weight.std(correction=0)) if high > low else 0.0,
        low=low,
        high=high,
        zero=float((weight == 0).double().mean()),
        shares=tuple((counts / weight.numel()).tolist()),
        activation=activation.plain("activation"),
        forward=_factor(closed, fan_in, activation, "forward"),
        backward=_factor(closed, fan_out, activation, "backward"),
        equal_forward=_factor(equal, fan_in, activation, "forward"),
        equal_backward=_factor(equal, fan_in, activation, "backward"),
    )


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """fan_out and fan_in of a weight (out, in, *kernel): in and out times the kernel's size."""
    size = math.prod(shape[2:])
    return shape[0] * size, shape[1] * size


def _factor(variance: float | None, fan: int, activation: Choice, direction: str) -> float | None:
    from fanin.theory import gain

    if variance is None:
        return None
    return variance * fan / gain(activation, "forward" if direction == "forward" else "backward") ** 2
