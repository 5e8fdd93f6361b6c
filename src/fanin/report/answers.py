"""A study's questions, answered by the seeds: the paired difference picks the text and fills it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fanin.record import Record
from fanin.report.measures import metrics
from fanin.report.reproduction import Comparison
from fanin.report.words import RATES, count, hundredths, quantity, significant
from fanin.statistics import Difference, paired_difference
from fanin.study import Question, Study

FEWEST_PAIRS = 6  # an exact two-sided sign test cannot reach p < 0.05 with fewer


@dataclass(frozen=True)
class Answer:
    """A question and what the seeds say. `difference` is None without a pair; `differs`: the recipes."""

    question: Question
    text: str
    difference: Difference | None
    a_mean: float | None
    b_mean: float | None
    differs: Mapping[str, tuple[Any, Any]]

    @property
    def verdict(self) -> str:
        """ "higher", "lower" or "no evidence": of a against b."""
        return self.difference.verdict if self.difference else "no evidence"


def answer(
    question: Question,
    study: Study,
    records: Mapping[str, Sequence[Record]],
    comparisons: Mapping[str, Comparison | None],
) -> Answer:
    """Pair a with b by seed and fill in the text; intervals are simultaneous over the study's questions."""
    a = metrics(records.get(question.a.arm, ()), question.a.metric)
    b = metrics(records.get(question.b.arm, ()), question.b.metric)
    seeds = sorted(a.keys() & b.keys())
    xs, ys = [a[s] for s in seeds], [b[s] for s in seeds]
    found = paired_difference(xs, ys, comparisons=len(study.questions)) if seeds else None
    recipes = (study.arm(question.a.arm).recipe, study.arm(question.b.arm).recipe)
    scores = {side: comparisons.get(q.arm) for side, q in (("a", question.a), ("b", question.b))}
    return Answer(
        question=question,
        text=_text(question, found, xs, ys, {k: c.score if c else "" for k, c in scores.items()}),
        difference=found,
        a_mean=sum(xs) / len(xs) if xs else None,
        b_mean=sum(ys) / len(ys) if ys else None,
        differs=recipes[0].differences(recipes[1]),
    )


def _text(
    question: Question,
    found: Difference | None,
    xs: Sequence[float],
    ys: Sequence[float],
    scores: Mapping[str, str],
) -> str:
    if found is None:
        return "Not answered: no seed has both numbers."
    values = _values(question, found, xs, ys, scores)
    if found.n < 2:
        both = f"{values['a']} against {values['b']}"
        return f"Not answered: one pair of seeds, {both}; {FEWEST_PAIRS} can show a difference."
    texts = {"higher": question.if_higher, "lower": question.if_lower, "no evidence": question.if_neither}
    text = re.sub(r"\{(\w+)\}( ?(?:%|points))?", lambda match: _filled(match, values), texts[found.verdict])
    if found.n < FEWEST_PAIRS:
        text += f" ({count(found.n, 'pair')} of seeds; {FEWEST_PAIRS} is the fewest that can show a difference.)"
    return text


def _filled(match: re.Match[str], values: Mapping[str, str]) -> str:
    """The number for a placeholder; a unit that the text repeats ("{difference} points") is said once."""
    value, unit = values.get(match[1], f"{{{match[1]}}}"), match[2] or ""
    return value if value.endswith(unit.strip()) else value + unit


def _values(
    question: Question, found: Difference, xs: Sequence[float], ys: Sequence[float], scores: Mapping[str, str]
) -> dict[str, str]:
    in_points = question.a.metric in RATES and question.b.metric in RATES
    form = hundredths if in_points else significant
    return {
        "a": quantity(question.a.metric, sum(xs) / len(xs)),
        "b": quantity(question.b.metric, sum(ys) / len(ys)),
        "difference": form(found.mean) + (" points" if in_points else ""),
        "low": form(found.low),
        "high": form(found.high),
        "n": str(found.n),
        "wins": str(found.wins),
        "a_points": scores["a"] or "not comparable",
        "b_points": scores["b"] or "not comparable",
    }
