"""The arithmetic of attribution against slow definitions, and planted effects that it finds again."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from fanin.proof.attribution import attribute, cells_of, contrasts, dividends, orders, shapley


def subsets(cell: int) -> list[int]:
    return [t for t in range(cell + 1) if t & cell == t]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_contrasts_are_the_definitions_sum(k):
    values = np.random.default_rng(k).normal(size=(3, 2**k))
    slow = np.zeros_like(values)
    for s in range(2**k):
        for t in range(2**k):
            signs = np.prod([1 if t >> i & 1 else -1 for i in range(k) if s >> i & 1])
            slow[:, s] += 2.0 ** (1 - k) * signs * values[:, t]
    np.testing.assert_allclose(contrasts(values), slow, atol=1e-12)
    odd = [s for s in range(2**k) if s.bit_count() % 2]
    np.testing.assert_allclose(contrasts(values)[:, odd].sum(1), values[:, -1] - values[:, 0], atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_dividends_are_the_inclusion_exclusion_sum_and_add_up(k):
    values = np.random.default_rng(k).normal(size=(2, 2**k))
    slow = np.stack(
        [sum((-1) ** (s.bit_count() - t.bit_count()) * values[:, t] for t in subsets(s)) for s in range(2**k)], axis=1
    )
    np.testing.assert_allclose(dividends(values), slow, atol=1e-12)
    np.testing.assert_allclose(dividends(values)[:, 1:].sum(1), values[:, -1] - values[:, 0], atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_shapley_is_the_mean_over_all_orders_and_adds_up(k):
    values = np.random.default_rng(k).normal(size=2**k)
    slow, every = np.zeros(k), list(permutations(range(k)))
    for order in every:
        cell = 0
        for i in order:
            slow[i] += (values[cell | 1 << i] - values[cell]) / len(every)
            cell |= 1 << i
    np.testing.assert_allclose(shapley(values), slow, atol=1e-12)
    assert shapley(values).sum() == pytest.approx(values[-1] - values[0], abs=1e-12)


def test_two_factors_by_hand():
    """v = 1, 4, 3, 10, by Box, Hunter and Hunter's definition."""
    effects = contrasts(np.array([1.0, 4.0, 3.0, 10.0]))
    assert effects[1] == ((4 - 1) + (10 - 3)) / 2
    assert effects[2] == ((3 - 1) + (10 - 4)) / 2
    assert effects[3] == ((10 - 3) - (4 - 1)) / 2


def test_a_table_that_is_no_factorial_is_refused():
    with pytest.raises(ValueError, match=r"2\^k"):
        contrasts(np.zeros(3))


def planted(k: int, seeds: int, noise: float, drawn: np.random.Generator) -> tuple[dict[int, float], np.ndarray]:
    """Dividends of single factors and of pairs; values by cell, with a part of each seed's own and noise."""
    true = {s: drawn.normal() * (2.0 if s.bit_count() == 1 else 0.7) for s in range(1, 2**k) if s.bit_count() <= 2}
    table = np.array([sum(d for s, d in true.items() if s & cell == s) for cell in range(2**k)])
    own = drawn.normal(size=(seeds, 1))  # what a seed does in all cells: pairing takes it away
    return true, table + own + noise * drawn.normal(size=(seeds, 2**k))


def test_planted_effects_and_interactions_lie_within_their_intervals():
    """50 repetitions with 1 to 4 factors: all effects and all shares of a repetition together, in >= 90 %."""
    drawn, hits = np.random.default_rng(1), 0
    for repetition in range(50):
        k = 1 + repetition % 4
        true, table = planted(k, 8, 0.3, drawn)
        names = [f"f{i}" for i in range(k)]
        clean = np.array([sum(d for s, d in true.items() if s & cell == s) for cell in range(2**k)])
        found = attribute(names, {cell: table[:, cell].tolist() for cell in range(2**k)})
        effects = contrasts(clean)
        right = all(
            e.value.low <= effects[sum(1 << names.index(f) for f in e.factors)] <= e.value.high for e in found.effects
        )
        shares = shapley(clean)
        right &= all(s.value.low <= shares[names.index(s.factor)] <= s.value.high for s in found.shares)
        assert sum(s.value.mean for s in found.shares) == pytest.approx(found.difference.mean, abs=1e-12)
        assert sum(s.share.value for s in found.shares) == pytest.approx(1)
        hits += right
    assert hits >= 45


def test_planted_effects_are_missed_where_they_are_not():
    """The same comparison against effects that are off by one finds that they are not those."""
    true, table = planted(3, 8, 0.3, np.random.default_rng(1))
    clean = np.array([sum(d for s, d in true.items() if s & cell == s) for cell in range(8)])
    found = attribute(["a", "b", "c"], {cell: table[:, cell].tolist() for cell in range(8)})
    wrong = shapley(clean) + 1
    assert not any(s.value.low <= wrong["abc".index(s.factor)] <= s.value.high for s in found.shares)


def test_shares_of_sampled_orders_lie_within_their_intervals():
    """Six factors, 16 orders: planted Shapley values, in >= 90 % of 50 repetitions."""
    drawn, hits, k = np.random.default_rng(4), 0, 6
    names = [f"f{i}" for i in range(k)]
    for repetition in range(50):
        true, table = planted(k, 8, 0.3, drawn)
        true[0b111] = 1.5  # three together: there an order and its reverse do not average exactly
        table = table + np.array([1.5 * (cell & 0b111 == 0b111) for cell in range(2**k)])
        chosen = orders(k, 16, seed=repetition)
        values = {cell: table[:, cell].tolist() for cell in cells_of(k, chosen)}
        found = attribute(names, values, chosen=chosen)
        clean = np.array([sum(d for s, d in true.items() if s & cell == s) for cell in range(2**k)])
        exact = shapley(clean)
        assert sum(s.value.mean for s in found.shares) == pytest.approx(found.difference.mean, abs=1e-9)
        hits += all(s.value.low <= exact[names.index(s.factor)] <= s.value.high for s in found.shares)
    assert hits >= 45


def test_pairs_of_factors_are_shared_exactly_by_an_order_and_its_reverse():
    k, drawn = 5, np.random.default_rng(9)
    true, _ = planted(k, 2, 0.0, drawn)
    clean = np.array([sum(d for s, d in true.items() if s & cell == s) for cell in range(2**k)])
    chosen = orders(k, 2)
    found = attribute(list("abcde"), {c: [clean[c], clean[c]] for c in cells_of(k, chosen)}, chosen=chosen)
    for share in found.shares:
        assert share.value.mean == pytest.approx(shapley(clean)["abcde".index(share.factor)], abs=1e-12)


def test_orders_come_in_pairs_and_by_their_seed():
    found = orders(6, 7, seed=3)
    assert len(found) == 8
    assert all(sorted(order) == list(range(6)) for order in found)
    assert all(a == b[::-1] for a, b in zip(found[::2], found[1::2], strict=True))
    assert found == orders(6, 7, seed=3)
    assert found != orders(6, 7, seed=4)


def test_cells_hold_both_ends_and_all_that_differ_by_one():
    assert cells_of(2) == (0, 1, 2, 3)
    found = set(cells_of(5, orders(5, 2)))
    assert {0, 31, 1, 2, 4, 8, 16, 30, 29, 27, 23, 15} <= found
    assert len(found) < 32


def test_one_at_a_time_from_both_ends_tells_of_interaction():
    found = attribute(["a", "b"], {0: [0.0, 0.0], 1: [1.0, 1.0], 2: [0.0, 0.0], 3: [5.0, 5.0]})
    share = next(s for s in found.shares if s.factor == "a")
    assert (share.from_b.mean, share.from_a.mean, share.value.mean) == (1.0, 5.0, 3.0)
