"""What a watched training's numbers say: findings, by the same gates as fanin.diagnose's.

A symptom alone says little, for healthy networks have dead units and small gradients too; so it counts only where the
loss has not fallen since the first steps. Facts (a loss that is not finite) count at once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from fanin.diagnosis.watch.streams import Layer, Seen, Weight
from fanin.finding import Finding, Remedy

LEAST_LOOKS = 4  # before anything is judged
_LEAST_STEPS, _LEAST_POINTS = 100, 8
_FALLEN = 0.05  # a loss that is lower by this share of where it began has fallen
_GLOROT = "Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward neural networks"
_BENGIO = "Bengio (2012), Practical recommendations for gradient-based training of deep architectures, section 3.1.1"


def on_the_way(seen: Seen) -> Iterator[Finding]:
    """After a look: what keeps the loss from falling, or surely will."""
    if seen.looks < LEAST_LOOKS or seen.steps < _LEAST_STEPS:
        return
    stuck = stagnates(seen)
    yield from _dead(seen, stuck)
    if not stuck:
        return
    for check in (_mode, _frozen, _saturated, _slopes, _rate_high, _rate_low):
        yield from check(seen)


def stagnates(seen: Seen) -> bool | None:
    """Whether the loss of the last quarter is not clearly under where it began; None where that is not known yet.

    Clearly: by a twentieth; or by a hundredth and three standard errors less than in the first quarter. While the
    learning rate still rises (a warm-up), nothing is known.
    """
    curve = seen.losses
    if len(curve.points) < _LEAST_POINTS or (len(seen.lrs) == 2 and seen.lrs[1] > seen.lrs[0]):
        return None
    now, error = curve.part(0.75, 1)
    early, noise = curve.part(0, 0.25)
    rises = early > curve.start  # it has blown up, and coming down from there is no learning
    least = max(0.01 * abs(curve.start), 3 * math.hypot(error, noise))
    return curve.start - now < _FALLEN * abs(curve.start) and (rises or early - now < least)


def not_finite(
    step: int, loss: float | None, weight: str | None, layer: str | None, gradient: str | None, *, asked: bool
) -> Finding:
    """At once: what is not finite, at which step, where first. asked: whether outputs have been looked through."""
    finite = ", though all outputs are" if asked else ""
    if weight is not None:
        words, where = f"at step {step} parameter {weight} is not finite", weight
    elif layer is not None:
        words, where = f"at step {step} the output of {layer or 'the network'} is not finite, the first to be so", layer
    elif gradient is not None and loss is None:
        words, where = f"at step {step} the gradient of {gradient} is not finite{finite}", gradient
    else:
        words, where = f"at step {step} the loss is {loss}, though weights{asked * ' and outputs'} are finite", None
    return Finding(
        "non-finite",
        where,
        None,
        None,
        words,
        "a lower learning rate, torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) before the step; log_softmax "
        "and BCE with logits in place of logarithms of probabilities; torch.autograd.set_detect_anomaly(True) names "
        "the operation",
        0.9,
        "IEEE 754; Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks",
    )


def without_parameters() -> Finding:
    """At the start: the optimiser holds nothing of this network."""
    return Finding(
        "optimizer",
        None,
        0.0,
        None,
        "the optimiser holds no parameter of this network that needs a gradient",
        "torch.optim.Adam(model.parameters(), lr=1e-3), made after the model is complete and on its device",
        0.99,
        "torch.optim",
    )


def at_the_end(seen: Seen) -> Iterator[Finding]:
    """The loss still falls steeply: its last quarter brought over 15 % of all that training has brought.

    A loss that decays towards its floor brings that in the last quarter only where it has not run for its own time
    constant yet (an exponential: (e^-3/4 - e^-1) / (1 - e^-1) = 0.165 after exactly one).
    """
    curve = seen.losses
    if len(curve.points) < 2 * _LEAST_POINTS:
        return
    before, noise = curve.part(0.5, 0.75)
    now, error = curve.part(0.75, 1)
    total, last = curve.start - now, before - now
    if total <= _FALLEN * abs(curve.start) or last < 0.15 * total or last < 4 * math.hypot(error, noise):
        return
    if 0 <= now < 0.1 * abs(curve.start):
        return
    yield Finding(
        "too-few-epochs",
        None,
        last / total,
        0.15,
        f"training ends after {seen.steps} steps while the loss still falls: from {before:.3g} to {now:.3g} over the "
        f"last quarter, {100 * last / total:.0f} % of all that it has fallen",
        "more epochs, until the evaluation loss stops falling",
        0.6,
        "Prechelt (1998), Early stopping - but when?",
    )


def _dead(seen: Seen, stuck: bool | None) -> Iterator[Finding]:
    layers = [x for x in seen.layers.values() if x.dead.looks >= LEAST_LOOKS]
    worst = max(layers, key=lambda x: x.dead.share, default=None)
    if worst is None:
        return
    share = worst.dead.share
    blocked = share == 1 and stuck is not False  # nothing passes such a layer, whatever else is known
    if not blocked and not (stuck and share >= 0.9):
        return
    yield Finding(
        "dead-units",
        worst.name,
        share,
        0.9,
        f"{100 * share:.0f} % of the units of {worst.name or 'the network'} ({worst.type}) were zero for every example "
        f"of the last {min(worst.dead.looks, 20)} looked-at batches"
        + (", and the loss has not fallen" if stuck else ""),
        "a lower learning rate, fanin.init_(model, 'kaiming_normal'), or nn.LeakyReLU",
        0.9 if blocked else 0.7,
        "Lu, Shin, Su and Karniadakis (2020), Dying ReLU and initialization",
        Remedy("init", "fanin.init_(model, 'kaiming_normal')", {"scheme": "kaiming_normal"}),
    )


def _mode(seen: Seen) -> Iterator[Finding]:
    if seen.order_matters and seen.evaluation_mode == seen.looks:
        yield Finding(
            "wrong-mode",
            None,
            None,
            None,
            "the network trains in evaluation mode: dropout does not drop, batch normalisation uses running statistics",
            "model.train() before the training loop",
            0.7,
            "torch.nn.Module.train",
            Remedy("train-mode", "model.train()"),
        )


def _frozen(seen: Seen) -> Iterator[Finding]:
    silent = [w.name for w in seen.weights.values() if w.silent == seen.looks]
    if silent:
        yield Finding(
            "frozen-parameters",
            silent[0],
            float(len(silent)),
            0.0,
            f"{len(silent)} of {len(seen.weights)} parameters that need a gradient got none, or zeros, at every look: "
            + ", ".join(silent[:3]),
            "no .detach(), .data, torch.no_grad() or numpy between them and the loss; every module called in forward",
            0.75,
            "torch.autograd",
        )


def _saturated(seen: Seen) -> Iterator[Finding]:
    layers = [x for x in seen.layers.values() if x.flat.count >= LEAST_LOOKS and not _last(x, seen)]
    worst = max(layers, key=lambda x: x.flat.mean, default=None)
    if worst is not None and worst.flat.mean > 0.9:
        yield Finding(
            "saturation",
            worst.name,
            worst.flat.mean,
            0.9,
            f"{100 * worst.flat.mean:.0f} % of what {worst.name} puts out is where {worst.kind} is flat, and the loss "
            "has not fallen",
            "smaller initial weights: fanin.init_(model, 'xavier_normal'); normalised inputs",
            0.7,
            _GLOROT,
            Remedy("init", "fanin.init_(model, 'xavier_normal')", {"scheme": "xavier_normal"}),
        )


def _last(layer: Layer, seen: Seen) -> bool:
    """An output's own sigmoid may be as flat as it likes."""
    return layer is list(seen.layers.values())[-1]


def _slopes(seen: Seen) -> Iterator[Finding]:
    """E[g^2] of the first weighted layer over that of the last: under 1e-4, or over 1e4, and steps that differ too.

    First and last are by the order of their calls: hooks do not tell which of parallel branches a layer is in, and the
    first called stands for all of them.
    """
    layers = [x for x in seen.layers.values() if x.kind == "weighted" and x.gradient.count]
    if len(layers) < 3:
        return
    first, last = layers[0], layers[-1]
    ratio = first.gradient.mean / last.gradient.mean if last.gradient.mean else math.nan
    moved = [_update(seen, x) for x in (first, last)]
    shares = moved[0] / moved[1] if moved[1] else math.nan
    if ratio < 1e-4 and shares < 1e-2:
        cause, word, scheme = "vanishing-gradient", "shrinks", "'kaiming_normal'"
    elif ratio > 1e4 and shares > 1e2:
        cause, word, scheme = "exploding-gradient", "grows", "'xavier_normal'"
    else:
        return
    yield Finding(
        cause,
        first.name,
        ratio,
        1e-4 if ratio < 1 else 1e4,
        f"from {last.name} back to {first.name} the gradient's second moment {word} by a factor {ratio:.1e}, and "
        f"{first.name} moves {shares:.1e} times as far in a step, in shares of its weights; the loss has not fallen",
        f"fanin.init_(model, {scheme}), normalisation layers, residual connections",
        0.75,
        _GLOROT,
        Remedy("init", f"fanin.init_(model, {scheme})", {"scheme": scheme.strip("'")}),
    )


def _update(seen: Seen, layer: Layer) -> float:
    found = (w.update.mean for w in seen.weights.values() if w.matrix and w.name.rpartition(".")[0] == layer.name)
    return next(found, math.nan)


def _matrices(seen: Seen) -> list[Weight]:
    return [w for w in seen.weights.values() if w.matrix and w.update.count >= LEAST_LOOKS]


def _rate_high(seen: Seen) -> Iterator[Finding]:
    """Steps as long as a third of the weights themselves, and a loss that has not fallen."""
    weights = _matrices(seen)
    if not weights:
        return
    moved = max(
        statistics.median(w.update.most for w in weights), 3 * statistics.median(w.update.mean for w in weights)
    )
    if moved > 0.3 and seen.lrs:
        lr = seen.lrs[-1]
        yield Finding(
            "learning-rate-high",
            None,
            moved,
            0.3,
            f"at lr = {lr:g} a step has moved half of the layers by {100 * moved:.0f} % of their weights or more, and "
            "the loss has not fallen",
            f"lr = {lr / 10:g}; fanin.lr_find(model, data) for the range",
            0.75,
            _BENGIO,
            Remedy("lr", f"lr = {lr / 10:g}", {"factor": 0.1}),
        )


def _rate_low(seen: Seen) -> Iterator[Finding]:
    """No layer moves by more than a hundred-thousandth of its weights in a step; a thousandth is usual."""
    weights = _matrices(seen)
    moved = max((w.update.mean for w in weights), default=math.nan)
    if moved < 1e-5 and seen.lrs:
        lr = seen.lrs[-1]
        factor = 10.0 ** min(6, round(math.log10(1e-3 / moved))) if moved else 1000.0
        yield Finding(
            "learning-rate-low",
            None,
            moved,
            1e-5,
            f"at lr = {lr:g} no layer moves by more than {moved:.1e} of its weights in a step, and the loss has not "
            "fallen",
            f"lr = {lr * factor:g}; fanin.lr_find(model, data) for the range",
            0.7,
            "Bottou (2012), Stochastic gradient descent tricks; a thousandth is usual",
            Remedy("lr", f"lr = {lr * factor:g}", {"factor": factor}),
        )
