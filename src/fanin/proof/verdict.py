"""Verdict: what pairs of runs say of a change, in words; plain numbers in, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fanin.report.words import significant
from fanin.statistics import (
    CONFIDENCE,
    Difference,
    Rate,
    fewest_pairs,
    paired_difference,
    sign_test,
    simultaneous_confidence,
    smallest_effect,
    success_rate,
)

Word = Literal["helps", "hurts", "no evidence", "too few seeds"]
POWER = 0.8
_WORDS: dict[int, Word] = {1: "helps", 0: "no evidence", -1: "hurts"}


@dataclass(frozen=True)
class Verdict:
    """A variant against the baseline, pair i by seed i.

    better, equal, worse: pairs, a run that diverged being worse than any that did not. p: of the exact sign test on
    them. difference: variant - baseline over the pairs where both finished, its interval simultaneous over all
    variants; None without such a pair. smallest: the mean difference that these pairs would have shown with
    probability 0.8 (statistics.smallest_effect). before, after: runs that finished.
    """

    word: Word
    better: int
    equal: int
    worse: int
    p: float
    difference: Difference | None
    smallest: float | None
    before: Rate
    after: Rate
    confidence: float

    @property
    def diverged(self) -> bool:
        """Whether any run did."""
        return self.before.successes < self.before.n or self.after.successes < self.after.n

    @property
    def text(self) -> str:
        """The verdict as a sentence."""
        n = self.before.n
        ways = f"better in {self.better}, worse in {self.worse} of {n} pairs (sign test p = {self.p:.2g})"
        parts = [f"{self.word}: "]
        if self.word == "too few seeds":
            parts.append(f"{n} pairs; at least {fewest_pairs(self.confidence)} are needed to claim anything")
        elif self.word == "no evidence":
            parts.append(self._smallest_words())
        if self.diverged:
            parts.append(f"{'' if parts[-1].endswith(': ') else '; '}finished {self.after.successes}/{n} against ")
            parts.append(f"{self.before.successes}/{n} runs")
        if self.difference is not None:
            parts.append(f"{'' if parts[-1].endswith(': ') else '; '}difference {_interval(self.difference)}")
        return "".join(parts) + f"; {ways}."

    def _smallest_words(self) -> str:
        if self.smallest is None:
            return "too few runs finished to say how large an effect could have been seen"
        if self.smallest == 0:
            return "the same numbers, pair by pair" if not self.better + self.worse else "no two pairs differ"
        return f"the smallest effect these seeds could have shown is {significant(self.smallest)}"


def judge(
    before: Sequence[float | None],
    after: Sequence[float | None],
    *,
    greater_is_better: bool,
    comparisons: int = 1,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """Whether a change helps: the exact sign test must say so, and the t interval of paired differences agree.

    None is a run that diverged: worse than all others. Where all runs finished this is statistics.paired_difference's
    verdict. Where some did not, the mean of a difference does not exist; the sign test on all pairs decides alone, so
    it is asked at the Bonferroni level over `comparisons`, and claims nothing that the finish rates or the interval of
    the pairs that finished contradict. For a change without effect, pairs are as often better as worse, so "helps"
    comes up in at most (1 - confidence) / 2 of all cases, by the sign test alone.
    """
    sign = 1 if greater_is_better else -1
    order = [_compare(a, b, sign) for a, b in zip(after, before, strict=True)]
    better, worse, n = order.count(1), order.count(-1), len(order)
    both = [(a, b) for a, b in zip(after, before, strict=True) if a is not None and b is not None]
    difference = None
    if both:
        after_values, before_values = ([pair[i] for pair in both] for i in (0, 1))
        difference = paired_difference(after_values, before_values, comparisons=comparisons, confidence=confidence)
    finished = [sum(value is not None for value in values) for values in (before, after)]
    p = sign_test(better, worse)
    lead, shown = better - worse, sign * _shown(difference)
    if len(both) == n:
        claimed = shown if p <= 1 - confidence and shown * lead > 0 else 0
    else:
        claimed = (lead > 0) - (lead < 0)
        agree = claimed * (finished[1] - finished[0]) >= 0 and claimed * shown >= 0
        claimed = claimed if p <= 1 - simultaneous_confidence(confidence, comparisons) and agree else 0
    few = n < fewest_pairs(confidence)
    return Verdict(
        word="too few seeds" if few else _WORDS[claimed],
        better=better,
        equal=n - better - worse,
        worse=worse,
        p=p,
        difference=difference,
        smallest=_smallest(difference, comparisons, confidence),
        before=success_rate(finished[0], n, confidence=confidence),
        after=success_rate(finished[1], n, confidence=confidence),
        confidence=confidence,
    )


def _shown(difference: Difference | None) -> int:
    """1 or -1 if the interval is above or below 0, else 0."""
    if difference is None or difference.low is None or difference.high is None:
        return 0
    return (difference.low > 0) - (difference.high < 0)


def _compare(after: float | None, before: float | None, sign: int) -> int:
    if after is None or before is None:
        return (after is not None) - (before is not None)
    return sign * ((after > before) - (after < before))


def _smallest(difference: Difference | None, comparisons: int, confidence: float) -> float | None:
    if difference is None:
        return None
    return smallest_effect(difference.values, comparisons=comparisons, confidence=confidence, power=POWER)


def _interval(difference: Difference) -> str:
    sign = "+" if difference.mean > 0 else ""
    if difference.low is None or difference.high is None:
        return f"{sign}{significant(difference.mean)}"
    return f"{sign}{significant(difference.mean)} [{significant(difference.low)}, {significant(difference.high)}]"
