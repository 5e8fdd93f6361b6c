"""Checks of the network itself: wiring between layers, weights at the start, units that cannot learn."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from fanin.diagnosis.evidence import CLEAR, GOOD, Evidence, percent
from fanin.diagnosis.experiments import adam, initialized
from fanin.diagnosis.graph import Graph, Op, activation_inputs
from fanin.diagnosis.start import WeightedLayer
from fanin.finding import Finding, Remedy
from fanin.proof.remedies import unfreeze

_GLOROT = "Glorot and Bengio (2010); Saxe, McClelland and Ganguli (2014)"
_HE = "He, Zhang, Ren and Sun (2015)"
_INIT = Remedy("init", 'fanin.init_(model, "kaiming_normal")', {"scheme": "kaiming_normal"})
_MODAL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


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


def symmetry(e: Evidence) -> Iterator[Finding]:
    """Units of a hidden layer with equal weights and equal gradients: every step keeps them equal."""
    last = e.start.layers[-1] if e.start.layers else None
    stuck = [row for row in e.start.layers if row is not last and row.equal and row.equal_gradients and row.units > 1]
    zero = [row for row in stuck if not row.weight_gradient]
    if not stuck or (e.steps and not e.troubled):
        return
    row = stuck[0]
    words = "equal weights and no gradient" if row in zero else "equal weights and equal gradients"
    yield Finding(
        "symmetry",
        row.layer or None,
        float(row.units),
        1.0,
        f"all {row.units} units of {row.layer or 'the first layer'} have {words}"
        + (f", and so have {len(stuck) - 1} layers more" if len(stuck) > 1 else "")
        + ": they will stay one unit",
        'fanin.init_(model, "kaiming_normal"): random weights',
        0.97,
        "Goodfellow, Bengio and Courville (2016), Deep Learning, section 8.4",
        _INIT,
    )


def init_scale(e: Evidence) -> Iterator[Finding]:
    """Weights drawn far too large or too small, where drawing them anew is what helps.

    Asked where the first loss is over twice the best constant's, or the signal changes by more than a factor of 3 a
    layer, or outputs hardly differ between examples.
    """
    if not (e.lags or e.hopeless) or not e.start.layers or any(row.equal for row in e.start.layers[:-1]):
        return
    asked = _odd_scale(e)
    if not asked:
        return
    better = max(
        e.quality(e.experiment("initialised anew", initialized)),
        e.quality(e.experiment("initialised anew, Adam", lambda t: adam(initialized(t)))),
    )
    gain = better - e.learnt
    if gain < CLEAR:
        return
    # only what drawing anew adds to other remedies speaks for the weights
    others = [e.quality(r) for name, r in e.experiments.items() if "initialised" not in name and not r.failed]
    if better < max(others, default=0) - CLEAR / 2:
        return
    yield Finding(
        "init-scale",
        asked[1],
        asked[2],
        asked[3],
        f"{asked[0]}; with weights drawn anew (He) the network learns {percent(better)} of the task in {e.steps} "
        f"steps instead of {percent(e.learnt)}",
        'fanin.init_(model, "kaiming_normal")',
        min(0.95, 0.65 + 0.3 * gain),
        _HE,
        _INIT,
    )


def _odd_scale(e: Evidence) -> tuple[str, str | None, float, float] | None:
    base, first = e.baseline, e.start.loss
    rows = [row for row in e.start.layers if row.op.kind == "weighted"]
    worst = max(rows, key=lambda row: abs(math.log(max(_gain(row), 1e-30))), default=None)
    if worst is not None and not 1 / 30 < _gain(worst) < 30:
        return (
            f"weights of {worst.layer or 'the network'} have variance {_gain(worst):.3g} / fan_in, where 1 to 2 keeps "
            "the signal",
            worst.layer or None,
            _gain(worst),
            30.0 if _gain(worst) > 1 else 1 / 30,
        )
    if base is not None and math.isfinite(first) and base > 0 and first > 2 * base + 1:
        return (f"the first loss is {first:.3g}, a constant has {base:.3g}", None, first, 2 * base + 1)
    return None


def _gain(row: WeightedLayer) -> float:
    """fan_in times the mean square of the weights: 1 to 2 keeps a signal, PyTorch's default is 1/3."""
    return row.weight**2 / row.units


def slopes(e: Evidence) -> Iterator[Finding]:
    """Gradients that shrink or grow geometrically on the way back, over more than a factor of 100 in all.

    The logarithm of E[g^2] by layer is fitted by a line; theory says which slope an activation and its weights have
    (fanin.theory). It matters where training struggles.
    """
    # a gradient that is 0, or no number, is another cause's
    rows = [row for row in e.start.layers if row.gradient and math.isfinite(row.gradient)]
    if len(rows) < 3 or (e.steps and not e.troubled):
        return
    logs = [math.log10(max(row.gradient or 0.0, 1e-300)) for row in rows]
    slope, straight = _line(logs)
    total = slope * (len(logs) - 1)
    if straight < 0.6 or abs(total) < 4 or (not e.steps and abs(total) < 8):
        return
    vanishing = total > 0  # larger towards the outputs
    first = rows[0]
    updates = _relative(first)
    yield Finding(
        "vanishing-gradient" if vanishing else "exploding-gradient",
        first.layer or None,
        10 ** (abs(slope) / 2),
        10 ** (2 / max(len(logs) - 1, 1)),
        f"the gradient's size {'shrinks' if vanishing else 'grows'} by {10 ** (abs(slope) / 2):.2g} a layer on the way "
        f"back, {10 ** (abs(total) / 2):.2g} over {len(logs)} layers"
        + (f"; |gradient| / |weights| of {first.layer} is {updates:.2g}" if updates is not None else ""),
        'fanin.init_(model, "critical") for the activation at hand; ReLU for sigmoid; normalisation; residual branches'
        if vanishing
        else 'fanin.init_(model, "kaiming_normal"), or torch.nn.utils.clip_grad_norm_',
        0.85 * straight if e.steps else 0.6,
        _GLOROT,
        Remedy("normalization", "batch normalisation behind every hidden layer", {}) if vanishing else _INIT,
    )


def _relative(row: WeightedLayer) -> float | None:
    return row.weight_gradient / row.weight if row.weight_gradient is not None and row.weight else None


def _line(values: list[float]) -> tuple[float, float]:
    """Slope of the least-squares line, and the share of the variance that it explains."""
    n = len(values)
    centre, mean = (n - 1) / 2, sum(values) / n
    slope = sum((i - centre) * (v - mean) for i, v in enumerate(values)) / sum((i - centre) ** 2 for i in range(n))
    whole = sum((v - mean) ** 2 for v in values)
    return slope, slope**2 * sum((i - centre) ** 2 for i in range(n)) / whole if whole else 0.0


def saturation(e: Evidence) -> Iterator[Finding]:
    """Over half of a hidden layer's sigmoids or tanhs where their slope is under 5 % of its largest."""
    for row in e.start.units:
        if row.saturated is not None and row.saturated > 0.5 and (not e.steps or e.troubled):
            yield Finding(
                "saturation",
                row.layer or None,
                row.saturated,
                0.5,
                f"{row.saturated:.0%} of the {row.function.lower()} values behind {row.layer or 'the first layer'} are "
                "where the function is flat, and pass less than a twentieth of the gradient",
                "smaller weights (fanin.init_(model, 'xavier_uniform')), or standardised inputs",
                0.7 if e.steps else 0.6,
                _GLOROT,
                Remedy("init", 'fanin.init_(model, "xavier_uniform")', {"scheme": "xavier_uniform"}),
            )
            return


def dead_units(e: Evidence) -> Iterator[Finding]:
    """Units that are zero on the whole batch, before training or after the run: all of a layer, or most of it.

    Half of the entries being zero is healthy; a unit is dead where every one is. It is said where it blocks learning.
    """
    rows = [("at the start", row) for row in e.start.units] + [("after the run", row) for row in e.units_after]
    dead = [(when, row) for when, row in rows if row.dead is not None and row.dead > 0.6 and row.count > 1]
    if not dead or (e.steps and not e.troubled) or (not e.steps and (dead[0][1].dead or 0) < 1):
        return
    when, row = max(dead, key=lambda pair: pair[1].dead or 0)
    yield Finding(
        "dead-units",
        row.layer or None,
        row.dead,
        0.6,
        f"{row.dead:.0%} of the {row.count} units behind {row.layer or 'the first layer'} are zero for every example "
        f"{when}: no gradient reaches their weights",
        "a lower learning rate" if when == "after the run" else 'fanin.init_(model, "kaiming_normal"), biases of 0',
        0.85 if row.dead == 1 else 0.7,
        "Lu, Shin, Su and Karniadakis (2019), Dying ReLU and initialization",
        Remedy("lr", "a tenth of the learning rate", {"factor": 0.1}) if when == "after the run" else _INIT,
    )


def frozen_parameters(e: Evidence) -> Iterator[Finding]:
    """Parameters that no gradient reaches: all of them, or those that training waits for."""
    graph = e.start.graph
    if graph is None:
        return
    named = dict(e.model.named_parameters())
    off = [n for n, p in named.items() if not p.requires_grad]
    if not graph.used and named:
        why = (
            "all have requires_grad=False"
            if len(off) == len(named)
            else "forward runs under torch.no_grad() or detaches"
        )
        yield _frozen_finding(f"the outputs depend on no parameter: {why}", None, 0.98)
        return
    lost = [n for n in e.start.without_gradient if _module_called(e, n)]
    if lost and (not e.steps or e.learnt < GOOD):
        yield _frozen_finding(f"no gradient reaches {_some(lost)}: detached, or under torch.no_grad()", lost[0], 0.85)
    elif off and e.troubled and (better := _unfrozen(e)) is not None:
        yield _frozen_finding(
            f"{_some(off)} ha{'s' if len(off) == 1 else 've'} requires_grad=False; with gradients the network learns "
            f"{percent(better)} of the task instead of {percent(e.learnt)}",
            off[0],
            0.85,
        )


def _unfrozen(e: Evidence) -> float | None:
    better = max(
        e.quality(e.experiment("all parameters free", unfreeze)),
        e.quality(e.experiment("all parameters free, Adam", lambda t: adam(unfreeze(t)))),
    )
    return better if better - e.learnt > CLEAR else None


def _module_called(e: Evidence, parameter: str) -> bool:
    """Whether the module that holds a parameter ran, as far as hooks tell."""
    return parameter.rpartition(".")[0] in e.called


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _frozen_finding(evidence: str, name: str | None, confidence: float) -> Finding:
    return Finding(
        "frozen-parameters",
        name,
        None,
        None,
        evidence,
        "p.requires_grad_(True) for the parameters that shall learn, before the optimiser is made",
        confidence,
        "torch.autograd: locally disabling gradient computation",
        Remedy("unfreeze", "for p in model.parameters(): p.requires_grad_(True)"),
    )


def wrong_mode(e: Evidence) -> Iterator[Finding]:
    """Training in evaluation mode of what behaves otherwise in training, or noise that stays on in evaluation."""
    modal = [name for name, part in e.model.named_modules() if isinstance(part, _MODAL) and not part.training]
    active = [name for name in modal if _acts(e.model.get_submodule(name))]
    if active:
        yield Finding(
            "wrong-mode",
            active[0],
            None,
            None,
            f"in evaluation mode when training begins: {_some(active)} will not drop, or not normalise by the batch",
            "model.train() before training, model.eval() before evaluating",
            0.7 if e.model.training else 0.8,
            "torch.nn.Module.train",
            Remedy("train-mode", "model.train()"),
        )
    yield from _still(e)
    if e.drops_in_evaluation:
        yield Finding(
            "wrong-mode",
            None,
            None,
            None,
            "a dropout function drops while the network is in evaluation mode: it was called without "
            "training=self.training",
            "F.dropout(x, p, training=self.training)",
            0.8,
            "torch.nn.functional.dropout",
        )


def _acts(part: nn.Module) -> bool:
    if isinstance(part, nn.modules.dropout._DropoutNd):
        return part.p > 0
    frozen = [p for p in part.parameters(recurse=False) if not p.requires_grad]
    return not frozen  # batch normalisation that is frozen on purpose has frozen parameters


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
    unused = [n for n in e.start.without_gradient if not _module_called(e, n)]
    if unused and e.troubled:
        words = f"{_some(unused)}: registered, and never used by forward"
        yield _layer(unused[0].rpartition(".")[0], words, "call them in forward, or take them away", 0.5)


def _still(e: Evidence) -> Iterator[Finding]:
    """Batch normalisation whose running statistics do not move."""
    for name, part in e.model.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.momentum == 0 and part.track_running_stats:
            yield Finding(
                "wrong-mode",
                name,
                0.0,
                0.1,
                f"{name} has momentum 0: its running mean and variance stay those of birth, and evaluation uses them",
                "nn.BatchNorm1d(width) with its default momentum of 0.1",
                0.85,
                "torch.nn.BatchNorm1d",
            )


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
    """(layer, numbers by example) of the narrowest place before the outputs, where it is narrow; None elsewhere."""
    graph, batch = e.start.graph, e.start.batch.size
    if graph is None or e.sample.targets.like_inputs:
        return None  # an autoencoder's bottleneck is its purpose
    found, layer = None, ""
    for op in graph.behind():
        layer = op.layer if op.kind in ("weighted", "recurrent") else layer
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
