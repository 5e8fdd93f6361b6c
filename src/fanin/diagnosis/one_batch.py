"""overfit_one_batch: can a network learn one batch by heart? If not, something is wired wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from torch import nn

from fanin.diagnosis.experiments import adam
from fanin.diagnosis.runs import RunResult, constant_loss, run
from fanin.diagnosis.sample import Sample, sample_of
from fanin.errors import FaninError
from fanin.training import Training, alone, copy_of, untouched
from fanin.training.losses import call
from fanin.training.randomness import seed_all

BY_HEART = 0.95  # of the task on the batch
_BEGUN = 0.5  # a share from which the network plainly learns, and only needs longer


@dataclass(frozen=True)
class Attempt:
    """One way to train on the batch. learnt: its share of the task, 0 as a constant, 1 all; losses: of every step."""

    name: str
    first: float
    final: float
    learnt: float
    losses: tuple[float, ...]
    error: str | None = None


@dataclass(frozen=True)
class OneBatch:
    """What fanin.overfit_one_batch found; print it, or read its fields.

    own: with the optimiser as given; adam: with Adam, the better of the rates 1e-3 and 1e-2. passed: whether one of
    them has learnt 95 % of the task on the batch; as a truth value too. examples: in the batch.
    """

    own: Attempt
    adam: Attempt
    examples: int
    steps: int
    loss: str

    @property
    def passed(self) -> bool:
        """Whether one of them knows the batch by heart."""
        return max(self.own.learnt, self.adam.learnt) >= BY_HEART

    def __bool__(self) -> bool:
        return self.passed

    @property
    def verdict(self) -> str:
        """In words."""
        own, other = self.own.learnt, self.adam.learnt
        batch = f"one batch of {self.examples}"
        if self.own.error and self.adam.error:
            return f"It cannot be trained on {batch}: {self.own.error}"
        if own >= BY_HEART:
            return f"It learns {batch} by heart: what is computed can be learnt."
        if other >= BY_HEART:
            return (
                f"It learns {batch} by heart with Adam, but not as given: the optimiser or its learning rate stands in "
                "the way; see fanin.lr_find."
            )
        if max(own, other) >= _BEGUN:
            return f"It learns {batch} in part: try more than {self.steps} steps, then a larger network."
        return (
            f"It does not learn {batch}, by any of these optimisers: something is wired wrongly (outputs, loss, "
            "targets, parameters without gradient); see fanin.diagnose."
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data, ready for JSON."""
        return asdict(self) | {"passed": self.passed, "verdict": self.verdict}

    def __str__(self) -> str:
        rows = [f"  {a.name}: loss {a.first:.3g} -> {a.final:.3g}, {_share(a)}" for a in (self.own, self.adam)]
        return "\n".join([self.verdict, *rows, f"  loss: {self.loss}; {self.steps} steps on the same batch"])

    def _repr_html_(self) -> str:
        from fanin.report.diagnosis import one_batch_figure

        return one_batch_figure(self.to_dict())


def overfit_one_batch(
    model: nn.Module,
    data: Any,
    *,
    loss: Any = None,
    optimizer: Any = None,
    batch_size: int | None = None,
    steps: int = 200,
    seed: int = 0,
) -> OneBatch:
    """Whether the network learns one batch by heart, with the given optimiser and with Adam: share learnt, and words.

    learnt = (accuracy - chance) / (1 - chance) for classes (accuracy averaged over them), the explained share of the
    variance for numbers, else the share by which the loss falls under that of the best constant output; of the batch
    itself, in evaluation mode after `steps` steps on it.
    model, data, loss, optimizer: as fanin.diagnose's; copies are trained, in training mode, and nothing is left behind.
    FaninError for steps < 1 and for data without a batch. A network that fails this does not fail for lack of data, of
    epochs or of regularisation (Karpathy, 2019, A recipe for training neural networks: "overfit one batch").
    """
    if not isinstance(model, nn.Module):
        raise FaninError(f"overfit_one_batch, model: expected an nn.Module; got {type(model).__name__}")
    if steps < 1:
        raise FaninError(f"overfit_one_batch, steps: expected at least 1; got {steps}")
    model = alone(model)
    with untouched(model):
        training = Training.of(model, data, loss=loss, optimizer=optimizer, batch_size=batch_size)
        batch = next(islice(training.stream(seed), 1))
        sample = sample_of([batch])
        base = _baseline(training, sample, seed)

        def attempt(name: str, training: Training) -> Attempt:
            seed_all(seed)  # of dropout
            found = run(training, steps, seed, sample, mode=True, batches=[batch] * steps)
            return _attempt(name, found, base)

        own = attempt(training.optimizer.words, training)
        others = [attempt(f"Adam at {lr:g}", adam(training, lr)) for lr in (1e-3, 1e-2)]
    return OneBatch(own, max(others, key=lambda a: a.learnt), batch.size, steps, training.loss_words)


def _attempt(name: str, found: RunResult, base: float | None) -> Attempt:
    error = None if found.error is None else f"{type(found.error).__name__}: {found.error}"
    losses = found.losses
    first, final = (losses[0], losses[-1]) if losses else (math.nan, math.nan)
    return Attempt(name, first, final, _learnt(found, base), tuple(losses), error)


def _learnt(found: RunResult, base: float | None) -> float:
    """The score where targets tell it, else by the loss."""
    if found.failed:
        return 0.0
    if found.score is not None:
        return found.score
    return _by_loss(found.losses, base)


def _by_loss(losses: Sequence[float], base: float | None) -> float:
    start = base if base is not None else losses[0]
    return min(1.0, max(0.0, (start - losses[-1]) / abs(start))) if start and math.isfinite(losses[-1]) else 0.0


def _baseline(training: Training, sample: Sample, seed: int) -> float | None:
    """The least loss of constant outputs, where that can be told."""
    model = training.new(seed)
    device = next((p.device for p in model.parameters()), "cpu")
    try:
        return constant_loss(training, call(copy_of(model), sample.batch.to(device)), sample)
    except Exception:  # the runs tell what the network or the loss raises
        return None


def _share(attempt: Attempt) -> str:
    return f"it raised {attempt.error}" if attempt.error else f"{100 * attempt.learnt:.0f} % learnt"
