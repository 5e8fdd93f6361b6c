"""Diagnosis: the findings about one network, and what was looked at; as text, page and plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanin.errors import FaninError
from fanin.finding import Finding

if TYPE_CHECKING:
    from fanin.diagnosis.evidence import Evidence
    from fanin.proof.page import Proof


@dataclass(frozen=True)
class Given:
    """What the user handed to fanin.diagnose, for a proof."""

    model: Any
    data: Any
    loss: Any
    optimizer: Any
    eval_data: Any


@dataclass(frozen=True)
class Diagnosis:
    """What keeps a network from learning: ranked findings, none if it is healthy.

    findings: the surest first. facts: what was looked at, in words (loss, optimiser, data, the short run).
    experiments: what share of the task each short run has learnt, by name. losses: of the steps of the run as given.
    unseen: what could not be looked at, in words.
    """

    findings: tuple[Finding, ...]
    facts: dict[str, str]
    experiments: dict[str, float] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    unseen: tuple[str, ...] = ()
    given: Given | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, evidence: Evidence, findings: tuple[Finding, ...]) -> Diagnosis:
        """From what was measured."""
        from fanin.diagnosis.evidence import percent

        e = evidence
        made = {name: e.quality(r) for name, r in e.experiments.items() if r.error is None}
        facts = {
            "loss": e.training.loss_words,
            "optimiser": e.training.optimizer.words,
            "data": f"{e.training.batches.examples or 'unknown number of'} examples, batches of {e.start.batch.size}",
        }
        if e.steps:
            facts["run"] = (
                f"{len(e.run.losses)} steps at lr {e.run.lr:g}: loss {e.run.first:.3g} -> {e.run.final:.3g}, "
                f"{percent(e.learnt)} of the task learnt"
            )
            made = {"as given": e.learnt} | made
        losses = tuple(e.run.losses) if e.steps else ()
        return cls(findings, facts, made, losses, tuple(_unseen(e)))

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def prove(self, remedy: Any = None, **options: Any) -> Proof:
        """Whether a remedy helps, by paired seeds: the first finding's that can be applied, or the one given.

        options: as of fanin.prove. The network that was diagnosed is copied for every seed; give make_model=... of a
        function that makes it to draw its weights anew under each. FaninError if no finding has such a remedy.
        """
        from fanin.proof.prove import prove

        if self.given is None:
            raise FaninError("prove: this diagnosis does not hold the network and data any more; call fanin.prove")
        if remedy is None:
            remedy = next((f.fix for f in self.findings if f.fix is not None), None)
        if remedy is None:
            raise FaninError(
                "prove: no finding has a remedy that can be applied without you; pass one, as of fanin.prove"
            )
        model, given = options.pop("make_model", self.given.model), self.given
        return prove(
            model, remedy, given.data, given.loss, optimizer=given.optimizer, eval_data=given.eval_data, **options
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "healthy": self.healthy,
            "findings": [f.to_dict() for f in self.findings],
            "facts": dict(self.facts),
            "experiments": dict(self.experiments),
            "losses": list(self.losses),
            "unseen": list(self.unseen),
        }

    def to_json(self) -> str:
        """As JSON; numbers that are none become null."""
        return json.dumps(_finite(self.to_dict()), indent=2, allow_nan=False)

    def save(self, path: Path | str) -> Path:
        """Write the page, one HTML file that needs nothing else; the path."""
        from fanin.report.diagnosis.page import write_diagnosis

        return write_diagnosis(self.to_dict(), Path(path))

    def _repr_html_(self) -> str:
        from fanin.report.diagnosis import table

        return table(self.to_dict())

    def __str__(self) -> str:
        lines = [f"{name}: {words}" for name, words in self.facts.items()]
        if self.healthy:
            trained = ": it trains as well as could be expected" if self.losses else ""
            lines = [f"Nothing found{trained}.", *lines]
        for i, f in enumerate(self.findings, 1):
            where = f" in {f.layer}" if f.layer else ""
            lines += ["", f"{i}. {f.cause}{where} (confidence {f.confidence:.0%})", f"   {f.evidence}"]
            lines += [f"   Remedy: {f.remedy}", f"   Source: {f.reference}"]
        return "\n".join([*lines, *(f"not seen: {words}" for words in self.unseen)])


def _unseen(e: Evidence) -> Iterator[str]:
    """What neither the graph nor hooks could show."""
    graph = e.start.graph
    if graph is None:
        yield "the graph: the first batch did not get as far as a loss"
        return
    inside = {op.name for op in graph.ops if any(word in op.name for word in _OPAQUE)}
    if inside:
        yield f"what happens inside {', '.join(sorted(inside))}: autograd knows it as one operation"
    if not e.steps:
        yield "how it trains: no steps were taken"


_OPAQUE = ("Compiled", "Checkpoint", "Scatter", "Broadcast", "Function")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
