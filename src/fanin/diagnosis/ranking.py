"""Ranking: the surest cause first, one finding for each cause, and no symptom of a cause that is named already."""

from __future__ import annotations

from collections.abc import Sequence

from fanin.finding import Finding

# What a certain cause brings with it: a symptom is told after it, and less surely.
_RATES = ("learning-rate-high", "learning-rate-low", "optimizer")
_EXPLAINS: dict[str, frozenset[str]] = {
    "input-scale": frozenset({*_RATES, "saturation", "dead-units", "init-scale", "non-finite"}),
    "init-scale": frozenset(
        {*_RATES, "saturation", "dead-units", "vanishing-gradient", "exploding-gradient", "non-finite"}
    ),
    "output-activation": frozenset({*_RATES, "dead-units", "capacity", "vanishing-gradient"}),
    "output-shape": frozenset({"learning-rate-low", "capacity", "no-signal", "optimizer"}),
    "loss": frozenset({*_RATES, "capacity", "no-signal"}),
    "label-range": frozenset({*_RATES, "dead-units"}),
    "symmetry": frozenset({"learning-rate-low", "vanishing-gradient", "capacity", "optimizer"}),
    "frozen-parameters": frozenset({"learning-rate-low", "capacity"}),
    "learning-rate-high": frozenset({"dead-units", "saturation", "optimizer", "non-finite"}),
    "learning-rate-low": frozenset({"optimizer"}),
    "vanishing-gradient": frozenset({"learning-rate-low", "optimizer", "capacity", "saturation"}),
    "no-signal": frozenset({"capacity", "learning-rate-low"}),
}
_LESS = 0.7


def ranked(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """By confidence, which is lowered where a surer finding explains the symptom; the surest of each cause."""
    best: dict[str, Finding] = {}
    for finding in findings:
        if finding.cause not in best or finding.confidence > best[finding.cause].confidence:
            best[finding.cause] = finding

    def weight(finding: Finding) -> float:
        explained = any(
            finding.cause in _EXPLAINS.get(other.cause, ()) and other.confidence >= finding.confidence - 0.15
            for other in best.values()
        )
        return finding.confidence * (_LESS if explained else 1.0)

    return tuple(sorted(best.values(), key=weight, reverse=True))
