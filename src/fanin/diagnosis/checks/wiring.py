"""Checks of how outputs, targets and loss fit together: read off the graph of the first batch, without a threshold."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from fanin.diagnosis.evidence import CLEAR, Evidence, percent
from fanin.diagnosis.start import like
from fanin.finding import Finding, Remedy
from fanin.training.losses import main_output

_DISTANCES = {
    "MseLoss": "nn.MSELoss",
    "L1Loss": "nn.L1Loss",
    "SmoothL1Loss": "nn.SmoothL1Loss",
    "HuberLoss": "nn.HuberLoss",
}
_LIKELIHOODS = frozenset({"BinaryCrossEntropy", "BinaryCrossEntropyWithLogits", "NllLoss", "LogSoftmax", "Log", "Exp"})
BINARY = frozenset({"BinaryCrossEntropy", "BinaryCrossEntropyWithLogits"})


def losses_in(e: Evidence) -> list[str]:
    """The operations between outputs and loss, by name."""
    return [op.name for op in e.start.graph.between()] if e.start.graph else []


def distance(names: Collection[str]) -> str | None:
    """What a loss of differences between outputs and targets is called; None for other losses."""
    known = next((words for name, words in _DISTANCES.items() if name in names), None)
    if known is None and {"Sub", "Rsub"} & set(names) and not _LIKELIHOODS & set(names):
        known = "nn.L1Loss" if "Abs" in names else "the squared error" if {"Pow", "Mul"} & set(names) else None
    return known


def loss(e: Evidence) -> Iterator[Finding]:
    """A loss of which the right answer is not the least; one of class indices as numbers; one without gradient."""
    y, z, names = e.sample.targets, e.start.output, losses_in(e)
    if z is None or y.tensor is None or not e.paired:
        return
    if e.start.graph and e.start.graph.loss is None and e.start.graph.output is not None:
        yield _loss("the loss has no gradient by the outputs: it is computed from detached or rounded values", 0.98)
        return
    if e.start.graph and e.start.graph.output is not None and not e.start.told:
        yield _loss("the gradient of the loss by the outputs is 0 throughout: the outputs do not enter it", 0.96)
        return
    squares = distance(names)
    if (
        squares
        and y.kind == "classes"
        and y.distinct > 2
        and z.shape != y.tensor.shape
        and z.dim() > 1
        and z.shape[1] == 1
    ):
        yield _indices(e, squares, 0.75)
    elif squares and y.whole and 2 < y.distinct <= 50 and y.low == 0 and z.numel() == e.start.batch.size and _few(e):
        yield _indices(e, squares, 0.6)
    elif squares and _one_hot(y.tensor) and e.lags and (better := _as_classes(e)) is not None:
        yield _loss(
            f"targets are one-hot classes; by cross-entropy the network learns {percent(better)} of the task in "
            f"{e.steps} steps, by {squares} {percent(e.learnt)}",
            min(0.9, 0.5 + better - e.learnt),
            Remedy("loss", "loss = nn.CrossEntropyLoss()", {"name": "cross_entropy"}),
        )
    elif not names and e.start.graph and e.start.graph.output is not None:
        yield _loss("the loss is the outputs themselves: no target enters it", 0.9)
    elif (found := _right_answer(e)) is not None:
        right, wrong = found
        yield _loss(
            f"outputs that are the targets have a loss of {right:.3g}, outputs of other examples' targets {wrong:.3g}: "
            "training away from the loss is training away from the targets",
            0.95,
        )


def _few(e: Evidence) -> bool:
    """Whether whole targets are few for so many examples, and so classes rather than counts."""
    y = e.sample.targets
    return y.tensor is not None and not y.tensor.is_floating_point() and y.distinct <= max(3, e.sample.size // 8)


def _indices(e: Evidence, name: str, confidence: float) -> Finding:
    y = e.sample.targets
    return Finding(
        "loss",
        None,
        None,
        None,
        f"targets are {y.distinct} class indices; {name} takes them for numbers, class 2 between 1 and 3",
        f"nn.CrossEntropyLoss with {int(y.high) + 1} outputs",
        confidence,
        "Goodfellow, Bengio and Courville (2016), Deep Learning, section 6.2.2",
        Remedy("loss", "loss = nn.CrossEntropyLoss()", {"name": "cross_entropy"}),
    )


def _loss(evidence: str, confidence: float, fix: Remedy | None = None) -> Finding:
    remedy = fix.code if fix else "a loss that is least where outputs are right"
    return Finding("loss", None, None, None, evidence, remedy, confidence, "its definition", fix)


def _one_hot(y: Tensor) -> bool:
    """Whether rows are a single 1 among zeros, of three columns or more."""
    rows = y.dim() == 2 and y.shape[1] > 2
    return rows and bool(((y == 0) | (y == 1)).all()) and bool((y.sum(1) == 1).all())


def _as_classes(e: Evidence) -> float | None:
    """What cross-entropy learns instead, if it is clearly more."""

    def loss(outputs: object, targets: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(main_output(outputs), targets.argmax(1))

    better = e.quality(e.experiment("cross-entropy", lambda training: training.changed(loss=loss)))
    return better if better - e.learnt > CLEAR else None


def _right_answer(e: Evidence) -> tuple[float, float] | None:
    """(loss of the right outputs, of another example's) where the right ones are judged worse."""
    y, z, batch = e.sample.targets.tensor, e.start.output, e.start.batch
    targets = batch.targets if batch.targets is not None else batch.first
    if z is None or not isinstance(targets, Tensor) or targets.shape[0] != len(z) or len(z) < 2:
        return None
    right = _ideal(z.detach(), targets, y)
    if right is None:
        return None
    order = torch.arange(len(z)).roll(1)
    try:
        with torch.no_grad():
            a, b = (float(e.training.loss(like(e.start.outputs, t), targets)) for t in (right, right[order]))
    except Exception:  # the loss wants more than one tensor
        return None
    return (a, b) if math.isfinite(a) and math.isfinite(b) and a > b + 1e-6 * abs(b) else None


def _ideal(z: Tensor, targets: Tensor, y: Tensor | None) -> Tensor | None:
    """Outputs that say what the targets say."""
    if targets.shape == z.shape and targets.is_floating_point() and z.is_floating_point():
        return targets.to(z)
    if not targets.is_floating_point() and z.dim() == 2 and targets.dim() == 1 and z.shape[1] > 1:
        if int(targets.min()) < 0 or int(targets.max()) >= z.shape[1]:
            return None
        sharp = torch.nn.functional.one_hot(targets.long(), z.shape[1]).to(z)
        return torch.log_softmax(6 * sharp, 1)
    return None


def output_shape(e: Evidence) -> Iterator[Finding]:
    """Outputs and targets whose shapes fit only by broadcasting, or outputs too few for the classes."""
    z, names = e.start.output, set(losses_in(e))
    targets = e.start.batch.targets if e.start.batch.targets is not None else e.start.batch.first
    if z is None or not isinstance(targets, Tensor) or not e.paired:
        return
    if (
        (distance(names) or BINARY & names)
        and z.shape != targets.shape
        and z.numel() != 1
        and _broadcasts(e, z, targets)
    ):
        shape = torch.broadcast_shapes(z.shape, targets.shape)
        yield Finding(
            "output-shape",
            None,
            float(math.prod(shape)),
            float(targets.numel()),
            f"outputs {tuple(z.shape)} against targets {tuple(targets.shape)} are broadcast to {tuple(shape)}: every "
            "output is compared with every target, and learns their mean",
            "outputs.squeeze(1), or targets.unsqueeze(1)",
            0.97,
            "PyTorch, broadcasting semantics",
        )
    elif "LogSoftmax" in names and z.dim() == 2 and z.shape[1] == 1:
        yield Finding(
            "output-shape",
            None,
            1.0,
            2.0,
            "cross-entropy over one output: its softmax is 1 and its loss 0 whatever the network does",
            f"{max(2, int(e.sample.targets.high) + 1)} outputs, or nn.BCEWithLogitsLoss with one",
            0.98,
            "softmax(z) = exp(z) / exp(z) = 1",
        )


def _broadcasts(e: Evidence, z: Tensor, targets: Tensor) -> bool:
    """Whether the loss saw them as they are: a loss of a user's may have reshaped them first."""
    try:
        shape = torch.broadcast_shapes(z.shape, targets.shape)
    except RuntimeError:
        return False
    if math.prod(shape) == targets.numel():
        return False
    if math.prod(shape) == z.numel():  # targets alone are spread: torch's losses do it, a user's may know better
        return type(e.training.loss).__module__.startswith("torch.") or e.training.loss.__module__.startswith("torch.")
    return math.prod(shape) in {math.prod(op.shape) for op in e.start.graph.between()} if e.start.graph else False
