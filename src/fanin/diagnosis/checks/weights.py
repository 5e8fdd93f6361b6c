"""Checks of the weights at the start: their scale, units that are equal, flat or dead, gradients by depth."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fanin.diagnosis.evidence import CLEAR, Evidence, percent
from fanin.diagnosis.experiments import adam, initialized
from fanin.diagnosis.start import WeightedLayer
from fanin.diagnosis.ways import chains
from fanin.finding import Finding, Remedy

_GLOROT = "Glorot and Bengio (2010); Saxe, McClelland and Ganguli (2014)"
_HE = "He, Zhang, Ren and Sun (2015)"
_INIT = Remedy("init", 'fanin.init_(model, "kaiming_normal")', {"scheme": "kaiming_normal"})


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

    The logarithm of E[g^2] by layer is fitted by a line, for each chain of layers that follow each other: layers of
    parallel branches are no steps on one way. Theory says which slope an activation and its weights have
    (fanin.theory). It matters where training struggles; of several such chains the steepest is named.
    """
    if e.start.graph is None or (e.steps and not e.troubled):
        return
    least = 4 if e.steps else 8
    found = [row for row in map(_slope, _chains(e)) if row is not None and abs(row[1]) >= least]
    found = [row for row in found if not _used_elsewhere(e, *row[:2])]
    if not found:
        return
    rows, total, straight = max(found, key=lambda row: abs(row[1]))
    slope = total / (len(rows) - 1)
    vanishing = total > 0  # larger towards the outputs
    first = rows[0]
    updates = _relative(first)
    yield Finding(
        "vanishing-gradient" if vanishing else "exploding-gradient",
        first.layer or None,
        10 ** (abs(slope) / 2),
        10 ** (2 / (len(rows) - 1)),
        f"the gradient's size {'shrinks' if vanishing else 'grows'} by {10 ** (abs(slope) / 2):.2g} a layer on the way "
        f"back, {10 ** (abs(total) / 2):.2g} over {len(rows)} layers"
        + (f"; |gradient| / |weights| of {first.layer} is {updates:.2g}" if updates is not None else ""),
        'fanin.init_(model, "critical") for the activation at hand; ReLU for sigmoid; normalisation; residual branches'
        if vanishing
        else 'fanin.init_(model, "kaiming_normal"), or torch.nn.utils.clip_grad_norm_',
        0.85 * straight if e.steps else 0.6,
        _GLOROT,
        Remedy("normalization", "batch normalisation behind every hidden layer", {}) if vanishing else _INIT,
    )


def _chains(e: Evidence) -> Iterator[list[WeightedLayer]]:
    """Layers that follow each other, where their gradients are numbers other than 0: those are another cause's."""
    assert e.start.graph is not None
    rows = {row.op: row for row in e.start.layers if row.gradient and math.isfinite(row.gradient)}
    for chain in chains(e.start.graph, rows):
        yield [rows[op] for op in chain]


def _slope(rows: list[WeightedLayer]) -> tuple[list[WeightedLayer], float, float] | None:
    """(layers, decades of E[g^2] over them, how straight); None of fewer than three, or where it is no line."""
    if len(rows) < 3:
        return None
    slope, straight = _line([math.log10(max(row.gradient or 0.0, 1e-300)) for row in rows])
    return (rows, slope * (len(rows) - 1), straight) if straight >= 0.6 else None


def _used_elsewhere(e: Evidence, rows: list[WeightedLayer], decades: float) -> bool:
    """Whether gradients shrink, but the first weights are used again where they have not shrunk half as far.

    So it is through the steps of a recurrence, whose weights learn by the last ones.
    """
    first = rows[0]
    known = [r.gradient for r in e.start.layers if r.parameter == first.parameter and r.gradient]
    most = max(filter(math.isfinite, known))
    return decades > 0 and math.log10(most / (first.gradient or most)) > decades / 2


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
