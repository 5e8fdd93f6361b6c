"""The first batch: what one pass forward and backward tells before anything is trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fanin.diagnosis.graph import Graph, Op, graph_of
from fanin.errors import FaninError
from fanin.training import Batch
from fanin.training.losses import Loss, call, main_output, targets_of, value_of

_FLAT = 0.05  # a unit is saturated where the derivative is under this share of its largest value


@dataclass
class WeightedLayer:
    """One product with weights; gradients are those of the loss.

    gradient: E[g^2] over all entries of the layer's output, times the batch size squared, so that it is that of one
    example's loss where the loss is a mean; weight_gradient, weight: Euclidean norms. kernel: of a convolution, its
    size by axis; empty of other layers. equal: whether all units have equal weights, equal_gradients: and equal
    gradients, so that they stay equal.
    """

    layer: str
    op: Op
    parameter: str
    units: int
    fan_in: int
    kernel: tuple[int, ...] = ()
    gradient: float | None = None
    weight: float = 0.0
    weight_gradient: float | None = None
    equal: bool = False
    equal_gradients: bool = False


@dataclass
class Units:
    """What one nonlinear operation does on the batch, behind the weighted layer `layer`.

    dead: share of units (along the second axis) that are zero for every example and position; zero: share of entries.
    saturated: share of entries where a bounded function is flat. count: units.
    """

    function: str
    layer: str
    count: int
    dead: float | None = None
    saturated: float | None = None


@dataclass
class Start:
    """The network on its first batch. error: what it raised, and `stage` where ("forward", "loss", "backward").

    told: whether the loss has a gradient by the outputs that is not 0 throughout. without_gradient, broken: parameters
    that the loss has no gradient by, and one that is not finite. bce_range: least and largest of the targets that came
    to a binary cross-entropy; nll_mass: sums over the classes of the exponentials that came to a negative
    log-likelihood, (their mean, the largest distance from 1): what a loss of the user's own makes of its arguments.
    """

    batch: Batch
    outputs: Any = None
    output: Tensor | None = None
    loss: float = math.nan
    graph: Graph | None = None
    layers: list[WeightedLayer] = field(default_factory=list)
    units: list[Units] = field(default_factory=list)
    told: bool = True
    without_gradient: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    bce_range: tuple[float, float] | None = None
    nll_mass: tuple[float, float] | None = None
    error: Exception | None = None
    stage: str = ""

    @property
    def paired(self) -> bool:
        """Whether there is one tensor of outputs, with an axis of examples, and one of targets."""
        alone = self.output is not None and self.output.dim() > 0 and like(self.outputs, self.output) is not None
        return alone and isinstance(targets_of(self.batch), Tensor)

    @property
    def finite(self) -> bool:
        """Whether the loss and all gradients of this batch are finite."""
        return self.error is None and math.isfinite(self.loss) and not self.broken


def like(outputs: Any, z: Tensor) -> Any:
    """Outputs of the same structure with `z` for their one tensor; None where there are several, or what is unknown."""
    if isinstance(outputs, Tensor):
        return z
    parts = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if not isinstance(parts, list | tuple) or sum(isinstance(t, Tensor) for t in parts) != 1:
        return None
    if isinstance(outputs, MutableMapping):
        found = copy.copy(outputs)
        found.update({k: z for k, v in outputs.items() if isinstance(v, Tensor)})
        return found
    if isinstance(outputs, Mapping):  # it cannot be changed, and how another is made is its own affair
        return None
    changed = [z if isinstance(part, Tensor) else part for part in parts]
    return type(outputs)(*changed) if hasattr(outputs, "_fields") else type(outputs)(changed)


def first_pass(model: nn.Module, batch: Batch, loss: Loss) -> Start:
    """One pass of a batch through the network as it is (its mode too), and back; gradients are not kept anywhere."""
    start = Start(batch)
    try:
        with torch.enable_grad():
            start.stage = "forward"
            start.outputs = call(model, batch)
            start.output = main_output(start.outputs)
            start.stage = "loss"
            value = value_of(loss, start.outputs, batch)
            if value.is_complex():
                raise FaninError("loss: expected a real number from loss(outputs, targets); got a complex one")
            start.loss = float(value.detach())
            start.graph = graph_of(model, start.output, value)
            start.bce_range, start.nll_mass = _likelihood(start.graph)
            start.units = _units(start.graph)
            start.layers = _layers(model, start.graph)
            start.stage = "backward"
            if value.requires_grad:
                start.told = _told(value, start.output)
                _backward(model, value, start)
        start.stage = ""
    except Exception as error:  # a user's forward or loss may raise anything, and that is a finding
        start.error = error
    return start


def _layers(model: nn.Module, graph: Graph) -> list[WeightedLayer]:
    by_name = dict(model.named_parameters(remove_duplicate=False))
    found = []
    for op in graph.weighted:
        name = op.parameters[0]
        weight = by_name[name].detach()
        rows = _by_unit(op, weight)
        found.append(
            WeightedLayer(
                layer=op.layer,
                op=op,
                parameter=name,
                units=len(rows),
                fan_in=rows.shape[1],
                kernel=tuple(weight.shape[2:]),
                weight=_norm(weight),
                equal=len(rows) > 1 and _rows_equal(rows),
            )
        )
    return found


def _by_unit(op: Op, weight: Tensor) -> Tensor:
    """Weights, or their gradient, with a row for each unit: those of x @ W and transposed convolutions are columns."""
    factor = op.node.next_functions[-1][0]  # of a matrix product the right one
    right = op.name in ("Mm", "Addmm") and factor is not None and hasattr(factor, "variable")
    if weight.dim() > 1 and (right or op.saved("transposed")):
        weight = weight.transpose(0, 1)
    return weight.flatten(1)


def _likelihood(graph: Graph) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """See Start.bce_range and Start.nll_mass."""
    limits = mass = None
    for op in graph.between():
        if op.name.startswith("BinaryCrossEntropy") and isinstance(y := op.saved("target"), Tensor) and y.numel():
            limits = float(y.min()), float(y.max())
        if op.name.startswith("NllLoss") and isinstance(z := op.saved("self"), Tensor) and z.numel():
            sums = z.detach().double().exp().sum(1 if z.dim() > 1 else 0)
            mass = float(sums.mean()), float((sums - 1).abs().max())
    return limits, mass


def _rows_equal(rows: Tensor) -> bool:
    first, second = rows[0], rows[1]
    close = 1e-6 * first.abs().amax()
    if bool(((first - second).abs() > close).any()):  # as nearly always: the others need not be looked at
        return False
    return bool(((rows - first).abs().amax() <= close).item())


def _norm(t: Tensor) -> float:
    """|t| in float64, in which squares of vanished and exploded float32 numbers are in range."""
    return float(torch.linalg.vector_norm(t.detach(), dtype=torch.promote_types(t.dtype, torch.float64)))


def _second_moment(t: Tensor) -> float:
    return _norm(t) ** 2 / t.numel() if t.numel() else math.nan


def _units(graph: Graph) -> list[Units]:
    """Nonlinear operations whose results autograd keeps, each with the weighted layer that it follows."""
    found = []
    for op in graph.ops:
        if op.name not in ("Relu", "Sigmoid", "Tanh", "Threshold", "Hardtanh"):
            continue
        if op in graph.between():
            continue
        result = op.saved("result")
        result = op.saved("self") if result is None else result
        if not isinstance(result, Tensor) or result.dim() < 2:
            continue
        units = result.detach().movedim(1 if result.dim() > 2 and _convolved(op) else -1, 0).flatten(1)
        row = Units(op.name, _layer_below(op), len(units))
        if op.name == "Relu":
            row.dead = float((units <= 0).all(1).double().mean())
        elif op.name in ("Threshold", "Hardtanh"):
            row.dead = float((units <= 0).all(1).double().mean()) if op.name == "Threshold" else None
        else:
            slope = units * (1 - units) * 4 if op.name == "Sigmoid" else 1 - units.square()
            row.saturated = float((slope < _FLAT).double().mean())
        found.append(row)
    return found


def _convolved(op: Op) -> bool:
    below = _weighted_below(op)
    return below is not None and "onvolution" in below.name


def _weighted_below(op: Op) -> Op | None:
    seen, queue = set(), list(op.parents)
    while queue:
        parent = queue.pop(0)
        if parent in seen or parent.name == "parameter":
            continue
        if parent.kind in ("weighted", "recurrent", "lookup"):
            return parent
        seen.add(parent)
        queue += parent.parents
    return None


def _layer_below(op: Op) -> str:
    below = _weighted_below(op)
    return below.layer if below is not None else ""


def _backward(model: nn.Module, value: Tensor, start: Start) -> None:
    """Gradients by every parameter, one after the other looked at and forgotten; .grad stays as it is."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows = {id(row.op.node): row for row in start.layers}
    batch = start.batch.size
    handles = [row.op.node.register_prehook(_note(row, batch)) for row in start.layers]
    try:
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    gradients = dict(zip(parameters, found, strict=True))
    start.without_gradient = tuple(name for name, g in gradients.items() if g is None)
    norms = {name: _norm(g.to_dense() if g.is_sparse else g) for name, g in gradients.items() if g is not None}
    start.broken = tuple(name for name, norm in norms.items() if not math.isfinite(norm))
    for row in rows.values():
        g = gradients.get(row.parameter)
        if g is not None and not g.is_sparse:
            row.weight_gradient = norms[row.parameter]
            row.equal_gradients = row.equal and _rows_equal(_by_unit(row.op, g))


def _told(value: Tensor, output: Tensor) -> bool:
    if not output.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(value, output, retain_graph=True, allow_unused=True)
    return gradient is not None and bool(gradient.any())


def _note(row: WeightedLayer, batch: int) -> Any:
    def arrived(gradients: Sequence[Tensor | None]) -> None:
        first = next((g for g in gradients if g is not None), None)
        if first is not None:
            row.gradient = _second_moment(first) * batch**2

    return arrived
