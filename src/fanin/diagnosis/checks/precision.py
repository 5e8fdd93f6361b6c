"""The check of number formats: what an optimiser's constants become where parameters are in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from fanin.diagnosis.evidence import CLEAR, Evidence, percent
from fanin.finding import Finding, Remedy
from fanin.proof.remedies import set_optimizer
from fanin.training.optimizers import HALF_EPS


def epsilon(e: Evidence) -> Iterator[Finding]:
    """An eps that the parameters' format rounds to 0: where g^2 is 0 too, m / (sqrt(v) + eps) is 0 / 0 or m / 0.

    float16 has no number between 0 and 6.0e-8, and v of gradients under 2.4e-4 is 0. It is held against the same
    training with eps = 1e-4.
    """
    if e.start.error is not None or e.training.optimizer.foreign or (e.steps and not e.troubled):
        return
    lost = next(_lost(e.training.optimizer.build(e.training.new(e.seed) if e.steps else e.model)), None)
    if lost is None:
        return
    eps, dtype = lost
    words = f"eps = {eps:g} is 0 in {dtype}, the parameters' format, and so is v where gradients are small: 0 / 0"
    confidence = 0.9
    if e.steps:
        better = e.quality(e.experiment(f"eps = {HALF_EPS:g}", partial(set_optimizer, eps=HALF_EPS)))
        if better - e.learnt < CLEAR and not e.run.failed:
            return
        words += f"; with eps = {HALF_EPS:g} it has learnt {percent(better)} of the task instead of {percent(e.learnt)}"
        confidence = 0.98 if better - e.learnt >= CLEAR else 0.75
    yield Finding(
        "optimizer",
        None,
        eps,
        float(torch.finfo(dtype).smallest_normal),
        words,
        f"eps={HALF_EPS:g}; or parameters in float32 under torch.autocast, with a torch.amp.GradScaler",
        confidence,
        "Kingma and Ba (2015), algorithm 1; Micikevicius et al. (2018), Mixed precision training, section 3",
        Remedy("optimizer", f"eps={HALF_EPS:g}", {"eps": HALF_EPS}),
    )


def _lost(built: torch.optim.Optimizer) -> Iterator[tuple[float, torch.dtype]]:
    """(eps, dtype) of groups whose eps is 0 in the dtype of a parameter."""
    for group in built.param_groups:
        eps = group.get("eps")
        if isinstance(eps, float):
            dtypes = {p.dtype for p in group["params"] if p.is_floating_point()}
            yield from ((eps, dtype) for dtype in sorted(dtypes, key=str) if not torch.tensor(eps, dtype=dtype))
