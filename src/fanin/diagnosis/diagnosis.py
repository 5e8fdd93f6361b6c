"""Diagnosis: the findings about one network, and what was looked at; as text, page and plain data."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanin.finding import Finding

if TYPE_CHECKING:
    from fanin.diagnosis.evidence import Evidence


@dataclass(frozen=True)
class Diagnosis:
    """findings: ranked, the surest first; empty means healthy.

    facts: what was looked at, in words (loss, optimiser, data, the short run). experiments: what share of the task each
    one learnt, by name. unseen: what could not be looked at.
    """

    findings: tuple[Finding, ...]
    facts: dict[str, str]
    experiments: dict[str, float] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()

    @classmethod
    def of(cls, evidence: Evidence, findings: tuple[Finding, ...]) -> Diagnosis:
        """From what was measured."""
        from fanin.diagnosis.evidence import percent

        e = evidence
        made = {name: e.quality(result) for name, result in e.experiments.items()}
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
        return cls(findings, facts, made)

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "healthy": self.healthy,
            "findings": [f.to_dict() for f in self.findings],
            "facts": self.facts,
            "experiments": self.experiments,
            "unseen": list(self.unseen),
        }

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        lines = [f"{name}: {words}" for name, words in self.facts.items()]
        if self.healthy:
            return "\n".join(["Nothing found: it trains as well as it could.", *lines])
        for i, f in enumerate(self.findings, 1):
            where = f" in {f.layer}" if f.layer else ""
            lines += ["", f"{i}. {f.cause}{where} (confidence {f.confidence:.0%})", f"   {f.evidence}"]
            lines += [f"   Remedy: {f.remedy}", f"   Source: {f.reference}"]
        return "\n".join(lines)

    def save(self, path: Path | str) -> Path:
        """Write the page as HTML."""
        raise NotImplementedError(path)
