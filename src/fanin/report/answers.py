"""A study's questions, answered by the seeds: the paired difference picks the text and fills it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fanin.report.measures import metrics
from fanin.report.reproduction import Comparison, distances
from fanin.report.trials import BySeed, Trials
from fanin.report.words import RATES, factor, hundredths, quantity, significant
from fanin.statistics import Difference, fewest_pairs, paired_difference
from fanin.study import Quantity, Question, Study

DISTANCE = "distance_to_published"

_Comparisons = Mapping[str, Comparison | None]
Asked = Mapping[str, BySeed]  # the metrics of an arm that questions ask for, by seed


@dataclass(frozen=True)
class Answer:
    """A question and what the seeds say; `why_not` if they cannot. `difference` is None without a pair.

    `differs`: the fields in which the two recipes differ.
    """

    question: Question
    text: str
    difference: Difference | None
    a_mean: float | None
    b_mean: float | None
    differs: Mapping[str, tuple[Any, Any]]
    why_not: str = ""

    @property
    def verdict(self) -> str:
        """ "higher", "lower" or "no evidence", of a against b; "not answered"."""
        return self.difference.verdict if self.difference and not self.why_not else "not answered"


def asked_of(arm: str, questions: Sequence[Question], trials: Trials, compared: Comparison | None) -> Asked:
    """What the questions ask of an arm: all that must be kept of it until they are answered."""
    wanted = {side.metric for question in questions for side in _sides(question) if side.arm == arm}
    printed = compared.published.train_cost if compared and compared.same_data else ()
    return {name: distances(trials, printed) if name == DISTANCE else metrics(trials, name) for name in wanted}


def answer(question: Question, study: Study, asked: Mapping[str, Asked], comparisons: _Comparisons) -> Answer:
    """Pair a with b by seed and fill in the text; intervals are simultaneous over the study's questions.

    asked: by arm, what `asked_of` it.
    """
    a, b = (asked[side.arm][side.metric] for side in _sides(question))
    xs, ys = a.paired(b)
    found = paired_difference(xs, ys, comparisons=len(study.questions)) if xs else None
    recipes = (study.arm(question.a.arm).recipe, study.arm(question.b.arm).recipe)
    means = (sum(xs) / len(xs), sum(ys) / len(ys)) if xs else (None, None)
    why_not = _why_not(question, found, means, comparisons)
    return Answer(
        question=question,
        text=f"Not answered: {why_not}." if why_not or found is None else _text(question, found, means, comparisons),
        difference=found,
        a_mean=means[0],
        b_mean=means[1],
        differs=recipes[0].differences(recipes[1]),
        why_not=why_not,
    )


_Means = tuple[float | None, float | None]


def _why_not(question: Question, found: Difference | None, means: _Means, comparisons: _Comparisons) -> str:
    """Why the question has no answer, as a clause; empty if it has one."""
    texts = question.if_higher + question.if_lower + question.if_neither
    for name, side in (("a", question.a), ("b", question.b)):
        compared, points = comparisons.get(side.arm), f"{{{name}_points}}" in texts
        if not points and side.metric != DISTANCE:
            continue
        if compared is None or (side.metric == DISTANCE and not compared.published.train_cost):
            return f"nothing to compare {side.arm} with has been published"
        if compared.why_not and (points or not compared.same_data):
            return compared.why_not
    if found is None:
        return "no seed has both numbers"
    if found.verdict == "too few pairs":
        so_far = " against ".join(quantity(side.metric, m) for side, m in zip(_sides(question), means, strict=True))
        fewest = fewest_pairs(found.confidence)
        return f"too few pairs of seeds ({found.n}; {fewest} can show a difference); so far {so_far}"
    return ""


def _sides(question: Question) -> tuple[Quantity, Quantity]:
    return question.a, question.b


def _text(question: Question, found: Difference, means: _Means, comparisons: _Comparisons) -> str:
    values = _values(question, found, means, comparisons)
    text = {"higher": question.if_higher, "lower": question.if_lower}.get(found.verdict, question.if_neither)
    return re.sub(r"\{(\w+)\}( ?(?:%|points))?", lambda match: _filled(match, values), text)


def _filled(match: re.Match[str], values: Mapping[str, str]) -> str:
    """The number for a placeholder; a unit that the text repeats ("{difference} points") is said once."""
    value, unit = values.get(match[1], f"{{{match[1]}}}"), match[2] or ""
    return value if value.endswith(unit.strip()) else value + unit


def _values(question: Question, found: Difference, means: _Means, comparisons: _Comparisons) -> dict[str, str]:
    asked = {side.metric for side in _sides(question)}
    if asked <= set(RATES):
        form, words = hundredths, "{} points"
    elif asked == {DISTANCE}:  # a difference of logarithms is a factor
        form, words = factor, "a factor of {}"
    else:
        form, words = significant, "{}"
    scores = [compared.score if (compared := comparisons.get(side.arm)) else "" for side in _sides(question)]
    return {
        "a": quantity(question.a.metric, means[0]),
        "b": quantity(question.b.metric, means[1]),
        "difference": words.format(form(found.mean)),
        "low": form(found.low),
        "high": form(found.high),
        "n": str(found.n),
        "wins": str(found.wins),
        "a_points": scores[0],
        "b_points": scores[1],
    }
