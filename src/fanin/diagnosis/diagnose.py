"""diagnose: why a network does not train, found on copies of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fanin.diagnosis.checks import CHECKS
from fanin.diagnosis.checks.wiring import distance
from fanin.diagnosis.diagnosis import Diagnosis, Given
from fanin.diagnosis.evidence import Evidence
from fanin.diagnosis.ranking import ranked
from fanin.diagnosis.sample import Sample, sample_of
from fanin.diagnosis.start import first_pass
from fanin.errors import DataError, FaninError
from fanin.finding import Finding
from fanin.proof.remedies import apply
from fanin.training import Batch, OptimizerSpec, Training, alone, batches_for, copy_of, untouched
from fanin.training.losses import call, refused
from fanin.training.randomness import seed_all

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
    the diagnosis says. optimizer: an instance, a class, or a function of parameters or of the model; by default Adam.
    eval_data: as data, for overfitting and other preparation. steps: of a short run, and of each experiment; 0 looks at
    one batch forward and backward only. epochs: how many are planned, to tell whether they are too few.

    A symptom is named only where the short run has learnt clearly less than another usual way to train the same
    network in as many steps, and a cause where changing that one thing changes this. FaninError for what cannot be
    diagnosed: data without batches, a forward that raises.
    """
    _check(model, loss, {"steps": (steps, 0), "seed": (seed, 0)} | ({} if epochs is None else {"epochs": (epochs, 1)}))
    network = alone(model)
    with untouched(network, parameters=steps > 0):
        trained = _materialized(network, _first_batch(network, data, seed), seed)
        training = Training.of(trained, data, loss=loss, optimizer=optimizer)
        _try_optimizer(training.optimizer, trained)
        found = _diagnose(trained, training, eval_data, steps=steps, seed=seed, epochs=epochs)
    given = Given(model, data, loss, optimizer, eval_data)
    return replace(found, given=given)


def _check(model: Any, loss: Any, numbers: Mapping[str, tuple[Any, int]]) -> None:
    """FaninError for arguments that are of another kind; numbers: (given, least)."""
    if not isinstance(model, nn.Module):
        raise FaninError(f"model: expected an nn.Module; got {type(model).__name__}")
    if next(model.parameters(), None) is None:
        raise FaninError(f"model: expected a module with parameters to train; {type(model).__name__} has none")
    if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
        raise FaninError("model: expected parameters with values; some are on the meta device: model.to_empty(...)")
    if loss is not None and (isinstance(loss, type) or not callable(loss)):
        given = f"the class {loss.__name__}: make an instance" if isinstance(loss, type) else repr(loss)
        raise FaninError(f"loss: expected what is called loss(outputs, targets), such as nn.MSELoss(); got {given}")
    for name, (number, least) in numbers.items():
        if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
            raise FaninError(f"{name}: expected a whole number of {least} or more; got {number!r}")


def _try_optimizer(spec: OptimizerSpec, model: nn.Module) -> None:
    """FaninError for what building it raises, which changes nothing; parameters of another network are a finding."""
    if spec.foreign:
        return
    try:
        spec.build(model)
    except FaninError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise FaninError(f"optimizer: {spec.words} raised {type(error).__name__}: {error}") from error


def _materialized(model: nn.Module, batch: Batch, seed: int) -> nn.Module:
    """The network; of one with lazy modules a copy that has seen a batch, and so has weights, the same in all runs."""
    if not any(is_lazy(t) for t in (*model.parameters(), *model.buffers())):
        return model
    found = copy_of(model)
    seed_all(seed)
    try:
        with torch.no_grad():
            call(found, batch.to(_device(found)))
    except Exception as error:  # a user's forward may raise anything
        raise refused(batch, error, found) from error
    return found


def _diagnose(
    model: nn.Module, training: Training, eval_data: Any, *, steps: int, seed: int, epochs: int | None
) -> Diagnosis:
    with _reading("data"):
        batches = _kept(training, steps, seed)
        first = (batches[0] if batches else next(iter(training.stream(seed)))).to(_device(model))
        sample = sample_of(training.batches.epoch(seed))
    start = first_pass(copy_of(model) if steps else model, first, training.loss)
    if start.error is not None and start.stage == "forward":
        told = isinstance(start.error, FaninError)
        raise start.error if told else refused(first, start.error, model) from start.error
    evaluation = None if eval_data is None else _evaluation(model, eval_data, seed)
    runs = start.error is None and start.graph is not None and start.graph.loss is not None
    names = {op.name for op in start.graph.between()} if start.graph else set()
    sample = replace(sample, scale_free=distance(names) is None, paired=start.paired)
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
    if not findings:
        _raised(evidence)
    found = ranked(findings)
    _try_remedies(evidence, found)
    return Diagnosis.of(evidence, found)


def _try_remedies(evidence: Evidence, findings: Sequence[Finding]) -> None:
    """An experiment for the remedies of facts, which were found without one; what cannot be applied tells nothing."""
    for finding in findings[:3] if evidence.steps else ():
        if finding.fix is not None and finding.fix.kind in ("output-activation", "loss", "train-mode"):
            evidence.experiment(f"remedy: {finding.fix.code.removeprefix('# ')}", partial(apply, finding.fix))


def _raised(evidence: Evidence) -> None:
    """FaninError for what the loss, the optimiser or a later batch raised, of which no finding tells."""
    start = evidence.start
    error = start.error or (evidence.run.error if evidence.steps else None)
    if isinstance(error, FaninError):
        raise error
    if error is not None:
        raise FaninError(f"{start.stage or 'training'} raised {type(error).__name__}: {error}") from error


def _evaluation(model: nn.Module, data: Any, seed: int) -> Sample:
    try:
        with _reading("data"):
            return sample_of(batches_for(model, data).epoch(seed))
    except DataError as error:
        raise DataError(f"eval_{error}") from error  # as is said of `data`


def _first_batch(model: nn.Module, data: Any, seed: int) -> Batch:
    """A batch that can be computed with; DataError where the first cannot."""
    batches = batches_for(model, data)
    with _reading("data"):
        batch = next(batches.endless(seed))
    tensors = [t for t in (*batch.inputs, *batch.named.values(), batch.targets) if isinstance(t, Tensor)]
    if any(t.is_meta for t in tensors):
        raise DataError("data: expected tensors with values; some are on the meta device, which holds none")
    if not batch.first.numel():
        raise DataError(f"data: expected an example or more in a batch; got inputs of shape {tuple(batch.first.shape)}")
    return batch


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """DataError for what a user's data set, loader or collate function raises."""
    try:
        yield
    except FaninError:
        raise
    except Exception as error:
        raise DataError(
            f"{what}: expected batches of tensors; going through it raised {type(error).__name__}: {error}"
        ) from error


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
