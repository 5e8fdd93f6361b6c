"""The ledger of a stack: whose turn each slot is, what every trial has shown, and where it diverged."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fanin.engine.data import Data
from fanin.engine.evaluate import Score, evaluate
from fanin.engine.network import Layer, Network
from fanin.engine.prediction import trainable_depth
from fanin.engine.probe import Probe
from fanin.engine.sparse import SparseParts
from fanin.recipe import Recipe, Trial
from fanin.record import Divergence, Epoch, LayerSignal, Record


@dataclass(frozen=True)
class Outcome:
    """One trial's record and its parameters at the end (see Network.state)."""

    record: Record
    state: dict[str, Tensor]


@dataclass
class _Entry:
    """What a trial has shown so far; `state` is its end if it diverged."""

    trial: Trial
    signal: list[LayerSignal]
    epochs: list[Epoch] = field(default_factory=list)
    divergence: Divergence | None = None
    state: dict[str, Tensor] | None = None
    seconds: float = 0.0


class Ledger:
    """Measures every trial before training and after each epoch.

    together: members are measured as one stack, as a card wants it, or else one by one, as a cache wants it; an
    empty slot of such a stack is measured too, and forgotten. sparse: the data in sparse form, for those one by one.
    """

    def __init__(
        self, network: Network, recipe: Recipe, data: Data, *, together: bool, sparse: SparseParts | None = None
    ) -> None:
        self._network, self._recipe, self._data = network, recipe, data
        members = range(len(network.parameters))
        self._parts = [list(members)] if together else [[m] for m in members]
        self._probe = Probe(self._layers(self._parts[0]), recipe, data)
        self._entries: dict[int, _Entry] = {}
        self._sparse = sparse

    @property
    def alive(self) -> list[int]:
        """Slots whose trial has not diverged."""
        return [m for m, entry in self._entries.items() if entry.divergence is None]

    def open(self, trials: dict[int, Trial]) -> None:
        """Begin with these trials in these slots, which must be initialised."""
        signal = self._signals(list(trials), dict.fromkeys(trials, 0))
        self._entries |= {m: _Entry(trial, signal[m]) for m, trial in trials.items()}

    def state(self) -> list[dict[str, Any]]:
        """What every trial has shown so far, slot by slot: plain data, and the parameters of those that diverged."""
        return [
            {
                "signal": [list(vars(signal).values()) for signal in entry.signal],
                "epochs": [list(vars(epoch).values()) for epoch in entry.epochs],
                "divergence": entry.divergence and list(vars(entry.divergence).values()),
                "state": entry.state,
                "seconds": entry.seconds,
            }
            for entry in self._entries.values()
        ]

    def resume(self, trials: Sequence[Trial], state: Sequence[dict[str, Any]]) -> None:
        """Go on, in the place of `open`, with these trials in slots 0, 1, ... and what `state` said of them."""
        for m, (trial, shown) in enumerate(zip(trials, state, strict=True)):
            self._entries[m] = _Entry(
                trial,
                signal=[LayerSignal(*values) for values in shown["signal"]],
                epochs=[Epoch(*values) for values in shown["epochs"]],
                divergence=shown["divergence"] and Divergence(*shown["divergence"]),
                state=shown["state"],
                seconds=shown["seconds"],
            )

    def epoch(self, m: int) -> int:
        """The epoch, from 1, that slot m is in."""
        return len(self._entries[m].epochs) + 1

    def diverge(self, m: int, at: Divergence) -> None:
        """Slot m's trial ends here; its parameters are taken now."""
        self._entries[m].divergence = at
        self._entries[m].state = self._network.state(m)  # running statistics may go on with the stack

    def close_epoch(self, costs: dict[int, float], steps: int, seconds: float) -> list[int]:
        """Score living slots, whose mean losses are `costs`; those that the epoch's last step ruined diverge.

        seconds: the training's, of all slots together. Returns the slots that diverged.
        """
        share = seconds / max(len(self._entries), 1)
        for entry in self._entries.values():
            entry.seconds += share
        begun = time.perf_counter()
        signals = self._signals(list(costs), {m: self.epoch(m) for m in costs})
        tests = self._scores(list(costs), test=True)
        trains = self._scores(list(costs), test=False) if self._recipe.train_metrics else {}
        measuring = (time.perf_counter() - begun) / max(len(costs), 1)
        ruined = []
        for m, cost in costs.items():
            entry = self._entries[m]
            entry.seconds += measuring
            found = _epoch(self.epoch(m), share + measuring, cost, tests[m], trains.get(m))
            if math.isfinite(found.test_loss) and math.isfinite(found.train_loss or 0):
                entry.epochs.append(found)
                entry.signal += signals[m]
            else:  # the last step's loss was finite, but not what the step left behind
                bad = (s.layer for s in signals[m] if not math.isfinite(s.activation_second_moment))
                self.diverge(m, Divergence(self.epoch(m), steps, next(bad, None)))
                ruined.append(m)
        return ruined

    def close(self, m: int, trial_id: str, environment: dict[str, Any]) -> Outcome:
        """The record and the parameters of slot m's trial; the slot is free for another."""
        entry = self._entries.pop(m)
        record = Record(
            trial_id=trial_id,
            seed=entry.trial.seed,
            status="diverged" if entry.divergence else "done",
            epochs=tuple(entry.epochs),
            signal=tuple(entry.signal),
            divergence=entry.divergence,
            seconds=entry.seconds,
            environment=environment,
            trainable_depth=trainable_depth(entry.trial.recipe),
        )
        return Outcome(record, entry.state or self._network.state(m))

    def _layers(self, part: Sequence[int]) -> list[Layer]:
        if len(part) == len(self._network.parameters):
            return self._network.layers
        return [layer.member(part[0]) for layer in self._network.layers]

    def _signals(self, wanted: Sequence[int], epochs: dict[int, int]) -> dict[int, list[LayerSignal]]:
        out: dict[int, list[LayerSignal]] = {}
        for part in self._parts:
            if not set(part).isdisjoint(wanted):
                found = self._probe.measure(self._layers(part), [epochs.get(m, 0) for m in part])
                out |= dict(zip(part, found, strict=True))
        return out

    def _scores(self, wanted: Sequence[int], *, test: bool) -> dict[int, Score]:
        data, out = self._data, {}
        both = self._sparse
        sparse = None if both is None else both.test if test else both.train
        inputs, labels = (data.test_inputs, data.test_labels) if test else (data.train_inputs, data.train_labels)
        for part in self._parts:
            if not set(part).isdisjoint(wanted):
                layers = self._layers(part)
                found = evaluate(layers, self._recipe, inputs, labels, data.scale, raw=test, sparse=sparse)
                out |= dict(zip(part, found, strict=True))
        return out


def _epoch(epoch: int, seconds: float, cost: float, test: Score, train: Score | None) -> Epoch:
    return Epoch(
        epoch=epoch,
        seconds=seconds,
        train_cost=cost,
        test_loss=test.loss,
        test_accuracy=test.accuracy,
        accuracy_on_raw_pixels=test.accuracy_on_raw_pixels,
        train_loss=train.loss if train else None,
        train_accuracy=train.accuracy if train else None,
    )
