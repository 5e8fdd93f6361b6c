"""One trial of a user's network from its start to its end: a plain loop of autograd that looks at every step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fanin.code import loaded_source
from fanin.engine.data import Data
from fanin.engine.environment import environment
from fanin.engine.ledger import Outcome
from fanin.engine.module.layers import Layers
from fanin.engine.module.making import made, seed_of
from fanin.engine.module.score import mean_loss, score
from fanin.engine.module.start import begin
from fanin.engine.optimizers import TORCH_CLASSES
from fanin.engine.order import order, steps_of
from fanin.engine.probe import probe_rows
from fanin.engine.schedules import factor
from fanin.recipe import Trial
from fanin.record import Divergence, Epoch, LayerSignal, Record
from fanin.training.losses import main_output
from fanin.training.randomness import RandomState, seed_all


def train(
    trial: Trial,
    trial_id: str,
    data: Data,
    *,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    on_epoch: Callable[[int], object] | None = None,
) -> Outcome:
    """Train the network that the trial's recipe names; the record means what the stacked engine's does.

    The order of data, labels and redrawn weights come from the engine's streams. What the factory draws comes from
    torch's generators (numpy's and Python's too) seeded by the stream ("model", seed), and what the network draws in
    epoch e, such as dropout, from ("model", seed, e): a trial has one result, whatever ran before it. The caller's
    random states are put back. folder: where the factory is looked for first. FaninError for a network that cannot be
    made or trained on such data.
    """
    outside = RandomState.now()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return _Run(trial, data, torch.device(device), folder).outcome(trial_id, on_epoch)
    finally:
        outside.restore()


class _Run:
    """The network, its optimiser, and what it has shown so far."""

    def __init__(self, trial: Trial, data: Data, device: torch.device, folder: Path | None) -> None:
        recipe = trial.recipe
        self._trial, self._recipe, self._data, self._device = trial, recipe, data, device
        self._network, self._form = made(trial, data, device=device, folder=folder)
        rows = probe_rows(len(data.train_labels)).to(data.train_labels.device)
        self._probe, self._probe_labels = self._form.inputs(data.train_inputs[rows]), data.train_labels[rows]
        begin(self._network, trial, self._probe[:2])
        self._layers = Layers(self._network, self._probe[:2])
        trained = [p for p in self._network.parameters() if p.requires_grad]
        kind: Any = getattr(torch.optim, TORCH_CLASSES[recipe.optimizer.name])
        self._optimizer: torch.optim.Optimizer = kind(trained, **recipe.optimizer.keywords())
        self._steps = steps_of(recipe, len(data.train_labels))
        name = recipe.model.name if recipe.model else ""
        self._code = {"model": name, "model_source": loaded_source(name, folder)}
        self._signal: list[LayerSignal] = []
        self._epochs: list[Epoch] = []
        self._divergence: Divergence | None = None
        self._seconds = 0.0

    def outcome(self, trial_id: str, on_epoch: Callable[[int], object] | None) -> Outcome:
        """Train to the end, or to where the numbers cease to be finite."""
        self._signal += self._measured(0)
        for epoch in range(1, self._recipe.epochs + 1):
            begun = time.perf_counter()
            cost = self._epoch(epoch)
            if cost is not None:
                self._close_epoch(epoch, cost, begun)
            self._seconds += time.perf_counter() - begun
            if self._divergence is not None:
                break
            if on_epoch is not None:
                on_epoch(1)
        record = Record(
            trial_id=trial_id,
            seed=self._trial.seed,
            status="diverged" if self._divergence else "done",
            epochs=tuple(self._epochs),
            signal=tuple(self._signal),
            divergence=self._divergence,
            seconds=self._seconds,
            environment=environment(self._device, members=1) | self._code,
        )
        state = {name: t.detach().clone() for name, t in self._network.state_dict().items() if isinstance(t, Tensor)}
        return Outcome(record, state)

    def _epoch(self, epoch: int) -> float | None:
        """The mean loss of an epoch's steps; None if one of them diverged."""
        recipe, data = self._recipe, self._data
        rate = recipe.optimizer["lr"] * factor(recipe.schedule, epoch, recipe.epochs)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        seed_all(seed_of(self._trial, epoch))
        self._network.train()
        places = order(self._trial, epoch, len(data.train_labels)).to(data.train_labels.device)
        costs = []
        with self._layers.watched():
            for step in range(self._steps):
                rows = places[step * recipe.batch_size : (step + 1) * recipe.batch_size]
                costs.append(self._step(self._form.inputs(data.train_inputs[rows]), data.train_labels[rows]))
                if not math.isfinite(costs[-1]):
                    self._divergence = Divergence(epoch, step + 1, self._layers.first_bad())
                    return None
        return math.fsum(costs) / len(costs)

    def _step(self, inputs: Tensor, labels: Tensor) -> float:
        """The batch's loss before its update; where that is not finite, nothing is updated."""
        loss = self._loss(inputs, labels)
        cost = float(loss.detach())
        if not math.isfinite(cost):
            return cost
        self._backward(loss)
        if self._recipe.optimizer.name == "lbfgs":
            known = [loss]  # its first evaluation is this one

            def again() -> float:
                return float((known.pop() if known else self._backward(self._loss(inputs, labels))).detach())

            self._optimizer.step(again)
        else:
            self._optimizer.step()
        return cost

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return mean_loss(main_output(self._network(inputs)), labels, self._recipe.loss)

    def _backward(self, loss: Tensor) -> Tensor:
        self._optimizer.zero_grad()
        loss.backward()
        if self._recipe.optimizer.name == "sparse_adam":  # sees the entries that are not zero
            for p in self._network.parameters():
                if p.grad is not None:
                    p.grad = p.grad.to_sparse()
        return loss

    def _close_epoch(self, epoch: int, cost: float, begun: float) -> None:
        """Score the network at an epoch's end; if the last step has ruined it, that is where it diverged."""
        signal, data, recipe = self._measured(epoch), self._data, self._recipe
        test = score(self._network, self._form, data.test_inputs, data.test_labels, recipe.loss, raw=True)
        train = None
        if recipe.train_metrics:
            train = score(self._network, self._form, data.train_inputs, data.train_labels, recipe.loss)
        if not math.isfinite(test.loss) or (train and not math.isfinite(train.loss)):
            bad = (s.layer for s in signal if not math.isfinite(s.activation_second_moment))
            self._divergence = Divergence(epoch, self._steps, next(bad, None))
            return
        self._signal += signal
        self._epochs.append(
            Epoch(
                epoch=epoch,
                seconds=time.perf_counter() - begun,
                train_cost=cost,
                test_loss=test.loss,
                test_accuracy=test.accuracy,
                accuracy_on_raw_pixels=test.accuracy_on_raw_pixels,
                train_loss=train.loss if train else None,
                train_accuracy=train.accuracy if train else None,
            )
        )

    def _measured(self, epoch: int) -> tuple[LayerSignal, ...]:
        def loss(outputs: Any) -> Tensor:
            return mean_loss(main_output(outputs), self._probe_labels, self._recipe.loss)

        seed = seed_of(self._trial, epoch)
        return self._layers.signal(self._probe.detach().clone(), loss, epoch=epoch, seed=seed)
