"""Explanation: what fanin.explain found, as words, a table and plain data; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from fanin.proof.attribution import Attribution, Share
from fanin.proof.cells import Factor, label
from fanin.report.words import NOTHING, count, significant
from fanin.statistics import Mean, Ratio

NAMES = {
    "init": "the weight initialisation",
    "bias_init": "the bias initialisation",
    "activation": "the activation",
    "optimizer": "the optimiser",
    "optimizer.lr": "the learning rate",
    "lr": "the learning rate",
    "batch_size": "the batch size",
    "hidden": "the hidden layers",
    "outputs": "the number of outputs",
    "normalization": "the normalisation",
    "loss": "the loss function",
    "epochs": "the number of epochs",
    "style": "the style of the code",
}


@dataclass(frozen=True)
class Explanation:
    """A - B of a metric, divided among the factors in which A and B differ; print it, or read its fields.

    seeds: those with a value in every combination. values: by cell (see proof.attribution), in the order of the seeds.
    missing: seeds without a value, by cell. folder: where recipes' records are.
    """

    a: str
    b: str
    factors: tuple[Factor, ...]
    metric: str
    words: str
    seeds: tuple[int, ...]
    attribution: Attribution
    values: Mapping[int, list[float]]
    missing: Mapping[int, int]
    confidence: float
    folder: Path | None = None

    @property
    def text(self) -> str:
        """The answer in a sentence or two."""
        found = self.attribution.difference
        sides = f"{significant(self._mean(-1))} of {self.a} and {significant(self._mean(0))} of {self.b}"
        if found.verdict not in ("higher", "lower"):
            why = "Too few seeds for evidence" if found.verdict == "too few pairs" else "No evidence"
            return f"{why} of a difference in {self.words} ({sides}), so there is nothing to attribute."
        whole = f"of the difference in {self.words} ({sides}) is"
        first, *rest = self.attribution.shares
        if not rest:
            return f"All {whole} {called(first.factor)}: they differ in nothing else."
        others = [f"{_percent(s.share)} is {called(s.factor)}" for s in rest if abs(s.share.value) >= 0.1]
        said = f"{', '.join([f'{_percent(first.share)} {whole} {called(first.factor)}', *others])}."
        joint = self._strongest_interaction()
        return f"{said} {joint}" if joint else said

    def _mean(self, cell: int) -> float:
        values = self.values[cell if cell >= 0 else 2 ** len(self.factors) - 1]
        return sum(values) / len(values)

    def _strongest_interaction(self) -> str:
        """The largest interaction whose interval excludes 0, if it is not small beside the whole."""
        whole = abs(self.attribution.difference.mean)
        found = [
            e
            for e in self.attribution.effects
            if len(e.factors) > 1 and _excludes_zero(e.value) and abs(e.value.mean) > 0.1 * whole
        ]
        if not found:
            return ""
        best = max(found, key=lambda e: abs(e.value.mean))
        names = _listed([called(f) for f in best.factors])
        return f"{names[0].upper()}{names[1:]} act together: their interaction is {_interval(best.value)}."

    def share(self, factor: str) -> Share:
        """A factor's share; KeyError if there is no such."""
        for one in self.attribution.shares:
            if one.factor == factor:
                return one
        raise KeyError(factor)

    def __str__(self) -> str:
        rows = [("factor", "share of A - B", self.words, "from B", "from A"), *map(self._row, self.attribution.shares)]
        lines = [self.text, "", *_columns(rows)]
        effects = [e for e in self.attribution.effects if len(self.factors) > 1]
        if effects:
            table: list[tuple[str, ...]] = [
                ("effect", self.words),
                *((" x ".join(e.factors), _interval(e.value)) for e in effects),
            ]
            lines += ["", *_columns(table)]
        return "\n".join([*lines, "", *self._notes()])

    def _row(self, share: Share) -> tuple[str, ...]:
        ends = (significant(share.from_b.mean), significant(share.from_a.mean))
        return (share.factor, _percent(share.share), _interval(share.value), *ends)

    def _notes(self) -> list[str]:
        top = 2 ** len(self.factors) - 1
        cells = count(len(self.values), "combination")
        how = f"{self.attribution.orders} orders of change" if self.attribution.orders else "all orders of change"
        notes = [
            f"A: {label(self.factors, top)}. B: {label(self.factors, 0)}.",
            f"{cells} x {count(len(self.seeds), 'paired seed')}; shares are Shapley's, over {how}; "
            f"intervals at {100 * self.confidence:g} %, Fieller's for shares.",
        ]
        notes += [
            f"{label(self.factors, cell)}: {count(lost, 'seed')} without a value, left out everywhere."
            for cell, lost in self.missing.items()
        ]
        return [*notes, f"Records: {self.folder}"] if self.folder else notes

    def _repr_html_(self) -> str:
        rows = [("factor", "share", self.words, "from B", "from A"), *map(self._row, self.attribution.shares)]
        cells = [
            "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
            for tag, row in zip(["th"] + ["td"] * (len(rows) - 1), rows, strict=True)
        ]
        return f"<p>{escape(self.text)}</p><table>{''.join(cells)}</table><p>{escape(' '.join(self._notes()))}</p>"

    def to_dict(self) -> dict[str, Any]:
        """As plain data, ready for JSON if the factors' levels are."""
        return {
            "a": self.a,
            "b": self.b,
            "text": self.text,
            "metric": self.metric,
            "words": self.words,
            "seeds": list(self.seeds),
            "confidence": self.confidence,
            "factors": [{"name": f.name, "a": _level(f.a), "b": _level(f.b)} for f in self.factors],
            "attribution": asdict(self.attribution),
            "cells": [{"label": label(self.factors, cell), "values": list(v)} for cell, v in self.values.items()],
            "missing": {label(self.factors, cell): lost for cell, lost in self.missing.items()},
            "folder": str(self.folder) if self.folder else None,
        }


def called(factor: str) -> str:
    """A factor in words: "the weight initialisation" for init, else its name."""
    return NAMES.get(factor, factor)


def _level(value: Any) -> Any:
    plain = isinstance(value, str | int | float | bool | list | tuple | dict) or value is None
    return value if plain else getattr(value, "__name__", repr(value))


def _percent(ratio: Ratio) -> str:
    """ "92 % [85, 98]"; a dash where A and B have no difference that could be divided."""
    if math.isnan(ratio.value):
        return NOTHING
    value = f"{100 * ratio.value:.0f} %"
    if ratio.low is None or ratio.high is None:
        return value
    return f"{value} [{100 * ratio.low:.0f}, {100 * ratio.high:.0f}]"


def _interval(mean: Mean) -> str:
    if mean.low is None or mean.high is None:
        return significant(mean.mean)
    return f"{significant(mean.mean)} [{significant(mean.low)}, {significant(mean.high)}]"


def _excludes_zero(mean: Mean) -> bool:
    return mean.low is not None and mean.high is not None and (mean.low > 0 or mean.high < 0)


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
