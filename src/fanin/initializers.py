"""Initialisation schemes as plain functions of keyed noise, a shape and its fans.

Each function bears its catalogue name and returns a float64 tensor. `shape` is (out, in) for a weight and (out,) for a
bias; fans are given, never read from a shape, so that no stack can be mistaken for a convolution. Schemes draw uniform
or normal noise at the same place of the same stream: trials with equal seeds share it, whatever their scheme.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from fanin.recipe import Choice
from fanin.streams import Stream


def initialize(choice: Choice, noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int) -> Tensor:
    """A float64 tensor of `shape`, drawn from `noise` by the scheme that a recipe's choice names."""
    scheme = getattr(sys.modules[__name__], choice.name)
    return scheme(noise, shape, fan_in=fan_in, fan_out=fan_out, **choice.keywords())


def _uniform(noise: Stream, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    return torch.from_numpy(low + (high - low) * noise.uniform(shape))


def _normal(noise: Stream, shape: tuple[int, ...], mean: float, std: float) -> Tensor:
    return torch.from_numpy(mean + std * noise.normal(shape))


def default(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int) -> Tensor:
    """U(-a, a), a = 1 / sqrt(fan_in): nn.Linear's kaiming_uniform with a = sqrt(5), and its bias."""
    bound = 1 / math.sqrt(fan_in)
    return _uniform(noise, shape, -bound, bound)


def zeros(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int) -> Tensor:
    """All zero."""
    return torch.zeros(shape, dtype=torch.float64)


def constant(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int, value: float) -> Tensor:
    """Every entry equal to `value`."""
    return torch.full(shape, value, dtype=torch.float64)


def normal(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int, mean: float, std: float) -> Tensor:
    """N(mean, std^2)."""
    return _normal(noise, shape, mean, std)


def uniform(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int, low: float, high: float) -> Tensor:
    """U(low, high)."""
    return _uniform(noise, shape, low, high)


def lecun_uniform(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int, gain: float) -> Tensor:
    """U(-a, a), a = gain * sqrt(3 / fan_in): variance gain^2 / fan_in (LeCun et al., 1998)."""
    bound = gain * math.sqrt(3 / fan_in)
    return _uniform(noise, shape, -bound, bound)


def lecun_normal(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int, gain: float) -> Tensor:
    """N(0, gain^2 / fan_in)."""
    return _normal(noise, shape, 0, gain / math.sqrt(fan_in))


def xavier_uniform(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int, gain: float) -> Tensor:
    """U(-a, a), a = gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010, equation 16)."""
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    return _uniform(noise, shape, -bound, bound)


def xavier_normal(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int, gain: float) -> Tensor:
    """N(0, gain^2 * 2 / (fan_in + fan_out)) (Glorot and Bengio, 2010, equation 12)."""
    return _normal(noise, shape, 0, gain * math.sqrt(2 / (fan_in + fan_out)))


def kaiming_uniform(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int, gain: float) -> Tensor:
    """U(-a, a), a = gain * sqrt(3 / fan_in), gain sqrt(2) for ReLU (He et al., 2015, equation 10)."""
    return lecun_uniform(noise, shape, fan_in=fan_in, fan_out=fan_out, gain=gain)


def kaiming_normal(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int, gain: float) -> Tensor:
    """N(0, gain^2 / fan_in), gain sqrt(2) for ReLU (He et al., 2015, equation 10)."""
    return lecun_normal(noise, shape, fan_in=fan_in, fan_out=fan_out, gain=gain)


def orthogonal(noise: Stream, shape: tuple[int, ...], *, fan_in: int, fan_out: int, gain: float) -> Tensor:
    """gain * Q, Q with orthonormal rows or columns, whichever are fewer, Haar-distributed (Saxe et al., 2014)."""
    rows, columns = shape
    tall = _normal(noise, (max(shape), min(shape)), 0, 1)
    q, r = torch.linalg.qr(tall)
    q *= torch.sign(torch.diagonal(r))  # without this, Q depends on the routine's sign convention
    return gain * (q if rows >= columns else q.T.contiguous())
