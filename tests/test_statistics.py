"""Statistics against scipy's own, hand-computed numbers, simulations; each comparator can fail."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fanin.errors import FaninError
from fanin.statistics import (
    fewest_pairs,
    mean_interval,
    paired_difference,
    sign_test,
    simultaneous_confidence,
    spread_band,
    success_rate,
)

SAMPLE = [0.9801, 0.9812, 0.9795, 0.9830, 0.9787, 0.9821]
finite = st.floats(-1e6, 1e6, allow_nan=False)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_mean_interval_is_scipys(confidence):
    found = mean_interval(SAMPLE, confidence=confidence)
    low, high = stats.t.interval(confidence, 5, loc=np.mean(SAMPLE), scale=stats.sem(SAMPLE))
    assert (found.mean, found.low, found.high, found.n) == (
        pytest.approx(np.mean(SAMPLE)),
        pytest.approx(low),
        pytest.approx(high),
        6,
    )


def test_mean_interval_by_hand():
    # s = 1, t(2) at 97.5 % = 4.302653, / sqrt(3)
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)


def test_one_value_has_no_interval_and_none_is_an_error():
    assert mean_interval([0.3]) == type(mean_interval([0.3]))(0.3, None, None, 1)
    with pytest.raises(FaninError, match="at least one finite number"):
        mean_interval([])
    with pytest.raises(FaninError, match="finite"):
        mean_interval([1.0, math.nan])
    with pytest.raises(FaninError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], confidence=95)


def test_equal_values_have_a_point_interval_exactly():
    found = mean_interval([0.1] * 6)
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)


def test_mean_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [mean_interval(rng.normal(3, 2, 6).tolist()) for _ in range(2000)]
    covered = np.mean([m.low <= 3 <= m.high for m in found])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_a_normal_quantile_would_not_cover():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (2000, 6))
    half = 1.96 * x.std(axis=1, ddof=1) / math.sqrt(6)
    assert np.mean(abs(x.mean(axis=1) - 3) <= half) < 0.92


@pytest.mark.parametrize(("k", "n"), [(0, 6), (1, 6), (3, 6), (6, 6), (17, 40), (1, 1)])
def test_success_rate_is_scipys_wilson_interval(k, n):
    found, oracle = success_rate(k, n), stats.binomtest(k, n).proportion_ci(method="wilson")
    assert found.rate == k / n
    assert (found.low, found.high) == (pytest.approx(oracle.low, abs=1e-12), pytest.approx(oracle.high))
    assert 0 <= found.low <= found.rate <= found.high <= 1


def test_success_rate_refuses_what_is_no_rate():
    for k, n in ((0, 0), (7, 6), (-1, 6)):
        with pytest.raises(FaninError, match="0 <= successes <= n"):
            success_rate(k, n)


def test_simultaneous_confidence_by_hand():
    assert simultaneous_confidence(0.95, 1) == pytest.approx(0.95)
    assert simultaneous_confidence(0.95, 5) == pytest.approx(0.99)
    with pytest.raises(FaninError, match="comparisons"):
        simultaneous_confidence(0.95, 0)


@pytest.mark.parametrize(("wins", "losses"), [(6, 0), (0, 6), (5, 1), (3, 3), (5, 0), (0, 0), (40, 2)])
def test_sign_test_is_scipys_binomial_test(wins, losses):
    oracle = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(oracle)


def test_five_pairs_can_never_be_significant_and_six_can():
    assert sign_test(5, 0) == 0.0625
    assert sign_test(6, 0) == 0.03125


@pytest.mark.parametrize("comparisons", [1, 9])
def test_paired_difference_is_scipys_paired_t_interval(comparisons):
    b = [0.9780, 0.9801, 0.9790, 0.9799, 0.9770, 0.9800]
    found = paired_difference(SAMPLE, b, comparisons=comparisons)
    oracle = stats.ttest_rel(SAMPLE, b).confidence_interval(1 - 0.05 / comparisons)
    assert (found.low, found.high) == (pytest.approx(oracle.low), pytest.approx(oracle.high))
    assert (found.wins, found.ties, found.losses, found.n) == (6, 0, 0, 6)
    assert found.p == 0.03125


def test_pairing_finds_what_unpaired_arms_hide():
    shared = np.array([0.90, 0.92, 0.94, 0.91, 0.95, 0.93])
    a, b = shared + np.array([0.004, 0.005, 0.006, 0.005, 0.004, 0.006]), shared
    assert paired_difference(a, b).verdict == "higher"
    assert paired_difference(a, b[::-1]).verdict == "no evidence"


def test_each_verdict_occurs():
    up = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0]
    zero = [0.0] * 6
    assert paired_difference(up, zero).verdict == "higher"
    assert paired_difference(zero, up).verdict == "lower"
    assert paired_difference([1.0, -1.1, 0.9, -1.05, 0.95, -1.0], zero).verdict == "no evidence"


def test_the_interval_alone_claims_nothing():
    # six pairs, one of them a loss: the interval excludes 0, the sign test has p = 14/64
    found = paired_difference([1.0, 1.1, 0.9, 1.05, 0.95, -0.01], [0.0] * 6)
    assert found.low > 0
    assert found.verdict == "no evidence"


def test_with_too_few_pairs_nothing_was_tested():
    # five pairs, far from 0: the interval excludes it, the sign test cannot speak
    found = paired_difference([1.0, 1.1, 0.9, 1.05, 0.95], [0.0] * 5)
    assert found.low > 0
    assert found.verdict == "too few pairs"


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.9375, 0.95, 0.99])
def test_the_fewest_pairs_are_those_whose_sign_test_can_claim(confidence):
    n = fewest_pairs(confidence)
    assert sign_test(n, 0) <= 1 - confidence
    assert sign_test(n - 1, 0) > 1 - confidence
    assert fewest_pairs() == 6


def test_the_sign_test_alone_claims_nothing():
    # six wins, but one so large that the mean is not known
    found = paired_difference([0.1, 0.1, 0.1, 0.1, 0.1, 60.0], [0.0] * 6)
    assert found.p < 0.05
    assert found.verdict == "no evidence"


def test_more_comparisons_need_more_evidence():
    a = [0.5, 1.0, 1.5, 0.7, 1.2, 0.2]
    assert paired_difference(a, [0.0] * 6, comparisons=1).verdict == "higher"
    assert paired_difference(a, [0.0] * 6, comparisons=200).verdict == "no evidence"


def test_equal_pairs_are_no_evidence_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = paired_difference([0.1135] * 6, [0.1135] * 6, comparisons=9)
    assert (found.mean, found.low, found.high, found.p, found.ties) == (0.0, 0.0, 0.0, 1.0, 6)
    assert found.verdict == "no evidence"


def test_one_pair_has_no_interval_and_lengths_must_agree():
    found = paired_difference([0.9], [0.8])
    assert (found.low, found.high, found.n, found.verdict) == (None, None, 1, "too few pairs")
    with pytest.raises(FaninError, match="as many of a as of b"):
        paired_difference([1.0], [1.0, 2.0])


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=12))
def test_swapping_the_arms_mirrors_the_answer(pairs):
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.mean == pytest.approx(-other.mean)
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert {one.verdict, other.verdict} in ({"too few pairs" if len(pairs) < 6 else "no evidence"}, {"higher", "lower"})
    assert one.p == other.p


def test_no_difference_is_rarely_claimed_over_a_whole_study():
    # 4 arms that equal the first: at least one false claim in at most 5 % of studies, whatever the noise
    rng = np.random.default_rng(1)
    for draw in (rng.standard_normal, lambda size: rng.exponential(size=size) ** 2):
        false = 0
        for _ in range(300):
            first, *rest = draw((5, 6))
            false += any(paired_difference(r, first, comparisons=4).verdict != "no evidence" for r in rest)
        assert false / 300 <= 0.05


def test_spread_band_by_hand():
    ours = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15]
    assert spread_band(ours, 0.2, cost=False) == (pytest.approx(0.05), pytest.approx(0.20))
    assert spread_band(ours, 0.2, cost=True) == (pytest.approx(0.04), pytest.approx(0.21))


def test_spread_band_can_fail_a_published_point():
    # LAB9: dropout 0.9772 lies inside for the dropout arm; 0.8196 is no ReLU network's
    low, high = spread_band([0.978, 0.979, 0.980, 0.981, 0.982, 0.983], 0.9772, cost=False)
    assert low <= 0.9772 <= high
    assert not low <= 0.8196 <= high


def test_spread_band_needs_six_seeds():
    assert spread_band([0.1] * 5, 0.1, cost=True) is None
    assert spread_band([0.1] * 6, 0.1, cost=False) == (0.1, 0.1)
