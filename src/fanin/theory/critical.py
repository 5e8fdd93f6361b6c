"""Criticality: the weights and biases at which signals and gradients neither die nor explode with depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch

from fanin.choice import Choice
from fanin.theory.quadrature import Activation, Function, function_of, sample
from fanin.theory.roots import root

_LEAST, _MOST, _RATIO = 1e-6, 1e6, 2.5  # variances q between which the critical line is looked at, and how finely
_LIMIT = 1e-24  # a variance that stands for the limit 0
_SAME = 1e-8


class Criticality(NamedTuple):
    """A point of the plane of initialisations, weights of variance weight_variance / fan_in; and its fixed point q."""

    weight_variance: float
    bias_variance: float
    variance: float


def critical_weight_variance(activation: Activation, bias_variance: float = 0.0, *, keep: float = 1.0) -> float:
    """The weight variance at which chi_1 = w E f'(sqrt(q*) z)^2 / keep = 1, for this bias variance.

    There order turns to chaos and gradients keep their size (Schoenholz et al., 2017, section 3). On this line w and
    the bias variance are functions of the fixed point, w(q) = keep / E f'^2 and b(q) = q - E f^2 / E f'^2, so that one
    root in q finds w, however slowly the variance map itself would settle. Among several, the least q to which the
    variance map is attracted. Where E f'^2 does not depend on q (ReLU: w = 2 keep) that is w for any bias; with biases
    the variance then grows by b at each layer. ValueError where there is no such w: GELU and SiLU without biases.
    """
    if isinstance(activation, str | Choice):
        return _named(activation, bias_variance, keep)
    return _critical(activation, bias_variance, keep)


@lru_cache(maxsize=1024)
def _named(activation: str | Choice, bias_variance: float, keep: float) -> float:
    return _critical(activation, bias_variance, keep)


def critical_point(activation: Activation) -> Criticality:
    """Where signals AND gradients keep their size: chi_1 = 1 and V'(q*) = 1, that is E f f'' = 0 (by Stein's lemma).

    ReLU and its leaky relatives: any q (1 is given). tanh, ELU, SELU, softsign: q -> 0, without biases. GELU (weight
    variance 1.983, bias variance 0.173), SiLU, Mish: a q > 0 that attracts from one side only (Roberts and Yaida,
    2022, section 5.3). ValueError where there is none with a bias variance of at least 0 (sigmoid, softplus).
    """
    f = function_of(activation)
    if (w := _homogeneous(f)) is not None:
        return Criticality(w, 0.0, 1.0)
    if (w := _vanishing(f)) is not None:
        return Criticality(w, 0.0, 0.0)
    for q in _roots(lambda q: _line(f, q)[2] - 1):
        w, b, _ = _line(f, q)
        if b >= 0:
            return Criticality(w, b, q)
    raise ValueError(f"{activation} has no critical point: no bias variance of at least 0 keeps both q and gradients")


def _critical(activation: Activation, bias_variance: float, keep: float) -> float:
    if not (0 <= bias_variance < math.inf and 0 < keep <= 1):
        raise ValueError(f"expected a finite bias_variance >= 0 and keep in (0, 1]; got {bias_variance:g} and {keep:g}")
    f = function_of(activation)
    if (w := _homogeneous(f)) is not None:
        return keep * w
    if (w := _vanishing(f)) is not None and bias_variance <= max(0.0, _line(f, _LEAST)[1]):
        return keep * w
    for q in _roots(lambda q: _line(f, q)[1] - bias_variance):
        w, b, response = _line(f, q)
        # a change of sign at a step of b(q) is no root; where V' > 1 the variance runs away from q
        if abs(b - bias_variance) <= _SAME * max(1.0, q) and response <= 1 + _SAME:
            return keep * w
    raise ValueError(_nowhere(activation, bias_variance))


def _line(f: Function, q: float) -> tuple[float, float, float]:
    """On the line chi_1 = 1, at the fixed point q: the weight variance (for keep 1), the bias variance, and V'(q).

    V'(q) = w d/dq E f(sqrt(q) z)^2 = w E[f f' z] / sqrt(q).
    """
    s = sample(f, q)
    steepness, moment, response = (
        torch.stack([s.slope.square(), s.f.square(), s.f * s.slope * s.u / q]).mv(s.weight).tolist()
    )
    if not 0 < steepness < math.inf:
        raise ValueError(f"the derivative of {f!r} has second moment {steepness:g}: no weights keep its gradients")
    return 1 / steepness, q - moment / steepness, response / steepness


def _homogeneous(f: Function) -> float | None:
    """The weight variance if f is positively homogeneous as far as its moments tell: one w, and b = 0, at all q."""
    try:
        first, *others = [(q, *_line(f, q)) for q in (1e-6, 1.0, 1e3)]
    except ValueError:
        _line(f, 1.0)  # what is wrong at moderate variances is wrong
        return None
    same = all(abs(w / first[1] - 1) < _SAME and abs(b / q) < _SAME for q, w, b, _ in (first, *others))
    return first[1] if same else None


def _vanishing(f: Function) -> float | None:
    """The weight variance where q -> 0 on the critical line without biases; None if q = 0 is no such limit.

    None too where small variances grow on the line (GELU), so that q = 0 does not attract.
    """
    w, b, response = _line(f, _LEAST)
    if not (abs(b / _LEAST) < 1e-3 and response <= 1):
        return None
    try:
        return _line(f, _LIMIT)[0]
    except ValueError:  # a formula that cancels where its argument is small
        return w


def _roots(f: Callable[[float], float]) -> Iterator[float]:
    """Roots q of f, from the least, as far as their signs are seen on a grid over the variances.

    The grid ends where an activation overflows, which a formula may do long before any signal is as large.
    """
    before, low = f(_LEAST), _LEAST
    while low < _MOST:
        high = low * _RATIO
        try:
            after = f(high)
        except ValueError:
            return
        if (before > 0) != (after > 0):
            yield math.exp(root(lambda x: f(math.exp(x)), math.log(low), math.log(high)))
        before, low = after, high


def _nowhere(activation: Activation, bias_variance: float) -> str:
    text = f"{activation} with bias variance {bias_variance:g} has no critical weight variance"
    try:
        point = critical_point(activation)
    except ValueError:
        return f"{text}; it has no critical point at all"
    return (
        f"{text}: no variance q > 0 is both kept and attracting. Signals die or explode whatever the weights; the point"
        f" at which q = {point.variance:.3g} is kept, attracting from one side only, is weight variance"
        f" {point.weight_variance:.4g}, bias variance {point.bias_variance:.3g}: give the biases that variance, normal"
        f" with standard deviation {math.ceil(1000 * math.sqrt(point.bias_variance)) / 1000:g} or more"
    )
