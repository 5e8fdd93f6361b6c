"""What pairs of runs say: when "helps" is said, and how seldom without cause."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fanin.proof.verdict import judge
from fanin.statistics import paired_difference, ratio_interval, smallest_effect

rng = np.random.default_rng


def test_a_clear_gain_helps_and_its_mirror_hurts():
    before = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.02, 0.98]
    after = [x - 0.5 + 0.01 * i for i, x in enumerate(before)]
    assert judge(before, after, greater_is_better=False).word == "helps"
    assert judge(before, after, greater_is_better=True).word == "hurts"
    assert judge(after, before, greater_is_better=False).word == "hurts"


def test_with_all_runs_finished_the_verdict_is_the_paired_difference():
    drawn = rng(3)
    for _ in range(200):
        before, after = drawn.normal(size=8), drawn.normal(0.9, size=8)
        word = judge(before.tolist(), after.tolist(), greater_is_better=True).word
        expected = {"higher": "helps", "lower": "hurts"}.get(paired_difference(after, before).verdict, "no evidence")
        assert word == expected


@pytest.mark.parametrize("divergence", [0.0, 0.3])
def test_a_remedy_without_effect_helps_in_at_most_one_of_twenty(divergence):
    """200 repetitions of 8 pairs, heavy tails, runs that diverge."""
    drawn, helps = rng(7), 0
    for _ in range(200):
        values = drawn.standard_t(3, size=(2, 8))
        values[drawn.random((2, 8)) < divergence] = np.nan
        before, after = ([None if np.isnan(v) else float(v) for v in row] for row in values)
        helps += judge(before, after, greater_is_better=False).word == "helps"
    assert helps <= 10


def test_the_count_of_false_claims_can_fail():
    drawn = rng(7)
    pairs = [(drawn.normal(size=8), drawn.normal(-2, size=8)) for _ in range(200)]
    helps = sum(judge(b.tolist(), a.tolist(), greater_is_better=False).word == "helps" for b, a in pairs)
    assert helps > 100


def test_five_variants_without_effect_are_judged_together():
    drawn, wrong = rng(11), 0
    for _ in range(200):
        before = drawn.normal(size=8).tolist()
        words = [
            judge(before, drawn.normal(size=8).tolist(), greater_is_better=False, comparisons=5).word for _ in range(5)
        ]
        wrong += "helps" in words
    assert wrong <= 10


def test_a_run_that_diverges_is_worse_than_any_other():
    found = judge([None] * 8, [5.0] * 8, greater_is_better=False)
    assert found.word == "helps"
    assert (found.better, found.before.successes, found.after.successes) == (8, 0, 8)
    assert found.difference is None
    assert "finished 8/8 against 0/8" in found.text
    assert judge([5.0] * 8, [None] * 8, greater_is_better=False).word == "hurts"
    assert judge([None] * 8, [None] * 8, greater_is_better=False).word == "no evidence"


def test_divergence_is_asked_at_the_level_of_all_variants():
    before, after = [None, *[1.0] * 6], [0.5] * 7  # p = 2 / 2^7 = 0.0156
    assert judge(before, after, greater_is_better=False).word == "helps"
    assert judge(before, after, greater_is_better=False, comparisons=4).word == "no evidence"


def test_more_divergence_is_never_called_help():
    before = [1.0 + 0.01 * i for i in range(12)]
    after = [0.1] * 11 + [None]
    assert judge(before, after, greater_is_better=False).word == "no evidence"


def test_too_few_seeds_claim_nothing_and_say_so():
    found = judge([1.0] * 5, [0.0, 0.1, 0.0, 0.1, 0.0], greater_is_better=False)
    assert found.word == "too few seeds"
    assert "at least 6" in found.text


def test_no_evidence_tells_the_smallest_effect():
    values = [0.1, -0.2, 0.3, -0.1, 0.05, 0.15, -0.25, 0.0]
    found = judge([0.0] * 8, values, greater_is_better=False)
    t = stats.t(7)
    expected = (t.ppf(0.975) + t.ppf(0.8)) * np.std(values, ddof=1) / np.sqrt(8)
    assert found.smallest == pytest.approx(expected, rel=1e-12)
    assert f"could have shown is {expected:.3g}" in found.text


def test_an_effect_of_the_smallest_size_is_found_four_times_of_five():
    """Power by simulation: true effect = (t + t) s / sqrt(n) with s known; the t test alone."""
    drawn, n, hits = rng(5), 12, 0
    effect = (stats.t(n - 1).ppf(0.975) + stats.t(n - 1).ppf(0.8)) / np.sqrt(n)
    for _ in range(2000):
        found = paired_difference(drawn.normal(effect, size=n), np.zeros(n))
        hits += found.low is not None and found.low > 0
    assert 0.77 < hits / 2000 < 0.86


def test_smallest_effect_falls_with_the_root_of_n_and_is_none_of_one():
    values = [1.0, -1.0] * 8
    assert smallest_effect(values * 4) < smallest_effect(values) / 1.9
    assert smallest_effect([1.0]) is None
    assert smallest_effect(values, comparisons=5) > smallest_effect(values)


def test_fiellers_interval_covers_a_ratio_in_95_of_100():
    drawn, inside = rng(2), 0
    true = 3.0 / 4.0
    for _ in range(2000):
        noise = drawn.normal(size=(6, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
        pairs = noise + np.array([3.0, 4.0])
        cov = np.cov(pairs.T) / 6
        found = ratio_interval(tuple(pairs.mean(0)), (cov[0, 0], cov[1, 1]), cov[0, 1], freedom=5, confidence=0.95)
        inside += found.low is None or found.low <= true <= found.high
    assert 0.94 < inside / 2000 < 0.96


def test_fieller_is_the_t_interval_where_the_divisor_is_certain():
    found = ratio_interval((3.0, 2.0), (0.04, 0.0), 0.0, freedom=7, confidence=0.95)
    half = stats.t(7).ppf(0.975) * 0.2 / 2
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.5 - half, 1.5 + half), rel=1e-12)


def test_a_share_of_what_may_be_nothing_has_no_interval():
    found = ratio_interval((1.0, 0.1), (1.0, 1.0), 0.0, freedom=7, confidence=0.95)
    assert (found.low, found.high) == (None, None)
