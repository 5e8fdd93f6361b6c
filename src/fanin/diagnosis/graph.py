"""The autograd graph of one batch: which operations lead from the parameters to the outputs and the loss.

Autograd records every operation that a gradient passes, whether a module, a function or a method called it, so that
nothing hides behind functional style, reused modules or in-place activations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

# An output of these is a linear (or affine) function of the one activation that comes in.
_LINEAR = frozenset(
    [
        "View",
        "UnsafeView",
        "Reshape",
        "ReshapeAlias",
        "T",
        "Transpose",
        "Permute",
        "Expand",
        "Squeeze",
        "Unsqueeze",
        "Select",
        "Slice",
        "Clone",
        "Alias",
        "AsStrided",
        "Split",
        "UnsafeSplit",
        "Unbind",
        "Cat",
        "Stack",
        "Index",
        "IndexSelect",
        "Gather",
        "Flatten",
        "Unfold",
        "Repeat",
        "Neg",
        "Add",
        "Sub",
        "Rsub",
        "Mean",
        "Sum",
        "AvgPool1D",
        "AvgPool2D",
        "AvgPool3D",
        "AdaptiveAvgPool1D",
        "AdaptiveAvgPool2D",
        "MkldnnAdaptiveAvgPool2D",
        "ConstantPadNd",
        "ReflectionPad2D",
        "UpsampleNearest2D",
        "UpsampleBilinear2D",
        "ToCopy",
        "NativeDropout",
        "FusedDropout",
        "NativeBatchNorm",
        "CudnnBatchNorm",
        "CopyBackwards",
        "CopySlices",
        "Contiguous",
        "Roll",
        "Flip",
        "Movedim",
        "PixelShuffle",
        "Im2Col",
        "Col2Im",
    ]
)
_WEIGHTED = frozenset(
    [
        "Addmm",
        "Mm",
        "Bmm",
        "Baddbmm",
        "Linear",
        "Matmul",
        "Convolution",
        "MkldnnConvolution",
        "ConvolutionOverrideable",
        "Einsum",
    ]
)
_RECURRENT = frozenset(["MkldnnRnnLayer", "CudnnRnn", "MiopenRnn", "ThnnFusedLstmCell", "ThnnFusedGruCell"])
_LOOKUP = frozenset(["Embedding", "EmbeddingBag"])
# Linear where one side is a constant. A matrix times a vector is none of a batch, but part of a norm of the matrix.
_TWO_SIDED = frozenset(["Mul", "Div", "Mv", "Addmv", "Dot"])


@dataclass(eq=False)
class Op:
    """One operation. name: as torch calls it (`Relu`, `Addmm`, ...). parents: where its inputs come from.

    kind: "weighted" (a product with parameters of two dimensions or more), "lookup", "recurrent", "linear",
    "nonlinear". parameters: names of those that it uses. layer: the path of the module that holds them.
    """

    name: str
    node: Any
    parents: list[Op] = field(default_factory=list)
    parameters: tuple[str, ...] = ()
    kind: str = "linear"
    shape: tuple[int, ...] = ()  # of its result; empty where torch does not say

    @property
    def layer(self) -> str:
        """The path of the module whose parameters these are; empty for the module itself, or none."""
        return self.parameters[0].rpartition(".")[0] if self.parameters else ""

    def saved(self, name: str) -> Any:
        """What the operation keeps for its derivative (`result`, `self`, `mat1`, ...); None where it does not."""
        try:
            return getattr(self.node, f"_saved_{name}", None)
        except RuntimeError:  # freed by a backward pass
            return None


@dataclass(eq=False)
class Graph:
    """All operations between the parameters and the loss, inputs first; `output` and `loss` are the last ones.

    output is None where the outputs depend on no parameter; loss likewise.
    """

    ops: list[Op]
    output: Op | None
    loss: Op | None
    used: frozenset[str]

    def users(self) -> Counter[Op]:
        """How many operations use each one's result."""
        return Counter(parent for op in self.ops for parent in op.parents)

    @property
    def weighted(self) -> list[Op]:
        """Products with weights, in the order in which they run."""
        return [op for op in self.ops if op.kind in ("weighted", "recurrent")]

    def behind(self) -> list[Op]:
        """Operations that lead to the output, itself among them, inputs first."""
        reached, stack = set(), [self.output] if self.output else []
        while stack:
            op = stack.pop()
            if op not in reached and op.name != "parameter":
                reached.add(op)
                stack += op.parents
        return [op for op in self.ops if op in reached]

    @property
    def differentiated(self) -> bool:
        """Whether a derivative by inputs is among the operations, as in the residual of a differential equation."""
        return any(op.name.endswith("Backward") for op in self.ops)  # the derivative of an operation, derived again

    def between(self) -> list[Op]:
        """Operations between the outputs and the loss: those of the loss itself, the last one first."""
        if self.loss is None or self.loss is self.output:
            return []
        found, queue = [], [self.loss]
        while queue:
            op = queue.pop(0)
            if op is self.output or op in found:
                continue
            found.append(op)
            queue += op.parents
        return found


def graph_of(model: nn.Module, output: Tensor, loss: Tensor | None = None) -> Graph:
    """The graph behind an output, and the loss computed from it; before a backward pass frees what it saved."""
    names = {id(p): name for name, p in model.named_parameters(remove_duplicate=False)}
    known: dict[Any, Op] = {}
    order: list[Op] = []
    used: set[str] = set()
    roots = [t.grad_fn for t in (output, loss) if t is not None and t.grad_fn is not None]
    for root in roots:
        for node in _postorder(root, known):
            if _is_leaf(node):
                name = names.get(id(node.variable))
                op = Op("parameter", node, [], (name,) if name else ())
                used.update(op.parameters)
            else:
                op = Op(_plain(node.name()), node, [known[n] for n, _ in node.next_functions if n is not None])
                op.shape = _shape(node)
                _classify(op)
            known[node] = op
            order.append(op)
    ops = [op for op in order if op.name != "parameter"]
    last = known.get(output.grad_fn) if output.grad_fn is not None else None
    judged = known.get(loss.grad_fn) if loss is not None and loss.grad_fn is not None else None
    return Graph(ops, last, judged, frozenset(used))


def _postorder(root: Any, known: dict[Any, Op]) -> Iterator[Any]:
    """Nodes behind a root, each after those that it depends on; without recursion, for networks of any depth."""
    stack, entered = [root], set()
    while stack:
        node = stack[-1]
        if node in known:
            stack.pop()
            continue
        if node in entered:
            stack.pop()
            yield node
            continue
        entered.add(node)
        stack += [n for n, _ in node.next_functions if n is not None and n not in known and n not in entered]


def _shape(node: Any) -> tuple[int, ...]:
    """The shape of a node's (first) result, which autograd keeps to check gradients against."""
    kept = getattr(node, "_input_metadata", None)  # torch's own tests use it; there is no public name
    return tuple(kept[0].shape) if kept else ()


def _plain(name: str) -> str:
    """`torch::autograd::AddmmBackward0` as `Addmm`."""
    return re.sub(r"Backward\d*$", "", name.rpartition("::")[2])


def _is_leaf(node: Any) -> bool:
    return hasattr(node, "variable")


def _classify(op: Op) -> None:
    """Set an operation's kind and its parameters, those that reach it through views and the like."""
    sides = [_parameters_behind(parent) for parent in op.parents]
    matrices = tuple(dict.fromkeys(name for side in sides if side for name, wide in side if wide))
    if op.name in _RECURRENT:
        op.kind, op.parameters = "recurrent", matrices
    elif op.name in _LOOKUP:
        op.kind, op.parameters = "lookup", matrices
    elif op.name in _WEIGHTED and matrices:
        op.kind, op.parameters = "weighted", matrices
    elif op.name in _WEIGHTED or op.name in _TWO_SIDED:
        op.kind = "nonlinear" if sum(side is None for side in sides) > 1 else "linear"
    else:
        op.kind = "linear" if op.name in _LINEAR else "nonlinear"


def _parameters_behind(op: Op, depth: int = 8) -> list[tuple[str, bool]] | None:
    """(name, whether a matrix) of the parameters that an operand is made of; None if an activation is in it."""
    if op.name == "parameter":
        return [(name, op.node.variable.dim() > 1) for name in op.parameters]
    if op.kind in ("weighted", "recurrent", "lookup") or not depth or not op.parents:
        return None
    found: list[tuple[str, bool]] = []
    for parent in op.parents:
        side = _parameters_behind(parent, depth - 1)
        if side is None:
            return None
        found += side
    return found or None


def activation_inputs(graph: Graph, op: Op) -> list[Op]:
    """The parents of an operation that carry activations, and not parameters alone."""
    return [parent for parent in op.parents if parent.name != "parameter" and _parameters_behind(parent) is None]


def back_through(graph: Graph, op: Op, names: frozenset[str]) -> Op:
    """The first operation from `op` downwards whose name is not among these, along single activations."""
    while op.name in names:
        below = activation_inputs(graph, op)
        if len(below) != 1:
            break
        op = below[0]
    return op


VIEWS = frozenset(
    [
        "View",
        "UnsafeView",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Transpose",
        "Permute",
        "Alias",
        "Clone",
        "ToCopy",
        "T",
    ]
)
