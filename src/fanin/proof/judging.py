"""One training run from a seed, and what its network is then worth: loss, accuracy, or a user's own metric."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fanin.errors import FaninError
from fanin.streams import Stream
from fanin.training import Batch, Batches, Curve, Training, train
from fanin.training.losses import call, main_output, targets_of, value_of
from fanin.training.randomness import RandomState

DEFAULT_EPOCHS = 5
DEFAULT_STEPS = 500  # where a source does not say how many batches it has

Metric = Callable[[nn.Module, Batches], float]


@dataclass(frozen=True)
class Outcome:
    """One run's numbers: the metric, None if the run diverged; accuracy, None also where targets name no classes.

    curve: the mean training loss of each epoch, over batches before their updates.
    """

    metric: float | None
    accuracy: float | None
    curve: tuple[float, ...]

    @property
    def finished(self) -> bool:
        """Whether all of its losses and the metric are finite."""
        return self.metric is not None


def steps_of(batches: Batches, epochs: int | None, steps: int | None) -> int:
    """Steps of a run: those given, or epochs * batches of an epoch; FaninError for both, or less than one."""
    if epochs is not None and steps is not None:
        raise FaninError(f"epochs and steps: expected one of them; got epochs={epochs} and steps={steps}")
    for name, value in (("epochs", epochs), ("steps", steps)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise FaninError(f"{name}: expected at least 1; got {value!r}")
    if steps is not None:
        return steps
    if batches.steps is None:
        if epochs is not None:
            raise FaninError("epochs: the data do not say how many batches an epoch has; give steps=")
        return DEFAULT_STEPS
    return max(1, batches.steps * (epochs or DEFAULT_EPOCHS))


def run(training: Training, seed: int, *, steps: int) -> tuple[nn.Module, Curve]:
    """The trained network and its curve: weights, order of data and dropout by the seed, no trace in global states."""
    word = int(Stream(seed, "training").words(1)[0] >> np.uint64(1))  # not the seed, which the weights are drawn by
    with RandomState.seeded(word).going_on():
        model = training.new(seed)
        optimizer = training.optimizer.build(model)
        return model, train(model, training.stream(seed), training.loss, optimizer, steps=steps)


def judged(
    model: nn.Module,
    curve: Curve,
    training: Training,
    held_out: Batches,
    ask: Ask,
    *,
    only_curve: bool = False,
) -> Outcome:
    """What a trained network is worth on the evaluation data, after the training's own change of inputs.

    only_curve: nothing is evaluated.
    """
    means = tuple(_means(curve.losses, curve.sizes, training.batches.steps or len(curve.losses)))
    if curve.stopped is not None or only_curve:
        return Outcome(None, None, means)
    with RandomState.now().going_on():  # a network or a metric may draw random numbers
        loss, accuracy = _evaluated(model, training, held_out, ask)
        value = ask.of(model, _changed(held_out, training), loss, accuracy)
    return Outcome(value if math.isfinite(value) else None, accuracy, means)


@dataclass(frozen=True)
class Ask:
    """What is asked of a network. name: "loss", "accuracy" or a function's; judge: the training whose loss counts."""

    name: str
    greater_is_better: bool
    judge: Training
    function: Metric | None = None

    def of(self, model: nn.Module, batches: Batches, loss: float, accuracy: float | None) -> float:
        """The value, from what has been measured or by the user's function."""
        if self.function is None:
            return loss if self.name == "loss" else math.nan if accuracy is None else accuracy
        try:
            return float(self.function(model, batches))
        except Exception as error:
            raise FaninError(
                f"metric: expected a number from {self.name}(model, batches); it raised {type(error).__name__}: {error}"
            ) from error


def _evaluated(model: nn.Module, training: Training, held_out: Batches, ask: Ask) -> tuple[float, float | None]:
    """Mean loss by the judge's loss, and the share of right classes, in evaluation mode."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    total, count, hits, cases, classes = 0.0, 0, 0, 0, True
    with torch.no_grad():
        for batch in held_out.epoch(0):
            seen = (training.change(batch) if training.change else batch).to(device)
            outputs, truth = call(model, seen), batch.to(device)
            total += float(value_of(ask.judge.loss, outputs, truth)) * batch.size if ask.name == "loss" else 0.0
            count += batch.size
            found = classes and right(main_output(outputs), targets_of(truth), logits=_logits(training))
            if found is False or found is None:
                classes = False
            else:
                hits, cases = hits + found[0], cases + found[1]
    if not count:
        raise FaninError("eval_data: expected at least one batch; got none")
    return total / count, hits / cases if classes and cases else None


def right(outputs: Tensor, targets: Any, *, logits: bool) -> tuple[int, int] | None:
    """Outputs that say the right class, of how many; None where targets name no classes.

    Classes are whole numbers with outputs (N, C, ...) or, of sequences, (N, L, C); rows of one 1 among zeros; or 0 and
    1 with one output each, which says 1 above 0 for logits and above 1/2 for probabilities.
    """
    if not isinstance(targets, Tensor) or outputs.dim() == 0 or targets.dim() == 0:
        return None
    if targets.shape == outputs.shape and outputs.dim() > 1 and outputs.shape[1] > 1:
        one_hot = bool(((targets == 0) | (targets == 1)).all() and (targets.sum(1) == 1).all())
        return _hits(outputs.argmax(1), targets.argmax(1)) if one_hot else None
    if targets.numel() == outputs.numel():
        binary = bool(((targets == 0) | (targets == 1)).all())
        said = (outputs > (0.0 if logits else 0.5)).reshape(-1)
        return _hits(said.long(), targets.reshape(-1).long()) if binary else None
    if targets.is_floating_point():
        return None
    if targets.shape == (len(outputs), 1):
        targets = targets[:, 0]
    if targets.shape == (len(outputs), *outputs.shape[2:]):
        return _hits(outputs.argmax(1), targets)
    return _hits(outputs.argmax(-1), targets) if targets.shape == outputs.shape[:-1] else None


def _hits(said: Tensor, true: Tensor) -> tuple[int, int]:
    return int((said == true).sum()), true.numel()


def _logits(training: Training) -> bool:
    """Whether one output for two classes is a logit: its loss says so."""
    return "logits" in training.loss_words.lower()


def _changed(batches: Batches, training: Training) -> Batches:
    """Evaluation data as the network wants them, for a user's metric: inputs changed, targets as they are."""
    if training.change is None:
        return batches
    change = training.change
    found = [Batch(changed.inputs, b.targets, changed.named) for b in batches.epoch(0) if (changed := change(b))]
    return Batches(found, batches.examples, batches.batch_size)


def _means(losses: list[float], sizes: list[int], per_epoch: int) -> list[float]:
    """Mean loss of each epoch, batches weighted by their sizes; the last may be of fewer steps."""
    means = []
    for start in range(0, len(losses), per_epoch):
        here, weights = losses[start : start + per_epoch], sizes[start : start + per_epoch]
        means.append(sum(x * w for x, w in zip(here, weights, strict=True)) / sum(weights))
    return means
