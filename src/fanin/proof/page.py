"""Proof: what fanin.prove found, as text, as a small table, as plain data; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from fanin.report.words import NOTHING, percent, significant
from fanin.statistics import mean_interval

if TYPE_CHECKING:
    from fanin.proof.judging import Outcome
    from fanin.proof.verdict import Verdict


@dataclass(frozen=True)
class Arm:
    """One setting: how many steps its runs took, and their outcomes in the order of the seeds."""

    name: str
    steps: int
    outcomes: tuple[Outcome, ...]

    @property
    def mean(self) -> float | None:
        """The metric's mean over the runs that finished."""
        values = [one.metric for one in self.outcomes if one.metric is not None]
        return mean_interval(values).mean if values else None

    @property
    def accuracy(self) -> float | None:
        """The mean accuracy of the runs that finished, None where targets name no classes."""
        values = [one.accuracy for one in self.outcomes if one.accuracy is not None]
        return mean_interval(values).mean if values else None

    @property
    def finished(self) -> str:
        """ "7/8"."""
        return f"{sum(one.finished for one in self.outcomes)}/{len(self.outcomes)}"


@dataclass(frozen=True)
class Proof:
    """The runs of all arms, the baseline's first, and a verdict on each variant; print it, or read its fields.

    metric: what was measured; seeds: those of the pairs; confidence: that of all intervals together. notes: what was
    chosen where nothing was said.
    """

    metric: str
    greater_is_better: bool
    seeds: tuple[int, ...]
    arms: Mapping[str, Arm]
    verdicts: Mapping[str, Verdict]
    loss: str
    notes: tuple[str, ...]
    confidence: float

    @property
    def verdict(self) -> str:
        """ "helps", "hurts", "no evidence" or "too few seeds", of the only variant, or of the best of several."""
        words = [one.word for one in self.verdicts.values()]
        return next((word for word in ("helps", "no evidence", "hurts") if word in words), words[0])

    def __bool__(self) -> bool:
        """Whether a variant helps."""
        return self.verdict == "helps"

    def __str__(self) -> str:
        rows = [("", self.metric, "finished", "accuracy"), *map(self._row, self.arms.values())]
        if all(row[3] == NOTHING for row in rows[1:]) or self.metric == "accuracy":
            rows = [row[:3] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))  # noqa: B905
            for row in rows
        ]
        verdicts = [f"{name} {one.text}" for name, one in self.verdicts.items()]
        return "\n".join([*verdicts, "", *(line.rstrip() for line in table), "", self._reading(), *self.notes])

    def _row(self, arm: Arm) -> tuple[str, str, str, str]:
        value = percent(arm.mean) if self.metric == "accuracy" else significant(arm.mean)
        return arm.name, value, arm.finished, percent(arm.accuracy)

    def _reading(self) -> str:
        better = "more" if self.greater_is_better else "less"
        several = f", {len(self.verdicts)} variants together" if len(self.verdicts) > 1 else ""
        return (
            f"{len(self.seeds)} paired seeds; of {self.metric}, {better} is better; intervals at "
            f"{100 * self.confidence:g} %{several}."
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in ("", self.metric, "finished", "verdict"))
        rows = []
        for arm in self.arms.values():
            said = self.verdicts[arm.name].text if arm.name in self.verdicts else ""
            cells = "".join(f"<td>{escape(cell)}</td>" for cell in (*self._row(arm)[:3], said))
            rows.append(f"<tr>{cells}</tr>")
        notes = escape(" ".join([self._reading(), *self.notes]))
        return f"<table><tr>{head}</tr>{''.join(rows)}</table><p>{notes}</p>"

    def to_dict(self) -> dict[str, Any]:
        """As plain data, ready for JSON."""
        return {
            "metric": self.metric,
            "greater_is_better": self.greater_is_better,
            "seeds": list(self.seeds),
            "confidence": self.confidence,
            "loss": self.loss,
            "notes": list(self.notes),
            "arms": {name: asdict(arm) for name, arm in self.arms.items()},
            "verdicts": {name: asdict(one) | {"text": one.text} for name, one in self.verdicts.items()},
        }
