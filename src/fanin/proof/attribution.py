"""Attribution: a difference between two settings of k factors, divided among them; plain arithmetic, no torch.

A cell says which factors are at A's level: bit i of its number is factor i. Cell 0 is B, cell 2^k - 1 is A; v(S) is
what was measured with the factors S at A's level, one value for each seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fanin.statistics import (
    CONFIDENCE,
    Difference,
    Mean,
    Ratio,
    mean_interval,
    paired_difference,
    ratio_interval,
    simultaneous_confidence,
)
from fanin.streams import Stream

FULL = 4  # factors, up to which all 2^k cells are run
PERMUTATIONS = 16  # orders of more factors, in 8 pairs of an order and its reverse


@dataclass(frozen=True)
class Effect:
    """What factors do beyond what fewer of them do; see `contrasts`. value: its mean over seeds and interval."""

    factors: tuple[str, ...]
    value: Mean


@dataclass(frozen=True)
class Share:
    """A factor's Shapley value, in the metric's unit and as a share of A - B; shares add up to 1.

    from_a, from_b: A minus A with this factor at B's level, and B with it at A's level minus B. They are equal where it
    does not interact with others.
    """

    factor: str
    value: Mean
    share: Ratio
    from_a: Mean
    from_b: Mean


@dataclass(frozen=True)
class Attribution:
    """difference: A - B, paired by seed. shares: the largest first. effects: none if orders were sampled."""

    difference: Difference
    shares: tuple[Share, ...]
    effects: tuple[Effect, ...]
    orders: int | None


def contrasts(values: np.ndarray) -> np.ndarray:
    """Yates' effects e(S) = 2^(1-k) sum_T v(T) prod_{i in S} s_i(T), s_i = 1 if T has i, else -1.

    values: (..., 2^k) by cell. A single factor's is its mean effect over the others' levels; two factors' is half the
    difference of one's effects at the other's levels (Box, Hunter and Hunter, 2005, chapter 5). Those of odd sets add
    up to A - B. e(0) is twice the grand mean.
    """
    k, x = _factors(values), np.asarray(values, dtype=float)
    for axis in range(k):
        low, high = _levels(x, axis)
        x = _joined(high + low, high - low, axis)
    return x / 2 ** (k - 1) if k else x * 2


def dividends(values: np.ndarray) -> np.ndarray:
    """Harsanyi's d(S) = sum_{T in S} (-1)^(|S| - |T|) v(T): what S does that no part of it does (Harsanyi, 1963).

    values: (..., 2^k) by cell. Over all S but the empty one they add up to A - B.
    """
    k, x = _factors(values), np.asarray(values, dtype=float)
    for axis in range(k):
        low, high = _levels(x, axis)
        x = _joined(low, high - low, axis)
    return x


def shapley(values: np.ndarray) -> np.ndarray:
    """phi_i = sum_{S with i} d(S) / |S|, (..., k): each factor's mean effect over all orders of change (Shapley, 1953).

    They add up to A - B.
    """
    k, d = _factors(values), dividends(values)
    sizes = np.array([max(1, cell.bit_count()) for cell in range(2**k)])
    members = np.array([[cell >> i & 1 for cell in range(2**k)] for i in range(k)], dtype=float).reshape(k, 2**k)
    return (d / sizes) @ members.T


def orders(k: int, count: int, *, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """`count` orders of k factors, each followed by its reverse, as Castro et al. (2009) sample, in antithetic pairs.

    What factors do in pairs, an order and its reverse average exactly. An odd count is rounded up.
    """
    stream = Stream(seed, "orders")
    drawn = [tuple(int(i) for i in stream.permutation(k)) for _ in range(-(-count // 2))]
    return tuple(order for each in drawn for order in (each, each[::-1]))


def cells_of(k: int, chosen: Sequence[Sequence[int]] = ()) -> tuple[int, ...]:
    """All 2^k cells; with `chosen` orders those on their ways from B to A, and those that differ from an end by one."""
    if not chosen:
        return tuple(range(2**k))
    top = 2**k - 1
    ends = {0, top} | {1 << i for i in range(k)} | {top ^ 1 << i for i in range(k)}
    return tuple(sorted(ends | {cell for order in chosen for cell in _way(order)}))


def attribute(
    names: Sequence[str],
    values: Mapping[int, Sequence[float]],
    *,
    chosen: Sequence[Sequence[int]] = (),
    confidence: float = CONFIDENCE,
) -> Attribution:
    """Shares and effects, from the values of the cells of `cells_of`, in the order of the seeds.

    Intervals are t intervals over seeds, simultaneous over the factors, and over all effects. Of sampled orders the
    pairs of an order and its reverse are a second source of error: variances add up, and the fewer of seeds and pairs
    give the degrees of freedom, which is cautious. Intervals of shares are Fieller's: see statistics.ratio_interval.
    """
    k, cells = len(names), {cell: np.asarray(v, dtype=float) for cell, v in values.items()}
    top = 2**k - 1
    difference = paired_difference(cells[top].tolist(), cells[0].tolist(), confidence=confidence)
    level = simultaneous_confidence(confidence, k)
    if chosen:
        parts = _sampled(k, cells, chosen)
        effects: tuple[Effect, ...] = ()
    else:
        table = np.stack([cells[cell] for cell in range(2**k)], axis=1)
        parts = shapley(table)[:, None, :]
        effects = _effects(names, contrasts(table), confidence)
    whole = cells[top] - cells[0]
    shares = [
        Share(
            name,
            *_share(parts[:, :, i], whole, level),
            from_a=mean_interval((cells[top] - cells[top ^ 1 << i]).tolist(), confidence=level),
            from_b=mean_interval((cells[1 << i] - cells[0]).tolist(), confidence=level),
        )
        for i, name in enumerate(names)
    ]
    shares.sort(key=lambda share: -abs(share.value.mean))
    return Attribution(difference, tuple(shares), effects, len(chosen) or None)


def _effects(names: Sequence[str], table: np.ndarray, confidence: float) -> tuple[Effect, ...]:
    """All effects, main ones first, simultaneous intervals."""
    sets = sorted(range(1, table.shape[1]), key=lambda cell: (cell.bit_count(), cell))
    level = simultaneous_confidence(confidence, len(sets))
    return tuple(
        Effect(
            tuple(name for i, name in enumerate(names) if cell >> i & 1),
            mean_interval(table[:, cell].tolist(), confidence=level),
        )
        for cell in sets
    )


def _sampled(k: int, cells: Mapping[int, np.ndarray], chosen: Sequence[Sequence[int]]) -> np.ndarray:
    """(seeds, pairs of orders, k): what each factor adds on the way, mean of an order and its reverse."""
    seeds = len(cells[0])
    added = np.empty((seeds, len(chosen), k))
    for j, order in enumerate(chosen):
        way = _way(order)
        for i, before, after in zip(order, way, way[1:], strict=False):
            added[:, j, i] = cells[after] - cells[before]
    return added.reshape(seeds, len(chosen) // 2, 2, k).mean(2)


def _share(parts: np.ndarray, whole: np.ndarray, level: float) -> tuple[Mean, Ratio]:
    """A factor's value and share, from its parts (seeds, samples): one sample if nothing was sampled."""
    seeds, samples = parts.shape
    by_seed = parts.mean(1)
    mean = float(by_seed.mean())
    if seeds < 2:
        return Mean(mean, None, None, seeds), Ratio(
            mean / float(whole.mean()) if whole.mean() else math.nan, None, None
        )
    covariance = np.cov(np.stack([by_seed, whole])) / seeds
    variance, freedom = float(covariance[0, 0]), seeds - 1
    if samples > 1:
        variance += float(parts.mean(0).var(ddof=1)) / samples
        freedom = min(seeds, samples) - 1
    half = _t(freedom, level) * math.sqrt(variance)
    ratio = ratio_interval(
        (mean, float(whole.mean())),
        (variance, float(covariance[1, 1])),
        float(covariance[0, 1]),
        freedom=freedom,
        confidence=level,
    )
    return Mean(mean, mean - half, mean + half, seeds), ratio


def _t(freedom: int, level: float) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, (1 + level) / 2))


def _way(order: Sequence[int]) -> list[int]:
    """Cells from B to A, one factor after the other."""
    way = [0]
    for i in order:
        way.append(way[-1] | 1 << i)
    return way


def _factors(values: np.ndarray) -> int:
    size = np.shape(values)[-1]
    if size < 1 or size & (size - 1):
        raise ValueError(f"values: expected 2^k of them in the last axis, one for each cell; got {size}")
    return size.bit_length() - 1


def _levels(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells with bit `axis` clear, and set."""
    shaped = x.reshape(*x.shape[:-1], -1, 2, 1 << axis)
    return shaped[..., 0, :], shaped[..., 1, :]


def _joined(low: np.ndarray, high: np.ndarray, axis: int) -> np.ndarray:
    both = np.stack([low, high], axis=-2)
    return both.reshape(*both.shape[:-3], -1)
