"""Checks by evaluation data: prepared otherwise than training data, or worse and worse as training goes on."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from torch import Tensor

from fanin.diagnosis.evidence import Evidence
from fanin.finding import Finding


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
        if e.evaluation_mode_error is not None:  # so it is not the data
            yield _cannot_evaluate(error)
            return
        yield _mismatch(
            f"on evaluation inputs {tuple(b.tensor.shape[1:])} (training: {tuple(a.tensor.shape[1:])}) the network or "
            f"the loss raises {error}",
            0.97,
            reference="the error's own message",
        )
        return
    if a.tokens or b.tokens or a.broken or b.broken or not a.std or min(e.sample.size, e.evaluation.size) < 16:
        return
    ratio = max(b.std, 1e-300) / a.std
    scaled, shift = max(ratio, 1 / ratio) > 2, abs(b.mean - a.mean) / a.std
    if scaled or shift > 1:
        yield _mismatch(
            f"evaluation inputs have mean {b.mean:.3g} and standard deviation {b.std:.3g}, training inputs "
            f"{a.mean:.3g} and {a.std:.3g}",
            0.95,
            (ratio, 2.0) if scaled else (shift, 1.0),
            remedy="prepare evaluation data by the same transform, with the training data's moments",
        )
    elif (correlation := _profile_correlation(a.tensor, b.tensor)) is not None and correlation < 0.3:
        yield _mismatch(
            f"the mean evaluation example and the mean training example have a correlation of {correlation:.2f}: "
            "features are in another order, mirrored or negated",
            0.8,
            (correlation, 0.3),
        )


def _cannot_evaluate(error: str) -> Finding:
    """The network raises in evaluation mode, whatever the data."""
    return Finding(
        "wrong-mode",
        None,
        None,
        None,
        f"in evaluation mode the network, or the loss of its outputs, raises {error}, on training data too",
        "model.eval() that sets modes alone, and outputs of the same kind in both",
        0.6,
        "the error's own message",
    )


def _mismatch(
    evidence: str,
    confidence: float,
    measured: tuple[float, float] | tuple[None, None] = (None, None),
    *,
    remedy: str = "prepare evaluation data by the same transform as training data",
    reference: str = "what a network has learnt holds for inputs of the same distribution",
) -> Finding:
    """measured: the value, and the threshold that it was held against."""
    return Finding("eval-mismatch", None, *measured, evidence, remedy, confidence, reference)


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


def overfitting(e: Evidence) -> Iterator[Finding]:
    """Evaluation loss has risen from its least by over a fifth, while training loss went on falling."""
    seen = _course(e) if e.steps and e.evaluation is not None else []
    if len(seen) < 4 or e.run.failed:
        return
    train, test = [s[1] for s in seen], [s[2] for s in seen]
    low = min(range(len(test)), key=test.__getitem__)
    rise = statistics.fmean(test[-2:]) - test[low]
    apart = statistics.fmean(test[-2:]) - statistics.fmean(train[-2:])
    start = max(abs(test[0]), abs(e.baseline or 0.0))
    if (
        low < len(test) - 2
        and rise > max(0.2 * abs(test[low]), 0.25 * (test[0] - test[low]), 0.05 * start)
        and train[-1] < train[low]
        and apart > rise
    ):
        yield Finding(
            "overfitting",
            None,
            test[-1],
            1.2 * test[low],
            f"evaluation loss is least at step {seen[low][0]} ({test[low]:.3g}) and then rises to {test[-1]:.3g}, "
            f"while training loss falls from {train[low]:.3g} to {train[-1]:.3g}",
            "stop there, more data or augmentation, weight decay, dropout, a smaller network",
            0.8,
            "Prechelt (1998), Early stopping - but when?",
        )


def _course(e: Evidence) -> list[tuple[int, float, float]]:
    """(step, training loss, evaluation loss) of the run; to the end, if more is planned and evaluation lags behind.

    Ten times as many steps as a short run has, at most.
    """
    seen = e.run.evaluations
    if e.planned <= e.steps or len(seen) < 4 or statistics.fmean(s[2] - s[1] for s in seen[-2:]) <= 0:
        return seen
    longer = e.experiment("to the end", lambda t: t, steps=min(e.planned, 10 * e.steps), mode=None, evaluated=True)
    return seen + [s for s in longer.evaluations if s[0] > e.steps]
