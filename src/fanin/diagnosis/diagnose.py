"""diagnose: why a network does not train, found on copies of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from torch import nn

from fanin.diagnosis.checks import CHECKS
from fanin.diagnosis.checks.wiring import distance
from fanin.diagnosis.diagnosis import Diagnosis, Given
from fanin.diagnosis.evidence import Evidence
from fanin.diagnosis.ranking import ranked
from fanin.diagnosis.sample import sample_of
from fanin.diagnosis.start import first_pass
from fanin.errors import FaninError
from fanin.finding import Finding
from fanin.proof.remedies import apply
from fanin.training import Batches, Training, copy_of, untouched
from fanin.training.losses import refused

_KEPT = 2**28  # bytes of batches that are kept for the experiments, which then all see the same


def diagnose(
    model: nn.Module,
    data: Any,
    *,
    loss: Any = None,
    optimizer: Any = None,
    eval_data: Any = None,
    steps: int = 100,
    seed: int = 0,
    epochs: int | None = None,
) -> Diagnosis:
    """What keeps `model` from learning `data`, ranked; nothing where it trains as well as it could.

    model: any nn.Module; it is never changed, copies of it are trained. data: a DataLoader, a Dataset, (X, y) of
    tensors or arrays, batched by 32. loss: called loss(outputs, targets); by default what the targets call for, which
    the diagnosis says. optimizer: an instance, a class, or a function of parameters; by default Adam. eval_data: as
    data, for overfitting and other preparation. steps: of a short run, and of each experiment; 0 looks at one batch
    forward and backward only. epochs: how many are planned, to tell whether they are too few.

    A symptom is named only where the short run has learnt clearly less than another usual way to train the same
    network in as many steps, and a cause where changing that one thing changes this. FaninError for what cannot be
    diagnosed: data without batches, a forward that raises.
    """
    if not isinstance(model, nn.Module):
        raise FaninError(f"model: expected an nn.Module; got {type(model).__name__}")
    if steps < 0:
        raise FaninError(f"steps: expected 0 or more; got {steps}")
    with untouched(model, parameters=steps > 0):
        training = Training.of(model, data, loss=loss, optimizer=optimizer)
        found = _diagnose(model, training, eval_data, steps=steps, seed=seed, epochs=epochs)
    given = Given(model, data, loss, optimizer, eval_data)
    return replace(found, given=given)


def _diagnose(
    model: nn.Module, training: Training, eval_data: Any, *, steps: int, seed: int, epochs: int | None
) -> Diagnosis:
    batches = _kept(training, steps, seed)
    first = (batches[0] if batches else next(iter(training.stream(seed)))).to(_device(model))
    start = first_pass(copy_of(model) if steps else model, first, training.loss)
    if start.error is not None and start.stage == "forward":
        raise refused(first, start.error) from start.error
    evaluation = None if eval_data is None else sample_of(Batches.of(eval_data).epoch(seed))
    runs = start.error is None and start.graph is not None and start.graph.loss is not None
    names = {op.name for op in start.graph.between()} if start.graph else set()
    sample = replace(sample_of(training.batches.epoch(seed)), scale_free=distance(names) is None, paired=start.paired)
    evidence = Evidence(
        model,
        training,
        sample,
        evaluation,
        start,
        steps if runs else 0,
        seed,
        epochs=epochs,
        batches=batches,
    )
    findings = [finding for checks in CHECKS.values() for check in checks for finding in check(evidence)]
    if not findings and start.error is not None:
        raise FaninError(f"loss: {type(start.error).__name__}: {start.error}") from start.error
    found = ranked(findings)
    _try_remedies(evidence, found)
    return Diagnosis.of(evidence, found)


def _try_remedies(evidence: Evidence, findings: Sequence[Finding]) -> None:
    """An experiment for the remedies of facts, which were found without one; what cannot be applied tells nothing."""
    for finding in findings[:3] if evidence.steps else ():
        if finding.fix is not None and finding.fix.kind in ("output-activation", "loss", "train-mode"):
            evidence.experiment(f"remedy: {finding.fix.code.removeprefix('# ')}", partial(apply, finding.fix))


def _kept(training: Training, steps: int, seed: int) -> list[Any] | None:
    """The run's batches, if they are small enough to be kept."""
    found, size = [], 0
    for batch in islice(training.stream(seed), steps):
        size += batch.first.numel() * batch.first.element_size()
        if size > _KEPT:
            return None
        found.append(batch)
    return found or None


def _device(model: nn.Module) -> Any:
    return next((p.device for p in model.parameters()), "cpu")
