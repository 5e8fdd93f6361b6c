"""A watched training as text and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanin.diagnosis.watch.streams import Layer, Seen, known
from fanin.finding import Finding
from fanin.report.words import NOTHING, significant

_HEADS = ("layer", "type", "E[h²]", "E[g²]", "zero units", "saturated", "update/weight")


def as_dict(seen: Seen, findings: Sequence[Finding], unseen: Sequence[str]) -> dict[str, Any]:
    """Plain data, ready for JSON: the keys of Diagnosis.to_dict(), and losses, layers, weights."""
    curve = seen.losses
    return {
        "healthy": not findings,
        "findings": [finding.to_dict() for finding in findings],
        "facts": facts(seen),
        "experiments": {},
        "unseen": list(unseen),
        "steps": seen.steps,
        "losses": {"stride": curve.stride, "values": list(curve.points)},
        "layers": [layer.to_dict() for layer in seen.layers.values()],
        "weights": [
            {"name": w.name, "gradient": known(w.gradient.mean), "update": known(w.update.mean)}
            for w in seen.weights.values()
        ],
    }


def facts(seen: Seen) -> dict[str, str]:
    """What was looked at, in words."""
    found = {"watched": f"{seen.steps} steps, {seen.looks} of them looked at"}
    if seen.losses.points:
        now, _ = seen.losses.part(0.9, 1)
        found["loss"] = f"{significant(seen.losses.start)} -> {significant(now)}"
    if seen.lrs:
        found["learning rate"] = f"{seen.lrs[-1]:g}"
    return found


def as_text(seen: Seen, findings: Sequence[Finding], unseen: Sequence[str]) -> str:
    """Facts, findings, a table of the layers, and what was not seen."""
    lines = [f"{name}: {words}" for name, words in facts(seen).items()]
    lines += [] if findings else ["Nothing found."]
    for i, f in enumerate(findings, 1):
        where = f" in {f.layer}" if f.layer else ""
        lines += ["", f"{i}. {f.cause}{where} (confidence {f.confidence:.0%})", f"   {f.evidence}"]
        lines += [f"   Remedy: {f.remedy}", f"   Source: {f.reference}"]
    if seen.layers:
        lines += ["", *_table([_HEADS, *(_row(layer, seen) for layer in seen.layers.values())])]
    if unseen:
        lines += ["", "Not seen:", *(f"  {note}" for note in unseen)]
    return "\n".join(lines)


def _row(layer: Layer, seen: Seen) -> tuple[str, ...]:
    weight = next((w for w in seen.weights.values() if w.matrix and w.name.rpartition(".")[0] == layer.name), None)
    update = weight.update.mean if weight is not None and layer.kind == "weighted" else None
    shares = (known(layer.dead.share), known(layer.flat.mean))
    return (
        layer.name or "(network)",
        layer.type,
        significant(known(layer.output.mean)),
        significant(known(layer.gradient.mean)),
        *(NOTHING if share is None else f"{100 * share:.0f} %" for share in shares),
        significant(update),
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [
        [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return ["  ".join(row).rstrip() for row in cells]
