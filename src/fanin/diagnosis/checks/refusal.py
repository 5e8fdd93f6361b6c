"""The check of what the loss refused: its own words, and the cause behind them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fanin.diagnosis.evidence import Evidence
from fanin.errors import FaninError
from fanin.finding import Finding, Remedy

_SHAPES = ("size", "shape", "Dimension", "dimension", "batch_size", "multi-target")
_TYPES = ("dtype", "scalar type", "expected scalar", "Found dtype", "Long", "Float")


def refused(e: Evidence) -> Iterator[Finding]:
    """What the loss itself refused, in its own words, with the cause behind them."""
    error = e.start.error
    if error is None or e.start.stage != "loss":
        return
    if isinstance(error, FaninError):  # it says all there is to say
        remedy = "a loss that is least where outputs are right"
        yield Finding("loss", None, None, None, str(error), remedy, 0.98, "its definition")
        return
    words = f"{type(error).__name__}: {error}".split("\n")[0]
    if "out of bounds" in words or ("Target" in words and "out of" in words) or "index out of range" in words.lower():
        yield _out_of_range(e, words)
    elif "between 0 and 1" in words:
        yield _no_probability(e, words)
    elif any(w in words for w in _SHAPES):
        yield _misfit(e, words)
    else:
        yield _unknown(words)
    if any(w in words for w in _TYPES):
        yield _wrong_type(words)


def _out_of_range(e: Evidence, words: str) -> Finding:
    """Class indices that the network has no output for: too few outputs, or indices that do not count from 0."""
    y, z = e.sample.targets, e.start.output
    outputs = z.shape[1] if z is not None and z.dim() > 1 else 1
    missing = y.distinct > outputs
    if missing:
        remedy = f"{int(y.high) + 1} outputs"
    else:
        remedy = f"y = y - {y.low:g}" if y.low else "give every class an index from 0 on"
    return Finding(
        "output-shape" if missing else "label-range",
        None,
        y.high,
        float(outputs - 1),
        f"class indices reach from {y.low:g} to {y.high:g} ({y.distinct} different ones), the network has "
        f"{outputs} outputs; the loss says {words}",
        remedy,
        0.98,
        "torch.nn.CrossEntropyLoss: class indices in [0, C)",
    )


def _no_probability(e: Evidence, words: str) -> Finding:
    """Outputs, or else targets, that are no probabilities where the loss wants some."""
    z = e.start.output
    beyond = z is not None and bool(((z < 0) | (z > 1)).any())
    return Finding(
        "output-activation" if beyond else "label-range",
        None,
        None,
        None,
        f"nn.BCELoss wants probabilities; {words}",
        "end with nn.Sigmoid(), or take nn.BCEWithLogitsLoss" if beyond else "targets within [0, 1]",
        0.98,
        "torch.nn.BCELoss",
        Remedy("loss", "loss = nn.BCEWithLogitsLoss()", {"name": "bce_with_logits"}) if beyond else None,
    )


def _misfit(e: Evidence, words: str) -> Finding:
    """Outputs and targets of shapes that do not fit."""
    z, targets = e.start.output, e.start.batch.targets
    shape = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
    return Finding(
        "output-shape",
        None,
        None,
        None,
        f"outputs {tuple(z.shape) if z is not None else '?'} and targets {shape} do not fit; the loss says {words}",
        "outputs (N, C) and class indices (N,), or outputs and targets of the same shape",
        0.95,
        "the loss's own message",
    )


def _unknown(words: str) -> Finding:
    return Finding(
        "loss",
        None,
        None,
        None,
        f"the loss raised {words}",
        "a loss that is called loss(outputs, targets), and takes what the network and the data give",
        0.8,
        "its own message",
    )


def _wrong_type(words: str) -> Finding:
    return Finding(
        "label-range",
        None,
        None,
        None,
        f"targets have a type that the loss does not take: {words}",
        "y = y.long() for class indices, y.float() for numbers",
        0.9,
        "its own message",
    )
