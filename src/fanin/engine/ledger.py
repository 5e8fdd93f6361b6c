"""The ledger of a cohort: who is still training, what every member has shown, and where it diverged."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fanin.engine.data import Data
from fanin.engine.evaluate import evaluate
from fanin.engine.network import Network
from fanin.engine.optimizers import Optimizer
from fanin.engine.passes import Passes
from fanin.engine.probe import Probe
from fanin.recipe import Trial
from fanin.record import Divergence, Epoch, LayerSignal, Record


@dataclass(frozen=True)
class Outcome:
    """One trial's record and its parameters at the end (see Network.state)."""

    record: Record
    state: dict[str, Tensor]


@dataclass
class _Member:
    """What a member has shown so far; `state` is its end if it diverged."""

    trial: Trial
    signal: list[LayerSignal]
    epochs: list[Epoch] = field(default_factory=list)
    divergence: Divergence | None = None
    state: dict[str, Tensor] | None = None
    seconds: float = 0.0


class Ledger:
    """Measures every member before training and after each epoch; freezes those that diverge."""

    def __init__(self, trials: Sequence[Trial], network: Network, optimizer: Optimizer, data: Data) -> None:
        self._network, self._optimizer, self._data = network, optimizer, data
        self._probe = Probe(network, trials[0].recipe, data)
        self._members = [_Member(trial, signal=self._probe.measure(network, m, 0)) for m, trial in enumerate(trials)]
        self.alive = list(range(len(trials)))

    def freeze_diverged(self, passes: Passes, losses: Sequence[float], epoch: int, step: int) -> bool:
        """Freeze members whose loss in this step (from 0) is not finite; say whether any member is left."""
        for m in [m for m in self.alive if not math.isfinite(losses[m])]:
            self._diverge(m, Divergence(epoch, step + 1, _first_bad_layer(passes, m)))
        return bool(self.alive)

    def _diverge(self, m: int, at: Divergence) -> None:
        self._members[m].divergence = at
        self._members[m].state = self._network.state(m)  # running statistics go on with the stack
        self._optimizer.freeze(m)
        self.alive.remove(m)

    def close_epoch(self, epoch: int, costs: Sequence[Sequence[float]], seconds: float) -> None:
        """Score every living member; `costs` are its losses by step and member, `seconds` the training's of all."""
        share = seconds / len(self._members)
        for member in self._members:
            member.seconds += share
        for m in list(self.alive):
            member = self._members[m]
            signal = self._probe.measure(self._network, m, epoch)
            found = self._score(m, epoch, math.fsum(step[m] for step in costs) / len(costs), share)
            member.seconds += found.seconds - share
            if math.isfinite(found.test_loss) and math.isfinite(found.train_loss or 0):
                member.epochs.append(found)
                member.signal += signal
            else:  # the last step's loss was finite, but not what the step left behind
                bad = (s.layer for s in signal if not math.isfinite(s.activation_second_moment))
                self._diverge(m, Divergence(epoch, len(costs), next(bad, None)))

    def _score(self, m: int, epoch: int, train_cost: float, training_seconds: float) -> Epoch:
        """Member m's epoch: its cost, and everything else measured now, in evaluation mode."""
        begun = time.perf_counter()
        data, recipe = self._data, self._members[m].trial.recipe
        layers = [layer.member(m) for layer in self._network.layers]
        test = evaluate(layers, recipe, data.test_inputs, data.test_labels, data.scale, raw=True)
        train = None
        if recipe.train_metrics:
            train = evaluate(layers, recipe, data.train_inputs, data.train_labels, data.scale)
        return Epoch(
            epoch=epoch,
            seconds=training_seconds + time.perf_counter() - begun,
            train_cost=train_cost,
            test_loss=test.loss,
            test_accuracy=test.accuracy,
            accuracy_on_raw_pixels=test.accuracy_on_raw_pixels,
            train_loss=train.loss if train else None,
            train_accuracy=train.accuracy if train else None,
        )

    def outcomes(self, ids: Sequence[str], environment: dict[str, Any]) -> list[Outcome]:
        """Every member's record and parameters, in the cohort's order."""
        return [
            Outcome(_record(member, trial_id, environment), member.state or self._network.state(m))
            for m, (member, trial_id) in enumerate(zip(self._members, ids, strict=True))
        ]


def _first_bad_layer(passes: Passes, m: int) -> int | None:
    """The first layer, from 1, with a value that is not finite; None if only the loss itself overflowed."""
    return next((i + 1 for i, z in enumerate(passes.pre) if not bool(z[m].isfinite().all())), None)


def _record(member: _Member, trial_id: str, environment: dict[str, Any]) -> Record:
    return Record(
        trial_id=trial_id,
        seed=member.trial.seed,
        status="diverged" if member.divergence else "done",
        epochs=tuple(member.epochs),
        signal=tuple(member.signal),
        divergence=member.divergence,
        seconds=member.seconds,
        environment=environment,
    )
