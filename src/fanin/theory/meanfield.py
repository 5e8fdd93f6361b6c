"""Mean field: variance and correlation maps of wide random networks, their fixed points and depth scales."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from fanin.choice import Choice
from fanin.theory.pairs import pair_mean
from fanin.theory.quadrature import Activation, Function, function_of, sample
from fanin.theory.roots import root

TRAINABLE = 6  # depth scales: how deep a network may be and still train (Schoenholz et al., 2017)

_SMALLEST, _LARGEST = 1e-10, 1e12  # a variance beyond has no fixed point but 0 or infinity
_STEP, _FINE, _STEPS = 0.25, 24, 500  # in log q, of the search for a fixed point; steps before they double; at most
_CLOSE = 1e-11  # a step that is an arrival
_SETTLED = 1e-9  # relative: what quadrature can tell from a fixed point
_NEARLY_ONE = 1 - 1e-7


@dataclass(frozen=True)
class MeanField:
    """A wide network of layers W f(z) + b: Var W = weight_variance / fan_in, Var b = bias_variance.

    Pre-activations are Gaussian; their variance q and the correlation c of two inputs follow maps from layer to layer
    (Poole et al., 2016; Schoenholz et al., 2017). keep: the probability of keeping an activation, of dropout whose kept
    activations grow by 1 / keep. ValueError for negative variances and keep outside (0, 1].
    """

    activation: Activation
    weight_variance: float
    bias_variance: float = 0.0
    keep: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.weight_variance < math.inf and 0 <= self.bias_variance < math.inf):
            given = f"{self.weight_variance:g} and {self.bias_variance:g}"
            raise ValueError(f"weight_variance, bias_variance: expected finite numbers of at least 0; got {given}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep: expected more than 0 and at most 1; got {self.keep:g}")

    def next_variance(self, q: float) -> float:
        """The variance map: V(q) = weight_variance E f(sqrt(q) z)^2 / keep + bias_variance."""
        samples = sample(self._f, q)
        return self.weight_variance * float(samples.mean(samples.f.square())) / self.keep + self.bias_variance

    @cached_property
    def variance(self) -> float:
        """q* = V(q*), where the variance map ends that starts at q = 1: 0 and infinity are possible.

        It is the nearest fixed point on the side to which V moves from 1, found by a bracketing root of V(q) / q - 1,
        to 1e-9 however slowly the map itself would come there. Where every q is fixed (ReLU, weight variance 2) it
        is the start, 1. Variances under 1e-10 count as 0, over 1e12 as infinite.
        """
        excess, slope = self._excess(0.0)
        if abs(excess) <= _SETTLED:
            return 1.0
        direction, log_q = (1 if excess > 0 else -1), 0.0
        for count in range(_STEPS):
            step = _STEP * 2 ** max(0, count - _FINE)
            if slope < 0:  # Newton's step does not jump over two roots that lie close together
                step = min(step, abs(excess / slope))
            before, log_q = log_q, log_q + direction * step
            if not math.log(_SMALLEST) <= log_q <= math.log(_LARGEST):
                return math.inf if direction > 0 else 0.0
            excess, slope = self._excess(log_q)
            if excess * direction < 0:
                return math.exp(root(lambda x: self._excess(x)[0], min(before, log_q), max(before, log_q)))
            if step < _CLOSE or excess == 0:
                break
        return math.exp(log_q)

    @cached_property
    def chi(self) -> float:
        """chi_1 = weight_variance E f'(sqrt(q*) z)^2 / keep: a squared gradient's change from one layer to the next.

        Where q* is 0 or infinite: the limit.
        """
        samples = sample(self._f, self._finite_variance)
        return self.weight_variance * float(samples.mean(samples.slope.square())) / self.keep

    def next_correlation(self, c: float) -> float:
        """The correlation map at q*: (weight_variance E f(u) f(v) + bias_variance) / V(q*), corr(u, v) = c."""
        q = self._finite_variance
        product = pair_mean(self._f, q, c, lambda s: s.f)
        return (self.weight_variance * product + self.bias_variance) / self.next_variance(q)

    @cached_property
    def correlation(self) -> float:
        """c*, where the correlation of two inputs ends: 1 in the ordered phase, less in chaos and with dropout.

        Less, too, for a function with jumps: there the map falls from 1 as a square root, whatever chi_1 is.
        """

        def excess(c: float) -> float:
            return self.next_correlation(c) - c

        if self.keep == 1 and self._slope_at_one <= 1 + _SETTLED and not self._jumps:
            return 1.0
        if excess(_NEARLY_ONE) >= 0:
            return 1.0
        lowest = excess(0.0)
        return 0.0 if lowest <= _SETTLED else root(excess, 0.0, _NEARLY_ONE)

    @cached_property
    def depth_scale(self) -> float:
        """xi = -1 / ln(slope of the correlation map at c*): layers over which two inputs remain distinct."""
        if self.correlation == 1:
            return _scale(self._slope_at_one)
        if self._jumps:
            return _scale(self._difference(self.correlation))
        q = self._finite_variance
        slope = self.weight_variance * q * pair_mean(self._f, q, self.correlation, lambda s: s.slope)
        return _scale(slope / self.next_variance(q))

    @property
    def gradient_depth_scale(self) -> float:
        """-1 / ln chi_1: layers over which a squared gradient falls by e; negative where it grows."""
        return _scale(self.chi)

    @property
    def trainable_depth(self) -> float:
        """About the depth up to which such a network trains: six depth scales."""
        return TRAINABLE * self.depth_scale

    @cached_property
    def _f(self) -> Function:
        return function_of(self.activation)

    @property
    def _finite_variance(self) -> float:
        return min(max(self.variance, _SMALLEST), _LARGEST)

    @property
    def _slope_at_one(self) -> float:
        """The slope of the correlation map at 1: chi_1, and where q* is infinite, chi_1 q / V(q) in the limit."""
        q = self._finite_variance
        return self.chi * q / self.next_variance(q) if self.variance == math.inf else self.chi

    @cached_property
    def _jumps(self) -> bool:
        """Whether f has jumps: the correlation map then rises by more than E f'(u) f'(v) tells (Price's theorem)."""
        if self.weight_variance == 0 or isinstance(self.activation, str | Choice):  # the catalogue's are continuous
            return False
        q, c = self._finite_variance, 0.5
        told = self.weight_variance * q * pair_mean(self._f, q, c, lambda s: s.slope) / self.next_variance(q)
        return self._difference(c) > told + 1e-4 * max(1.0, told)

    def _difference(self, c: float, h: float = 1e-3) -> float:
        """The slope of the correlation map by a difference quotient."""
        high, low = min(c + h, 1.0), max(c - h, -1.0)
        return (self.next_correlation(high) - self.next_correlation(low)) / (high - low)

    def _excess(self, log_q: float) -> tuple[float, float]:
        """V(q) / q - 1, and its derivative by log q: V' q = weight_variance E[f(u) f'(u) u] / keep, u = sqrt(q) z."""
        q = math.exp(log_q)
        samples, scale = sample(self._f, q), self.weight_variance / self.keep
        after = scale * float(samples.mean(samples.f.square())) + self.bias_variance
        if not math.isfinite(after):
            return math.inf, 0.0
        return after / q - 1, (scale * float(samples.mean(samples.f * samples.slope * samples.u)) - after) / q


def _scale(slope: float) -> float:
    """-1 / ln slope: over how many layers a distance that shrinks by `slope` at each shrinks by e."""
    if slope <= 0:
        return 0.0
    return math.inf if abs(slope - 1) <= _SETTLED else -1 / math.log(slope)
