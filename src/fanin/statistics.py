"""Statistics of few paired seeds: intervals, an exact test, cautious verdicts, the band of a reproduction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special  # not scipy.stats, which takes a second to load

from fanin.errors import FaninError

CONFIDENCE = 0.95
SEEDS_FOR_A_BAND = 6  # the reproduction rule speaks of the spread of at least so many seeds

Verdict = Literal["higher", "lower", "no evidence", "too few pairs"]


@dataclass(frozen=True)
class Mean:
    """A sample mean and its interval, in the sample's unit; one value has no interval (low = high = None)."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Rate:
    """`successes` of `n`, with an interval for the probability; all within [0, 1]."""

    successes: int
    n: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Paired differences a - b: mean and interval in the values' unit; `p` of the exact two-sided sign test.

    `wins` + `ties` + `losses` = `n` count the pairs with a > b, a = b, a < b. `confidence` is that of all
    `comparisons` together, so the single interval is wider. `values` are the differences, pair by pair.
    """

    mean: float
    low: float | None
    high: float | None
    p: float
    wins: int
    ties: int
    losses: int
    n: int
    comparisons: int
    confidence: float
    values: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """A direction if the simultaneous interval excludes 0 and the sign test has p <= 1 - confidence.

        The t interval answers for many comparisons at once but trusts a normal distribution, which six
        numbers cannot confirm; the sign test assumes nothing about it, but with six pairs cannot go under
        p = 1/32, so it is asked at the level of a single comparison. Only where both agree is a difference
        claimed. "too few pairs": no outcome of the sign test could have been a claim, so nothing was tested.
        """
        if self.n < fewest_pairs(self.confidence):
            return "too few pairs"
        if self.low is None or self.high is None or self.p > 1 - self.confidence:
            return "no evidence"
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "no evidence"


def mean_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Mean:
    """mean +- t(n - 1) * s / sqrt(n): Student's interval for the mean of at least one finite value."""
    x = _finite(values)
    _check_confidence(confidence)
    mean = float(x.mean()) if x.min() < x.max() else float(x[0])  # n equal values have exactly that mean
    if len(x) < 2:
        return Mean(mean, None, None, len(x))
    half = float(special.stdtrit(len(x) - 1, (1 + confidence) / 2) * _deviation(x) / math.sqrt(len(x)))
    return Mean(mean, mean - half, mean + half, len(x))


def success_rate(successes: int, n: int, *, confidence: float = CONFIDENCE) -> Rate:
    """k / n with Wilson's score interval: all p with |k/n - p| <= z * sqrt(p (1 - p) / n) (Wilson, 1927)."""
    _check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise FaninError(f"a success rate: expected 0 <= successes <= n and n >= 1; got {successes} of {n}")
    z = float(special.ndtri((1 + confidence) / 2))
    rate, scale = successes / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / scale
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / scale
    low = 0.0 if successes == 0 else centre - half  # exactly 0 and 1 at the ends, whatever the rounding
    high = 1.0 if successes == n else centre + half
    return Rate(successes, n, rate, low, high)


def simultaneous_confidence(confidence: float, comparisons: int) -> float:
    """1 - (1 - confidence) / k: the level of each of k intervals that together have it (Bonferroni)."""
    _check_confidence(confidence)
    if comparisons < 1:
        raise FaninError(f"comparisons: expected at least 1; got {comparisons}")
    return 1 - (1 - confidence) / comparisons


def fewest_pairs(confidence: float = CONFIDENCE) -> int:
    """The smallest n with 2 / 2^n <= 1 - confidence: the fewest pairs whose sign test can claim anything; 6 at 95 %."""
    _check_confidence(confidence)
    return math.ceil(1 - math.log2(1 - confidence))


def sign_test(wins: int, losses: int) -> float:
    """p = min(1, 2 P(X >= max(wins, losses))), X ~ Binomial(wins + losses, 1/2); ties are left out."""
    n, most = wins + losses, max(wins, losses)
    term = tail = math.comb(n, most)
    for k in range(most, n):  # exact, each binomial coefficient from the one before
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)


def paired_difference(
    a: Sequence[float], b: Sequence[float], *, comparisons: int = 1, confidence: float = CONFIDENCE
) -> Difference:
    """Mean of a_i - b_i, its t interval at the Bonferroni level over `comparisons`, the exact sign test.

    Pair i is seed i in both arms. FaninError if the lengths differ or a value is not finite.
    """
    if len(a) != len(b):
        raise FaninError(f"paired values: expected as many of a as of b; got {len(a)} and {len(b)}")
    d = _finite(a) - _finite(b)
    single = mean_interval(d.tolist(), confidence=simultaneous_confidence(confidence, comparisons))
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    return Difference(
        mean=single.mean,
        low=single.low,
        high=single.high,
        p=sign_test(wins, losses),
        wins=wins,
        ties=len(d) - wins - losses,
        losses=losses,
        n=len(d),
        comparisons=comparisons,
        confidence=confidence,
        values=tuple(d.tolist()),
    )


def smallest_effect(
    differences: Sequence[float], *, comparisons: int = 1, confidence: float = CONFIDENCE, power: float = 0.8
) -> float | None:
    """(t(n - 1; (1 + c) / 2) + t(n - 1; power)) * s / sqrt(n): the mean difference that n such pairs would show.

    s is the deviation of the paired differences, c the Bonferroni level over `comparisons`; a true effect of that size
    is found with about the probability `power` (Cohen, 1988, with t for z). None of fewer than 2 pairs.
    """
    d = _finite(differences)
    level = simultaneous_confidence(confidence, comparisons)
    if len(d) < 2:
        return None
    t = special.stdtrit(len(d) - 1, (1 + level) / 2) + special.stdtrit(len(d) - 1, power)
    return float(t * _deviation(d) / math.sqrt(len(d)))


@dataclass(frozen=True)
class Ratio:
    """A ratio of two means and its interval; low = high = None where the interval is not bounded."""

    value: float
    low: float | None
    high: float | None


def ratio_interval(
    means: tuple[float, float], variances: tuple[float, float], covariance: float, *, freedom: int, confidence: float
) -> Ratio:
    """All r with (a - r b)^2 <= t^2 (v_a - 2 r v_ab + r^2 v_b): Fieller's interval of E a / E b (Fieller, 1954).

    means: a and b; variances, covariance: of these means, not of single values. It is exact for normal a and b, with
    few pairs too, where a bootstrap of so few is too narrow. Not bounded where b's own interval holds 0: there is then
    no whole to take a share of.
    """
    _check_confidence(confidence)
    (a, b), (va, vb) = means, variances
    t2 = float(special.stdtrit(freedom, (1 + confidence) / 2)) ** 2
    value = a / b if b else math.nan
    square, half, rest = b * b - t2 * vb, a * b - t2 * covariance, a * a - t2 * va
    if square <= 0:
        return Ratio(value, None, None)
    reach = math.sqrt(max(0.0, half * half - square * rest))
    return Ratio(value, min(value, (half - reach) / square), max(value, (half + reach) / square))


def spread_band(values: Sequence[float], published: float, cost: bool) -> tuple[float, float] | None:
    """[min - r, max + r], r = max - min, for costs widened by 5 % of the published value; None under 6 seeds.

    Losses count as costs. The lab's rule for "reproduced": a point inside could be one more seed of ours.
    """
    if len(values) < SEEDS_FOR_A_BAND:
        return None
    x = _finite(values)
    reach = float(x.max() - x.min()) + (0.05 * abs(published) if cost else 0.0)
    return float(x.min()) - reach, float(x.max()) + reach


def _deviation(x: np.ndarray) -> float:
    return float(x.std(ddof=1)) if x.min() < x.max() else 0.0  # equal values: exactly 0, free of rounding


def _finite(values: Sequence[float]) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise FaninError(f"a sample: expected at least one finite number in a row; got {values!r}")
    return x


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise FaninError(f"confidence: expected a number between 0 and 1, such as 0.95; got {confidence!r}")
