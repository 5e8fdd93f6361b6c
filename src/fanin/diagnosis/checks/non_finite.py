"""Checks of numbers that are none: in the data, at the start of training, and on its way."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from fanin.diagnosis.evidence import Evidence
from fanin.finding import Finding
from fanin.training.losses import targets_of


def non_finite_data(e: Evidence) -> Iterator[Finding]:
    """Any number in the sample that is NaN or infinite: every sum that it enters is too, unless it is masked."""
    x, y = e.sample.inputs, e.sample.targets
    for what, broken, tensor in (("inputs", x.broken, x.tensor), ("targets", y.broken, y.tensor)):
        if broken and not _masked(e, tensor):
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


def non_finite_run(e: Evidence) -> Iterator[Finding]:
    """A first loss or gradient that is no number; a loss that ceases to be one."""
    x, y = e.sample.inputs, e.sample.targets
    if (x.broken and not _masked(e, x.tensor)) or (y.broken and not _masked(e, y.tensor)):
        return
    bad = [name for name, p in e.model.named_parameters() if not bool(p.isfinite().all())]
    where, confidence = None, 0.9
    if bad:
        words, where = f"parameter {bad[0]} holds NaN or infinity before training", bad[0]
    elif e.start.output is not None and not e.start.finite and not bool(e.start.output.isfinite().all()):
        words = "outputs of the first batch are not finite, though inputs and parameters are"
    elif e.start.error is None and e.start.output is not None and not math.isfinite(e.start.loss):
        words = (
            f"the loss of the first batch is {e.start.loss}, though outputs are finite: a logarithm or division of 0"
        )
    elif e.start.broken:
        words, where = f"the gradient of {e.start.broken[0]} is not finite in the first batch", e.start.broken[0]
    elif e.steps and e.run.stopped:
        words, confidence = f"the loss is not finite at step {e.run.stopped}", 0.6
    else:
        return
    yield Finding(
        "non-finite",
        where,
        None,
        None,
        words,
        "torch.autograd.set_detect_anomaly(True) names the operation; log_softmax and BCE with logits instead of "
        "logarithms of probabilities",
        confidence,
        "IEEE 754",
    )


def _masked(e: Evidence, part: Tensor | None) -> bool:
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
