"""Checks of how layers follow each other: what is missing between, in the wrong place, or lets little through."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from fanin.diagnosis.checks.modes import module_called, some
from fanin.diagnosis.evidence import GOOD, Evidence, percent
from fanin.diagnosis.graph import Graph, Op, activation_inputs
from fanin.diagnosis.start import WeightedLayer
from fanin.diagnosis.ways import cuts
from fanin.finding import Finding


def missing_nonlinearity(e: Evidence) -> Iterator[Finding]:
    """Two products with weights and nothing but linear operations between: together they are one product.

    A narrower layer between two wider ones is a bottleneck, which a linear network has reason for, and is not named;
    nor are the projections into and out of an attention, and the parts of a factorised convolution, linear by design.
    """
    graph = e.start.graph
    if graph is None:
        return
    pairs = list(_linear_pairs(graph))
    rows = {row.op: row for row in e.start.layers}
    weighted = graph.weighted
    all_linear = len(weighted) > 1 and not any(op.kind in ("nonlinear", "recurrent") for op in graph.behind())
    attending = _attending(graph)
    wide = [(a, b) for a, b in pairs if _wide(rows[a], rows[b]) and not _frozen(e, rows[a])]
    wide = [(a, b) for a, b in wide if a not in attending and b not in attending]
    if all_linear and (wide or not e.sample.targets.like_inputs) and e.paired:
        yield _linear(e, pairs or [(weighted[0], weighted[-1])], "the whole network is one linear map", 0.93)
    elif wide:
        yield _linear(e, wide, "these layers together are one linear map", 0.75)


def _linear(e: Evidence, pairs: list[tuple[Op, Op]], words: str, confidence: float) -> Finding:
    named = ", ".join(f"{a.layer or 'first'} -> {b.layer or 'last'}" for a, b in pairs[:4])
    return Finding(
        "missing-nonlinearity",
        pairs[0][0].layer or None,
        float(len(pairs)),
        0.0,
        f"no activation between {named}: {words}",
        f"an activation, such as nn.ReLU(), behind {pairs[0][0].layer or 'the first layer'}",
        confidence,
        "W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)",
    )


def _linear_pairs(graph: Graph) -> Iterator[tuple[Op, Op]]:
    """(lower, upper) products with a single way between them, of linear operations whose results nothing else uses."""
    users = graph.users()
    for op in graph.weighted:
        way = activation_inputs(graph, op)
        while len(way) == 1 and way[0].kind == "linear" and users[way[0]] == 1:
            way = activation_inputs(graph, way[0])
        if len(way) == 1 and way[0].kind == "weighted" and way[0].name != "Bmm" and users[way[0]] == 1:
            yield way[0], op


def _attending(graph: Graph) -> set[Op]:
    """Products with weights that make what an attention multiplies, or take what it gives."""
    found = {op for op in graph.weighted if any(map(_attends, _through_linear(graph, op)))}
    for op in filter(_attends, graph.ops):
        found.update(below for below in _through_linear(graph, op) if below.kind == "weighted")
    return found


def _attends(op: Op) -> bool:
    """Whether it multiplies matrices of activations."""
    return op.kind == "nonlinear" and (op.name in ("Bmm", "Mm", "Baddbmm") or op.name.startswith("ScaledDotProduct"))


def _through_linear(graph: Graph, op: Op) -> list[Op]:
    """The first operations below one that are not merely linear, along all activations."""
    found, queue, seen = [], activation_inputs(graph, op), set()
    while queue:
        below = queue.pop()
        if below in seen:
            continue
        seen.add(below)
        if below.kind == "linear":
            queue += activation_inputs(graph, below)
        else:
            found.append(below)
    return found


def _wide(a: WeightedLayer, b: WeightedLayer) -> bool:
    """Whether the width between them is no bottleneck, and they are not the parts of one factorised convolution.

    Those are depthwise, or have a kernel of 1 along each axis along which the other has more.
    """
    if "onvolution" in a.op.name and "onvolution" in b.op.name:
        groups = [int(op.saved("groups") or 1) for op in (a.op, b.op)]
        if max(groups) > 1 or all(1 in axis for axis in zip(a.kernel, b.kernel, strict=False)):
            return False
    return a.units >= min(a.fan_in, b.units)


def _frozen(e: Evidence, row: WeightedLayer) -> bool:
    parameter = dict(e.model.named_parameters(remove_duplicate=False)).get(row.parameter)
    return parameter is not None and not parameter.requires_grad


def layers(e: Evidence) -> Iterator[Finding]:
    """Layers that cannot work where they stand: never called, dropping nearly all, at the very end."""
    graph, asked = e.start.graph, not e.steps or e.troubled
    if graph is None or graph.output is None:
        return
    for name, part in e.model.named_modules():
        if asked and isinstance(part, nn.modules.dropout._DropoutNd) and part.p >= 0.9:
            yield _layer(name, f"{name} drops {part.p:.0%} of its inputs", "p between 0.1 and 0.5", 0.85, part.p)
    if e.last_called is not None:
        yield from _last(*e.last_called, asked=asked)
    yield from _hidden_softmax(graph)
    yield from _single(e)
    if e.mixes_examples:
        words = "the outputs of an example change with the other examples of its batch, in evaluation mode too"
        remedy = "look along which axis recurrent layers, attention, softmax and reshapes run: batch_first=True, dim=-1"
        yield _layer("", words, remedy, 0.9)
    unused = [n for n in e.start.without_gradient if not module_called(e, n)]
    if unused and e.troubled:
        words = f"{some(unused)}: registered, and never used by forward"
        yield _layer(unused[0].rpartition(".")[0], words, "call them in forward, or take them away", 0.5)


def _single(e: Evidence) -> Iterator[Finding]:
    """Layer normalisation over a single number: it is 0 whatever comes in."""
    for name, part in e.model.named_modules():
        if isinstance(part, nn.LayerNorm) and math.prod(part.normalized_shape) == 1:
            words = f"{name} normalises over an axis of length 1: it gives 0 whatever comes in, and no gradient passes"
            yield _layer(name, words, "normalise over the features", 0.97)


def _last(name: str, part: nn.Module, *, asked: bool) -> Iterator[Finding]:
    """Dropout or batch normalisation behind the last weighted layer."""
    if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
        words = f"dropout with p = {part.p:g} is the last layer: it sets outputs to zero at random"
        yield _layer(name, words, "no dropout behind the last Linear", 0.8, part.p)
    elif asked and isinstance(part, nn.modules.batchnorm._BatchNorm):
        words = "batch normalisation is the last layer: outputs have mean 0 and variance 1 by column"
        yield _layer(name, words, "no normalisation behind the last Linear", 0.6)


def _hidden_softmax(graph: Graph) -> Iterator[Finding]:
    """A softmax whose result goes into a weighted layer, and not into an attention's product."""
    for op in graph.weighted:
        for below in activation_inputs(graph, op):
            if below.name == "Softmax":
                words = f"a softmax stands before {op.layer or 'a layer'}: its values sum to 1, so that each is small"
                yield _layer(op.layer, words, "nn.ReLU() in hidden layers", 0.7)


def _layer(name: str, evidence: str, remedy: str, confidence: float, value: float | None = None) -> Finding:
    threshold = None if value is None else 0.0
    return Finding("layers", name or None, value, threshold, evidence, remedy, confidence, "what the layer does")


def capacity(e: Evidence) -> Iterator[Finding]:
    """A network through whose narrowest place little passes, or that cannot even learn one batch by heart."""
    if not e.steps or max([e.learnt, e.prospect, e.attainable]) >= GOOD:
        return
    narrow = _narrowest(e)
    if narrow is not None:
        layer, width = narrow
        yield Finding(
            "capacity",
            layer or None,
            float(width),
            _needed(e),
            f"all that the network knows of an example passes through {width} number{'s' if width > 1 else ''} behind "
            f"{layer or 'a layer'}, for {e.outputs} outputs; nothing that was tried learns more than "
            f"{percent(max(e.quality(r) for r in e.experiments.values()))} of the task",
            "a wider layer, or fewer poolings and strides",
            0.6,
            "Goodfellow, Bengio and Courville (2016), Deep Learning, section 6.4",
        )
    elif e.hopeless and e.one_batch is not None and e.one_batch < 0.5:
        yield Finding(
            "capacity",
            None,
            e.one_batch,
            0.5,
            f"the network cannot learn a single batch of {e.start.batch.size} by heart: {percent(e.one_batch)} of it "
            "after as many steps",
            "more units or layers; look at the wiring first",
            0.5,
            "overfit one batch (Karpathy, 2019, A recipe for training neural networks)",
        )


def _narrowest(e: Evidence) -> tuple[str, int] | None:
    """(layer, numbers by example) of the narrowest place before the outputs, where it is narrow; None elsewhere.

    A place is one that there is no way around: a bias for each item, beside the factors that make up the rest, is none.
    """
    graph, batch = e.start.graph, e.start.batch.size
    if graph is None or e.sample.targets.like_inputs:
        return None  # an autoencoder's bottleneck is its purpose
    found, layer = None, ""
    unavoidable = set(cuts(graph))
    for op in graph.behind():
        layer = op.layer if op.kind in ("weighted", "recurrent") else layer
        if op not in unavoidable:
            continue
        if op is graph.output or op.kind == "linear" or not op.shape or op.shape[0] != batch or len(op.shape) < 2:
            continue
        if op.kind == "weighted" and op is e.start.layers[-1].op:
            continue
        width = math.prod(op.shape[1:])
        if found is None or width < found[1]:
            found = layer, width
    return found if found is not None and found[1] <= _needed(e) else None


def _needed(e: Evidence) -> float:
    """Numbers that say too little: half as many as real outputs; log2 C units, on or off, tell C classes apart."""
    y = e.sample.targets
    return max(2.0, e.outputs / 2 if y.kind == "real" else math.log2(max(y.distinct, 1)))
