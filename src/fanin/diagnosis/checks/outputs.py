"""Checks of the last activation against the loss: read off the graph of the first batch, without a threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from fanin.diagnosis.checks.wiring import BINARY, distance, losses_in
from fanin.diagnosis.evidence import Evidence
from fanin.diagnosis.graph import VIEWS, Op, back_through
from fanin.finding import Finding, Remedy

_BOUNDED = {"Softmax": (0.0, 1.0), "Sigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0), "Relu": (0.0, math.inf)}
_ROUNDING = 0.05  # of a sum of probabilities whose logarithms have the 8 bits of bfloat16
_MODULE = {
    "Softmax": "nn.Softmax",
    "Sigmoid": "nn.Sigmoid",
    "Tanh": "nn.Tanh",
    "Relu": "nn.ReLU",
    "LogSoftmax": "nn.LogSoftmax",
}


def last_activation(e: Evidence) -> Op | None:
    """The operation that makes the outputs, behind views."""
    graph = e.start.graph
    return back_through(graph, graph.output, VIEWS) if graph and graph.output else None


def output_activation(e: Evidence) -> Iterator[Finding]:
    """The last activation against the loss: what is applied twice, left out, constant, or out of reach."""
    last = last_activation(e)
    if last is None or e.start.output is None or not e.paired:
        return
    z, names = e.start.output.detach(), losses_in(e)
    yield from _constant_softmax(last, z)
    yield from _shared_softmax(e, last, names)
    if "LogSoftmax" in names and "NllLoss" in " ".join(names) and last.name in ("Softmax", "Sigmoid", "Tanh", "Relu"):
        yield _twice(e, last, "nn.CrossEntropyLoss", "a log-softmax of its own")
    elif e.start.nll_mass is not None and e.start.nll_mass[1] > _ROUNDING:
        yield Finding(
            "output-activation",
            None,
            e.start.nll_mass[0],
            1.0,
            "nn.NLLLoss wants log-probabilities, whose exponentials sum to 1 over the classes; those that it gets "
            f"sum to {e.start.nll_mass[0]:.3g}",
            "end with nn.LogSoftmax(dim=1), or take nn.CrossEntropyLoss on the outputs before any activation",
            0.97,
            "torch.nn.NLLLoss",
            Remedy("loss", "loss = nn.CrossEntropyLoss()", {"name": "cross_entropy"}),
        )
    elif "BinaryCrossEntropyWithLogits" in names and last.name in ("Sigmoid", "Softmax", "Relu", "Tanh"):
        yield _twice(e, last, "nn.BCEWithLogitsLoss", "a sigmoid of its own")
    elif distance(names):
        yield from _out_of_reach(e, last)


def _twice(e: Evidence, last: Op, loss: str, own: str) -> Finding:
    what = _MODULE[last.name]
    plain = {"Relu": "cuts all negative outputs off", "Tanh": "keeps outputs within [-1, 1]"}.get(
        last.name, "keeps outputs within [0, 1], so that the loss cannot come near 0 and gradients are small"
    )
    return Finding(
        "output-activation",
        None,
        None,
        None,
        f"{loss} applies {own}; the network ends with {what}, which {plain}",
        f"take the last {what} away; apply it to predictions only",
        0.98 if last.name in ("Softmax", "Sigmoid") else 0.9,
        f"torch.{loss.replace('nn.', 'nn.')}",
        Remedy("output-activation", f"# without the last {what}", {"name": "none"}),
    )


def _constant_softmax(last: Op, z: Tensor) -> Iterator[Finding]:
    if last.name not in ("Softmax", "LogSoftmax") or z.dim() < 2:
        return
    dim = last.saved("dim")
    dim = None if dim is None else int(dim) - 2**64 if int(dim) >= 2**63 else int(dim)
    if dim is not None and last.shape and last.shape[dim] == 1:
        yield Finding(
            "output-activation",
            None,
            1.0,
            2.0,
            "the softmax at the end runs over a single unit: it is 1 whatever comes in, and no gradient passes",
            "nn.Sigmoid with nn.BCELoss, or no activation with nn.BCEWithLogitsLoss",
            0.99,
            "softmax(z) = exp(z) / exp(z) = 1",
            Remedy("output-activation", "# a sigmoid instead of the softmax", {"name": "sigmoid"}),
        )
    elif dim in (0, -z.dim()) and len(z) > 1:
        yield Finding(
            "output-activation",
            None,
            0.0,
            1.0,
            "the softmax at the end runs over the examples of the batch, not over the classes",
            "dim=1",
            0.97,
            "torch.nn.Softmax",
        )


def _shared_softmax(e: Evidence, last: Op, names: list[str]) -> Iterator[Finding]:
    """A softmax before labels of which several, or none, may hold at once."""
    y = e.sample.targets.tensor
    if (
        last.name != "Softmax"
        or not (distance(names) or BINARY & set(names))
        or y is None
        or y.dim() != 2
        or y.shape[1] < 2
    ):
        return
    beside = float((((y.double().sum(1)) - 1).abs() > 1e-3).double().mean())
    if beside > 0.05:
        yield Finding(
            "output-activation",
            None,
            beside,
            0.05,
            f"the softmax at the end makes outputs sum to 1; targets of {beside:.0%} of the examples do not: several "
            "labels hold at once, or none",
            "nn.BCEWithLogitsLoss on outputs without an activation",
            0.95,
            "sum of softmax(z) = 1",
            Remedy("loss", "loss = nn.BCEWithLogitsLoss()", {"name": "bce_with_logits"}),
        )


def _out_of_reach(e: Evidence, last: Op) -> Iterator[Finding]:
    """A bounded last activation, and targets beyond its bounds."""
    y = e.sample.targets
    if last.name not in _BOUNDED or y.tensor is None or y.kind == "other" or not y.std:
        return
    low, high = _BOUNDED[last.name]
    values = y.tensor.double()
    beyond = float(((values < low - 1e-6) | (values > high + 1e-6)).double().mean())
    cut = float(
        (values - values.clamp(low, high)).square().sum() / (values - values.mean()).square().sum().clamp_min(1e-300)
    )
    if beyond > 0.01 and cut > 0.01:
        yield Finding(
            "output-activation",
            None,
            beyond,
            0.01,
            f"{_MODULE[last.name]} at the end gives values in [{low:g}, {high:g}]; {beyond:.0%} of the targets, which "
            f"reach from {y.low:.3g} to {y.high:.3g}, lie outside",
            f"take the last {_MODULE[last.name]} away: a regression ends with a Linear layer",
            0.97,
            "the range of the function",
            Remedy("output-activation", f"# without the last {_MODULE[last.name]}", {"name": "none"}),
        )
