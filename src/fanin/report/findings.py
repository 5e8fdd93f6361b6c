"""Sentences that page and table share: what a study found, how recipes differ, what was reproduced."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fanin.report.bounds import MOST_TROUBLES
from fanin.report.grid import HALF, Map, maps
from fanin.report.results import ArmSummary, StudySummary
from fanin.report.words import LABELS, NOTHING, RATES, count, interval, percent, significant
from fanin.statistics import Difference

MARKS = {"higher": "▲ ", "lower": "▼ ", "no evidence": "○ ", "too few pairs": ""}


LEGEND = (
    "▲ higher, ▼ lower, if the interval excludes 0 and an exact sign test agrees; else ○ no evidence of a difference."
)


def headline(summary: StudySummary) -> str:
    """What the study found in a sentence or two: its first answer, else the verdicts on the arms."""
    if summary.answers:
        return summary.answers[0].text
    drawn = maps(summary)
    if drawn:
        return " ".join(charted(part) for part in drawn)
    first, found = summary.arms[0], [arm for arm in summary.arms[1:] if arm.difference]
    if not found:
        mean = first.accuracy.mean
        return "No trial has finished." if mean is None else f"{first.name}: accuracy {percent(mean)}."
    words = {"higher": "Higher", "lower": "Lower", "no evidence": "No evidence of a difference"}
    parts = []
    for verdict, word in words.items():
        names = [a.name for a in found if a.difference and a.difference.verdict == verdict]
        if names:
            parts.append(f"{word}: {listed(names)}.")
    few = [f"{a.name} ({a.difference.n})" for a in found if a.difference and a.difference.verdict == "too few pairs"]
    if few:
        parts.append(f"Too few pairs of seeds: {listed(few)}.")
    return f"Accuracy against {first.name}. " + " ".join(parts)


def charted(found: Map) -> str:
    """What a map shows, in a sentence: how many settings train, and whether theory says which."""
    rates = [arm.success.rate for arm in found.arms.values() if arm.success]
    trained = sum(rate >= HALF for rate in rates)
    name = f"{found.name}: " if found.name else ""
    text = f"{name}{trained} of {count(len(rates), 'setting')} train."
    hits, total = found.agreement()
    return f"{text} {hits} of {total} do as theory says: up to six depth scales, and not beyond." if total else text


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names with commas; from the ninth on only their number."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def differs(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """The fields in which two recipes differ: "init: xavier_uniform, normal; dropout: 0.3, 0.0"."""
    return "; ".join(f"{field}: {_value(a)} and {_value(b)}" for field, (a, b) in changed.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        options = ", ".join(f"{k} = {_value(v)}" for k, v in value.items() if k != "name")
        return f"{value.get('name', '')} ({options})"
    if isinstance(value, list):
        return "×".join(str(v) for v in value) or "none"
    return "default" if value is None else str(value)


def trained(arm: ArmSummary) -> str:
    """Trials that reached the success accuracy, of all with a result: "6/6"; a dash if there is none."""
    return f"{arm.success.successes}/{arm.success.n}" if arm.success else NOTHING


def published_accuracy(arm: ArmSummary) -> str:
    """The accuracy that was printed for the arm, in percent: "97", or "94.23 raw" if measured on raw pixels.

    Without trailing zeros, which would claim digits that nobody printed; a dash if none was.
    """
    known = arm.arm.published
    if known is None:
        return NOTHING
    scaled = next((value for value in (known.accuracy, *known.test_accuracy[-1:]) if value is not None), None)
    if scaled is not None:
        return f"{100 * scaled:.6g}"
    raw = known.accuracy_on_raw_pixels
    return NOTHING if raw is None else f"{100 * raw:.6g} raw"


def compares(summary: StudySummary) -> bool:
    """Whether published numbers stand beside the study's: there are some, and for the data that it ran on."""
    return any(arm.comparison and arm.comparison.same_data for arm in summary.arms)


def not_compared(summary: StudySummary) -> list[str]:
    """Why published numbers were not compared, a sentence per reason; arms are named if it is not that of all."""
    known = [(arm.name, arm.comparison.why_not) for arm in summary.arms if arm.comparison]
    reasons = dict.fromkeys(why for _, why in known if why)
    whose = {why: [name for name, own in known if own == why] for why in reasons}
    return [
        f"Not compared{'' if len(names) == len(known) else f' ({listed(names)})'}: {why}."
        for why, names in whose.items()
    ]


def fewer(n: int, arm: ArmSummary) -> str:
    """ "n = 4" beside a mean of fewer trials than planned; empty if all are in it or none."""
    return f"n = {n}" if 0 < n < arm.planned else ""


def pairs(found: Difference, arm: ArmSummary) -> str:
    """ "n = 7" beside a difference of fewer pairs than planned, "too few pairs (4)" if no test could claim it."""
    return f"too few pairs ({found.n})" if found.verdict == "too few pairs" else fewer(found.n, arm)


def reproduction(arm: ArmSummary) -> str:
    """ "16/16 yes", "9/16 no", a dash without a verdict, or nothing if nothing was published."""
    if arm.comparison is None:
        return ""
    if arm.reproduced is None:
        return NOTHING
    return f"{arm.comparison.score} {'yes' if arm.reproduced else 'no'}"


def outside(arm: ArmSummary) -> list[tuple[str, str, str, str, str]]:
    """Published points outside the band, as (what, epoch, published, our band, likely reason)."""
    rows = []
    for point in arm.comparison.outside if arm.comparison else ():
        rate = point.series in RATES
        value = f"{100 * point.value:.6g}" if rate else significant(point.value)  # no digits that nobody printed
        what = LABELS[point.series] + (", %" if rate else "")
        band = interval(point.low, point.high, rate=rate) or NOTHING
        epoch = str(point.epoch) if point.epoch else "last"
        rows.append((what, epoch, value, band, point.reason))
    return rows


def likely(reason: str) -> str:
    """A reason as a sentence behind another one; empty if there is none."""
    return f" Likely reason: {reason.removesuffix('.')}." if reason else ""


def troubles(summary: StudySummary) -> list[str]:
    """The trials that diverged or failed, and those that left no record, each as a sentence; of many the first."""
    found = list(itertools.islice(_troubles(summary), MOST_TROUBLES + 1))
    if len(found) <= MOST_TROUBLES:
        return found
    words = {word: sum(arm.statuses.get(word, 0) for arm in summary.arms) for word in ("diverged", "failed")}
    words["not run yet"] = sum(arm.planned - arm.recorded for arm in summary.arms)
    sums = ", ".join(f"{n:,} {word}" for word, n in words.items() if n)
    return [*found[:MOST_TROUBLES], f"... In all: {sums}; `fanin results --csv` names every trial."]


def _troubles(summary: StudySummary) -> Iterator[str]:
    for arm in summary.arms:
        for trial in arm.troubles:
            yield f"{arm.name}, seed {trial.seed}: {trial.words}"
        if missing := arm.planned - arm.recorded:
            yield f"{arm.name}: {count(missing, 'trial')} not run yet"


def versions(summaries: Sequence[StudySummary]) -> dict[str, str]:
    """Everything that is known of the environments, each value once: {"torch": "2.13.0", "device": "cpu"}."""
    found: dict[str, dict[str, None]] = {}
    for environment in (e for s in summaries for e in s.environments):
        for key, value in environment.items():
            found.setdefault(key, {})[str(value)] = None
    return {key: ", ".join(values) for key, values in found.items()}


def sizes(summary: StudySummary) -> str:
    """How many examples: "60,000 to train, 10,000 to test"; empty if unknown."""
    data = summary.data
    return f"{data['train']:,} to train, {data['test']:,} to test" if "train" in data and "test" in data else ""
