"""Checks of the training data: scales, targets that cannot be reached, no relation between inputs and targets."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fanin.diagnosis.evidence import CLEAR, Evidence, percent
from fanin.diagnosis.experiments import standardized
from fanin.finding import Finding, Remedy
from fanin.training.losses import targets_of

_LECUN = "LeCun, Bottou, Orr and Müller (1998), Efficient BackProp, section 4.3"


def input_scale(e: Evidence) -> Iterator[Finding]:
    """Inputs far from mean 0 and deviation 1, where standardising them is what helps in an experiment.

    The second moment E[x^2] of the inputs multiplies the first layer's outputs, as initialisation schemes take it to be
    1, and the curvature of the loss in the first layer's weights. Between 1/30 and 30 it is not asked about. A network
    may learn all the same: it is told of where the first steps multiply the loss by ten and standardised inputs end
    with less than half of it.
    """
    x = e.sample.inputs
    if x.tokens or x.broken or not x.std:
        return
    second = x.mean**2 + x.std**2
    spread = _spread(x.feature_stds)
    off = max(second / 30, 1 / (30 * second), spread / 30, abs(x.mean) / (10 * x.std))
    if off < 1 or not (e.lags or e.hopeless or _thrown(e)):
        return
    better = e.experiment("inputs standardised", standardized)
    gain = e.quality(better) - e.learnt
    if gain < CLEAR and not (_thrown(e) and gain > 0 and better.final < 0.5 * e.run.final):
        return
    named = f"mean {x.mean:.3g}, standard deviation {x.std:.3g}"
    if spread > 30:
        named += f", deviations of features up to {spread:.3g} times the median"
    yield Finding(
        "input-scale",
        None,
        second,
        30.0,
        f"inputs have {named}; standardised, the same training learns {percent(e.quality(better))} of the task in "
        f"{e.steps} steps instead of {percent(e.learnt)}, to a loss of {better.final:.2g} instead of {e.run.final:.2g}",
        "X = (X - X.mean(0)) / X.std(0), by the training data's moments",
        min(0.97, 0.7 + 0.3 * gain),
        _LECUN,
        Remedy("input-scaling", "X = (X - X.mean(0)) / X.std(0)"),
    )


def _thrown(e: Evidence) -> bool:
    """Whether some step had over ten times the loss of the best constant."""
    return bool(e.steps and e.baseline and e.run.losses) and max(e.run.losses) > 10 * abs(e.baseline or 0.0)


def _spread(stds: Tensor | None) -> float:
    """Largest over median deviation of features that vary: a few that drown the others."""
    if stds is None:
        return 1.0
    moving = stds[stds > 1e-12 * max(float(stds.max()), 1e-300)]
    return float(moving.max() / moving.median()) if len(moving) > 1 else 1.0


def label_range(e: Evidence) -> Iterator[Finding]:
    """Targets that the loss takes for something else, or real ones far out of the network's reach."""
    y = e.sample.targets
    if y.tensor is None or not e.paired:
        return
    low, high = _binary_range(e)
    if low < 0 or high > 1:
        yield Finding(
            "label-range",
            None,
            low if low < 0 else high,
            0.0 if low < 0 else 1.0,
            f"binary cross-entropy wants targets within [0, 1]; they are in [{low:g}, {high:g}]",
            "y = (y > y.mean()).float()",
            0.98,
            "-y log p - (1 - y) log(1 - p) has no minimum outside [0, 1]",
        )
    if y.kind == "real" and (e.lags or e.hopeless) and not y.like_inputs:
        yield from _far_targets(e)


def _binary_range(e: Evidence) -> tuple[float, float]:
    """Least and largest target that binary cross-entropy gets: of the sample where the loss hands them on unchanged."""
    seen, y, given = e.start.bce_range, e.sample.targets, targets_of(e.start.batch)
    if seen is None:
        return 0.0, 1.0
    unchanged = isinstance(given, Tensor) and seen == (float(given.min()), float(given.max()))
    return (y.low, y.high) if unchanged else seen


def _far_targets(e: Evidence) -> Iterator[Finding]:
    y, z = e.sample.targets, e.start.output
    if z is None or not y.std or z.numel() == 0 or z.is_complex():
        return
    size = math.sqrt(y.mean**2 + y.std**2)
    reach = max(float(z.detach().double().std(correction=0)), 1.0)
    off = max(size / reach, reach / max(y.std, 1e-300) / 100)
    if off < 5:
        return
    better = e.standard_targets
    gain = e.quality(better) - e.learnt if better else 0.0
    if better and gain >= CLEAR:
        yield Finding(
            "label-range",
            None,
            size,
            5 * reach,
            f"targets have mean {y.mean:.3g} and standard deviation {y.std:.3g}, the outputs start near 0 with "
            f"a deviation of {float(z.detach().double().std(correction=0)):.2g}; with standardised targets "
            f"{percent(e.quality(better))} of the variance is explained after {e.steps} steps instead of "
            f"{percent(e.learnt)}",
            "y = (y - y.mean()) / y.std(); undo it on predictions",
            min(0.95, 0.65 + 0.3 * gain),
            _LECUN,
            Remedy("target-scaling", "y = (y - y.mean()) / y.std()"),
        )


def no_signal(e: Evidence) -> Iterator[Finding]:
    """Inputs that are all equal, targets that are all equal, or inputs from which nothing can be told.

    The last is asked only where nothing learns: nearest neighbours and a ridge regression, cross-validated on the
    sample, must both do no better than on permuted targets.
    """
    x, y = e.sample.inputs, e.sample.targets
    if x.constant:
        yield _without("all inputs of the sample are equal", 0.97)
    elif y.tensor is not None and y.distinct == 1 and e.sample.size > 8 and not _by_design(e):
        yield _without(f"all targets of the sample are {y.low:g}", 0.95)
    elif e.hopeless and not x.tokens and not x.broken and y.kind in ("classes", "binary", "real"):
        found = _told(x.tensor, y.tensor)
        if found is not None and found[0] <= found[1]:
            yield _without(
                f"neither the network, nor nearest neighbours, nor a linear model tells the targets better than "
                f"permuted ones ({found[0]:.2f} against {found[1]:.2f})",
                0.6,
            )


def _by_design(e: Evidence) -> bool:
    """Whether equal targets are meant: the right side of a differential equation, or what the loss does not look at."""
    y, outputs = targets_of(e.start.batch), e.start.outputs
    if e.start.graph is not None and e.start.graph.differentiated:
        return True
    try:
        with torch.no_grad():
            values = [float(e.training.loss(outputs, targets)) for targets in (y, (y == 0).to(y.dtype))]
    except Exception:  # it does look at them
        return False
    return values[0] == values[1]


def _without(evidence: str, confidence: float) -> Finding:
    return Finding(
        "no-signal",
        None,
        None,
        None,
        evidence,
        "look at some pairs of inputs and targets: are they still together after loading, shuffling and batching?",
        confidence,
        "a permutation test (Good, 2005)",
    )


def _told(x: Tensor, y: Tensor | None) -> tuple[float, float] | None:
    """(what simple models tell of the targets, the highest of what they tell of 19 permutations of them)."""
    if y is None or len(x) < 60 or (y.dim() > 1 and y.numel() != len(y)):
        return None
    rows = x.double().flatten(1)
    rows = (rows - rows.mean(0)) / rows.std(0).clamp_min(1e-9)
    wanted = y.double().flatten()
    if wanted.unique().numel() <= max(2, len(wanted) // 10) and bool((wanted == wanted.round()).all()):
        wanted = torch.nn.functional.one_hot(wanted.long() - int(wanted.min())).double()
    else:
        wanted = wanted[:, None]
    generator = torch.Generator().manual_seed(0)
    told = _neighbours_and_ridge(rows, wanted)
    permuted = [_neighbours_and_ridge(rows, wanted[torch.randperm(len(rows), generator=generator)]) for _ in range(19)]
    return told, max(permuted)


def _neighbours_and_ridge(rows: Tensor, wanted: Tensor) -> float:
    """Explained share of the variance of the second half of the rows by the first, by the better of both models."""
    half = len(rows) // 2
    centre = wanted[:half].mean(0)
    whole = (wanted[half:] - centre).square().sum().clamp_min(1e-300)
    near = torch.cdist(rows[half:], rows[:half]).topk(5, largest=False).indices
    guesses = [wanted[:half][near].mean(1)]
    a = rows[:half]
    gram = a.T @ a + 0.1 * half * torch.eye(a.shape[1], dtype=a.dtype)
    guesses.append(rows[half:] @ torch.linalg.solve(gram, a.T @ (wanted[:half] - centre)) + centre)
    return max(1 - float((wanted[half:] - g).square().sum() / whole) for g in guesses)
