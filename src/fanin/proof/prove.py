"""prove: the same seeds and the same order of data with and without a remedy, and what the pairs say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from fanin.errors import FaninError
from fanin.finding import Remedy
from fanin.proof.judging import Ask, Outcome, judged, right, run, steps_of
from fanin.proof.page import Arm, Proof
from fanin.proof.remedies import Change, as_change
from fanin.proof.verdict import judge
from fanin.statistics import CONFIDENCE
from fanin.training import Batches, Training, batches_for
from fanin.training.copying import copy_of, untouched
from fanin.training.losses import call, main_output, targets_of

BASELINE = "baseline"
_JUDGED_BY_ACCURACY = ("loss", "output-activation")  # kinds of remedy after which losses mean something else


def prove(
    make_model: nn.Module | Callable[[], nn.Module],
    remedy: Any,
    data: Any,
    loss: Any = None,
    *,
    optimizer: Any = None,
    eval_data: Any = None,
    seeds: int | Sequence[int] = 8,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    metric: str | Callable[[nn.Module, Batches], float] | None = None,
    confidence: float = CONFIDENCE,
) -> Proof:
    """Whether a remedy helps: mean of metric(with) - metric(without) over paired seeds, its interval, and a verdict.

    Every seed gives the initial weights (make_model() is called under it), the order of the data and dropout, the same
    with and without the remedy. Networks train for `epochs` (5 if nothing is said) or for `steps`, where the model is.

    make_model: a function that makes a network, or a network, which is copied: then all seeds start at its weights, and
    the verdict is about them. remedy: a fanin.Remedy, text ("lr=0.001", "init=kaiming_normal", "input-scaling"), a
    function Training -> Training or one that makes other networks, or a dict {name: any of these}, whose intervals are
    then simultaneous. data, loss, optimizer, batch_size: as for Training.of. eval_data: what the metric is measured on,
    by default the training data. metric: "loss" (the one without the remedy; less is better), "accuracy", or a function
    (model, batches) -> number of which more is better, as of scikit-learn's scorers; by default the loss, after a
    remedy of the loss or the output activation the accuracy if there are classes.

    A run that diverges is worse than any other (see verdict.judge). Nothing of the user's is changed, global random
    states included. FaninError for what cannot be trained, with the variant and the seed.
    """
    base = Training.of(make_model, data, loss=loss, optimizer=optimizer, batch_size=batch_size)
    changes = _changes(remedy)
    variants = {BASELINE: base} | {name: _changed(name, change, base) for name, (change, _) in changes.items()}
    held_out = batches_for(base.new(0), data if eval_data is None else eval_data).in_order()
    ask = _ask(metric, base, held_out, [given for _, given in changes.values()])
    trial = _Trial(_seeds(seeds), ask, held_out, epochs, steps)
    known = [make_model] if isinstance(make_model, nn.Module) else []
    with untouched(*known):
        arms = {name: trial.arm(name, one) for name, one in variants.items()}
    before = [one.metric for one in arms[BASELINE].outcomes]
    verdicts = {
        name: judge(
            before,
            [one.metric for one in arms[name].outcomes],
            greater_is_better=ask.greater_is_better,
            comparisons=len(changes),
            confidence=confidence,
        )
        for name in changes
    }
    notes = list(_notes(base, eval_data, isinstance(make_model, nn.Module)))
    return Proof(
        metric=ask.name,
        greater_is_better=ask.greater_is_better,
        seeds=trial.seeds,
        arms=arms,
        verdicts=verdicts,
        loss=base.loss_words,
        notes=tuple(notes),
        confidence=confidence,
    )


def _changes(given: Any) -> dict[str, tuple[Change, Any]]:
    if not isinstance(given, Mapping):
        name, change = as_change(given)
        return {name: (change, given)}
    if not given:
        raise FaninError("remedy: expected at least one variant; got an empty dict")
    if BASELINE in given:
        raise FaninError(f"remedy: {BASELINE!r} is what variants are compared with; give yours another name")
    return {str(name): (as_change(one)[1], one) for name, one in given.items()}


def _changed(name: str, change: Change, base: Training) -> Training:
    try:
        return change(base)
    except FaninError as error:
        raise FaninError(f"{name}: {error}" if name not in str(error) else str(error)) from error


@dataclass(frozen=True)
class _Trial:
    """What all arms have in common."""

    seeds: tuple[int, ...]
    ask: Ask
    held_out: Batches
    epochs: int | None
    steps: int | None

    def arm(self, name: str, training: Training) -> Arm:
        """The outcomes of one arm, seed by seed."""
        steps = steps_of(training.batches, self.epochs, self.steps)
        return Arm(name, steps, tuple(self._outcome(name, training, seed, steps) for seed in self.seeds))

    def _outcome(self, name: str, training: Training, seed: int, steps: int) -> Outcome:
        try:
            model, curve = run(training, seed, steps=steps)
            return judged(model, curve, training, self.held_out, self.ask)
        except FaninError as error:
            raise FaninError(f"{name}, seed {seed}: {error}") from error
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
            raise FaninError(
                f"{name}, seed {seed}: training raised {type(error).__name__}: {error}; try one step of it by hand, "
                "and see whether outputs, targets and loss fit each other"
            ) from error


def _ask(metric: Any, base: Training, held_out: Batches, given: Sequence[Any]) -> Ask:
    if callable(metric):
        return Ask(getattr(metric, "__name__", type(metric).__name__), True, base, metric)
    if metric not in (None, "loss", "accuracy"):
        raise FaninError(
            f"metric: expected 'loss', 'accuracy' or a function (model, batches) -> number; got {metric!r}"
        )
    if metric == "loss" or (metric is None and not any(map(_changes_what_losses_mean, given))):
        return Ask("loss", False, base)
    if _names_classes(base, held_out):
        return Ask("accuracy", True, base)
    if metric == "accuracy":
        raise FaninError("metric: accuracy needs targets that name classes; give 'loss', or a function of your own")
    return Ask("loss", False, base)


def _changes_what_losses_mean(given: Any) -> bool:
    if isinstance(given, str):
        return given.partition("=")[0].strip().replace("_", "-") in _JUDGED_BY_ACCURACY
    return isinstance(given, Remedy) and given.kind in _JUDGED_BY_ACCURACY


def _names_classes(base: Training, held_out: Batches) -> bool:
    import torch

    batch = next(iter(held_out.epoch(0)))
    model = copy_of(base.new(0)).eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad():
        outputs = main_output(call(model, batch.to(device)))
    return right(outputs, targets_of(batch.to(device)), logits=False) is not None


def _seeds(given: int | Sequence[int]) -> tuple[int, ...]:
    found = tuple(range(given)) if isinstance(given, int) else tuple(int(seed) for seed in given)
    if not found or len(set(found)) < len(found) or min(found) < 0:
        raise FaninError(f"seeds: expected a number of seeds, at least 1, or different whole numbers; got {given!r}")
    return found


def _notes(base: Training, eval_data: Any, same_weights: bool) -> list[str]:
    found = [f"Loss: {base.loss_words}.", f"Optimiser: {base.optimizer.words}."]
    if eval_data is None:
        found.append("Measured on the training data, since no eval_data was given.")
    if same_weights:
        found.append(
            "All seeds start at the weights of the network that was given: the verdict is about these weights."
        )
    return found
