"""Summaries as plain data for other programs: JSON (one entry per study) and CSV (one row per trial)."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from fanin.record import Epoch
from fanin.report.answers import Answer
from fanin.report.measures import Measure, number
from fanin.report.reproduction import Comparison
from fanin.report.results import ArmSummary, StudySummary
from fanin.report.words import outcome
from fanin.statistics import Difference
from fanin.store import Store

EPOCH_FIELDS = tuple(field.name for field in dataclasses.fields(Epoch))


def to_json(summaries: Iterable[StudySummary]) -> list[dict[str, Any]]:
    """One dictionary per study, ready for `json.dumps(..., allow_nan=False)`: NaN and infinities are null.

    A study's `seconds` are training time, summed over its trials: not the time that passed on a clock.
    """
    return [_study(summary, arms=[_arm(arm) for arm in summary.arms]) for summary in summaries]


def write_json(summaries: Sequence[StudySummary], file: TextIO) -> None:
    """What `json.dump(to_json(summaries), file, indent=1)` writes, arm by arm: a large study is never text at once."""
    if not summaries:
        file.write("[]")
        return
    for i, summary in enumerate(summaries):
        head, _, tail = _text(_study(summary, arms=[]), depth=1).partition('"arms": []')
        file.write(",\n" if i else "[\n")
        file.write(f'{head}"arms": [\n')
        for j, arm in enumerate(summary.arms):
            file.write(",\n" if j else "")
            file.write(_text(_arm(arm), depth=3))
        file.write(f"\n  ]{tail}")
    file.write("\n]")


def _text(content: dict[str, Any], *, depth: int) -> str:
    """JSON whose lines are indented by `depth`; texts within it have no lines of their own."""
    return textwrap.indent(json.dumps(content, indent=1, allow_nan=False), depth * " ")


def write_csv(store: Store, file: TextIO) -> None:
    """One row per trial: study, arm, seed, status, outcome, seconds and the metrics of its last epoch.

    Read and written arm by arm.
    """
    rows = csv.writer(file, lineterminator="\n")
    names = [f"epoch_{f}" if f == "seconds" else f for f in EPOCH_FIELDS]
    rows.writerow(["study", "arm", "seed", "status", "outcome", "seconds", *names])
    for stored in store.studies():
        for arm in stored.study.arms:
            columns = store.columns(stored.study, arm.name)
            last = {int(row[0]): row[1:] for row in columns.epochs.tolist()}  # the later ones of a seed come later
            for head in columns.heads:
                epoch, *values = last.get(head.seed, [None] * len(EPOCH_FIELDS))
                where = [stored.study.name, arm.name, head.seed, head.status, outcome(head), head.seconds]
                cells = [*where, epoch and int(epoch), *map(number, values)]
                rows.writerow(["" if cell is None else cell for cell in cells])


def _study(summary: StudySummary, *, arms: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "study": summary.study.name,
        "data": summary.data.get("name"),
        "device": summary.device,
        "arms": arms,
        "seconds": number(summary.seconds),
        "title": summary.title,
        "questions": [_answer(found) for found in summary.answers],
        "environments": [dict(environment) for environment in summary.environments],
    }


def _arm(arm: ArmSummary) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "n": arm.n,
        "success_rate": arm.success.rate if arm.success else None,
        "accuracy": _measure(arm.accuracy),
        "accuracy_on_raw_pixels": _measure(arm.accuracy_on_raw_pixels),
        "train_cost": [list(curve) for curve in arm.curves["train_cost"]],
        "published": _comparison(arm.comparison) if arm.comparison else None,
        "reproduced": arm.reproduced,
        "planned": arm.planned,
        "seeds": list(arm.seeds),
        "success_interval": [arm.success.low, arm.success.high] if arm.success else None,
        "test_loss": _measure(arm.test_loss),
        "difference": _difference(arm.difference) if arm.difference else None,
        "trainable_depth": _limit(arm.trainable_depth),
        "troubles": [{"seed": t.seed, "status": t.status, "outcome": t.words} for t in arm.troubles],
    }


def _limit(depth: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "unlimited" if depth is not None and math.isinf(depth) else depth


def _measure(measure: Measure) -> dict[str, float | None]:
    return {"mean": measure.mean, "low": measure.low, "high": measure.high}


def _difference(found: Difference) -> dict[str, Any]:
    """In the unit of the metric: an accuracy's difference of 0.005 is half a point."""
    fields = (
        "mean",
        "low",
        "high",
        "p",
        "wins",
        "ties",
        "losses",
        "n",
        "comparisons",
        "confidence",
        "verdict",
    )
    return {field: getattr(found, field) for field in fields}


def _comparison(found: Comparison) -> dict[str, Any]:
    printed = {k: _plain(v) for k, v in dataclasses.asdict(found.published).items() if v not in (None, (), "")}
    outside = [{**dataclasses.asdict(point)} for point in found.outside]
    verdict = {"inside": found.inside, "points": len(found.points)} if found.points else {}
    return printed | verdict | {"outside": outside, "why_not": found.why_not or None}


def _answer(found: Answer) -> dict[str, Any]:
    return {
        "ask": found.question.ask,
        "answer": found.text,
        "verdict": found.verdict,
        "difference": _difference(found.difference) if found.difference else None,
        "differs": {field: [_plain(v) for v in pair] for field, pair in found.differs.items()},
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
