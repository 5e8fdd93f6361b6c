"""Checks of the data: numbers that are none, scales, targets that cannot be reached, no relation between the two."""

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


def non_finite_data(e: Evidence) -> Iterator[Finding]:
    """Any number in the sample that is NaN or infinite: every sum that it enters is too, unless it is masked."""
    x, y = e.sample.inputs, e.sample.targets
    for what, broken, tensor in (("inputs", x.broken, x.tensor), ("targets", y.broken, y.tensor)):
        if broken and not masked(e, tensor):
            yield Finding(
                "non-finite",
                None,
                broken,
                0.0,
                f"{broken:.2%} of the numbers in the {what} are NaN or infinite",
                f"look where they come from; torch.nan_to_num, or leave those examples out: {what}",
                1.0,
                "IEEE 754: NaN spreads through sums and products",
            )


def masked(e: Evidence, part: Tensor | None) -> bool:
    """Whether numbers of the sample that are not finite have entered a loss whose value and gradient are finite.

    So they are missing values that the network or the loss leaves out. They have entered it where the first batch holds
    some, or where a run without an accident has seen as many examples as the sample has.
    """
    batch = e.start.batch
    seen = batch.first if part is e.sample.inputs.tensor else targets_of(batch)
    entered = isinstance(seen, Tensor) and seen.dtype.is_floating_point and not bool(seen.isfinite().all())
    if entered:
        return e.start.finite
    return bool(e.steps) and not e.run.failed and len(e.run.losses) * batch.size >= e.sample.size


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


def eval_mismatch(e: Evidence) -> Iterator[Finding]:
    """Evaluation inputs whose mean or deviation is not the training inputs'.

    Two samples of one distribution agree in their overall deviation within a few per cent at such sizes; a factor of 2,
    or a shift of the mean by a whole deviation, is another preparation.
    """
    if e.evaluation is None:
        return
    a, b = e.sample.inputs, e.evaluation.inputs
    if e.evaluation_error is not None:
        error = f"{type(e.evaluation_error).__name__}: {e.evaluation_error}".split("\n")[0]
        yield Finding(
            "eval-mismatch",
            None,
            None,
            None,
            f"on evaluation inputs {tuple(b.tensor.shape[1:])} (training: {tuple(a.tensor.shape[1:])}) the network or "
            f"the loss raises {error}",
            "prepare evaluation data by the same transform as training data",
            0.97,
            "the error's own message",
        )
        return
    if a.tokens or b.tokens or a.broken or b.broken or not a.std:
        return
    ratio = max(b.std, 1e-300) / a.std
    shift = abs(b.mean - a.mean) / a.std
    enough = min(e.sample.size, e.evaluation.size) >= 16
    if enough and (max(ratio, 1 / ratio) > 2 or shift > 1):
        yield Finding(
            "eval-mismatch",
            None,
            ratio if max(ratio, 1 / ratio) > 2 else shift,
            2.0 if max(ratio, 1 / ratio) > 2 else 1.0,
            f"evaluation inputs have mean {b.mean:.3g} and standard deviation {b.std:.3g}, training inputs "
            f"{a.mean:.3g} and {a.std:.3g}",
            "prepare evaluation data by the same transform, with the training data's moments",
            0.95,
            "what a network has learnt holds for inputs of the same distribution",
        )
    elif enough and (correlation := _profile_correlation(a.tensor, b.tensor)) is not None and correlation < 0.3:
        yield Finding(
            "eval-mismatch",
            None,
            correlation,
            0.3,
            f"the mean evaluation example and the mean training example have a correlation of {correlation:.2f}: "
            "features are in another order, mirrored or negated",
            "prepare evaluation data by the same transform as training data",
            0.8,
            "what a network has learnt holds for inputs of the same distribution",
        )


def _profile_correlation(a: Tensor, b: Tensor) -> float | None:
    """Correlation of the mean examples, where these are clearly more than noise; None elsewhere."""
    if a.shape[1:] != b.shape[1:] or a.dim() < 2 or a[0].numel() < 8:
        return None
    rows = [t.double().flatten(1) for t in (a, b)]
    means = [r.mean(0) for r in rows]
    for r, m in zip(rows, means, strict=True):
        noise = float(r.var(0).mean()) / len(r)
        if float(m.var()) < 20 * noise:
            return None
    x, y = (m - m.mean() for m in means)
    size = float(x.norm() * y.norm())
    return float(x @ y) / size if size else None


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
