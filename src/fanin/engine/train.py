"""Training: a cohort of trials in, their records and trained parameters out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fanin.engine import exactness, matmul, module
from fanin.engine.buffers import refill
from fanin.engine.calibration import calibrate
from fanin.engine.card import resident
from fanin.engine.card.bucket import bucket_size
from fanin.engine.checkpoint import Checkpoint, Kept
from fanin.engine.data import Data, Gatherer
from fanin.engine.environment import environment
from fanin.engine.ledger import Ledger, Outcome
from fanin.engine.masks import draw_masks
from fanin.engine.network import Network, widths
from fanin.engine.optimizers import Optimizer
from fanin.engine.order import order, steps_of
from fanin.engine.passes import Passes, first_bad_layer
from fanin.engine.pretraining import pretrain
from fanin.engine.products import SparseFirstLayer, dense
from fanin.execution import check_against, steps_on_card
from fanin.recipe import Trial
from fanin.record import Divergence


def train(
    trials: Sequence[Trial],
    ids: Sequence[str],
    data: Data,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_epoch: Callable[[int], object] | None = None,
    checkpoint: Checkpoint | None = None,
    folder: Path | None = None,
) -> list[Outcome]:
    """Train a cohort: trials whose recipes differ in numbers only. Each result is that of the trial alone.

    On a card, trials whose optimiser has a step for whole stacks go through a resident bucket (engine.card.resident),
    if products there do not depend on the slot; all others, and all on other devices, through the loop below.
    `on_epoch(members)` is called whenever so many members have finished one more epoch (or one member so many). A
    member whose loss is not finite is frozen and recorded as diverged; its neighbours go on untouched. checkpoint:
    where the stack's state is kept on the way and, if it is there already, gone on from, with the same bits; not on a
    card.
    """
    recipe, device = trials[0].recipe, torch.device(device)
    check_against(recipe, examples=len(data.train_labels), classes=data.classes)
    if recipe.model is not None:
        alone = zip(trials, ids, strict=True)
        return [module.train(trial, i, data, device=device, folder=folder, on_epoch=on_epoch) for trial, i in alone]
    if device.type == "cuda" and steps_on_card(recipe):
        slots = bucket_size(recipe, data, len(trials), device=device)
        sizes = widths(recipe, data.features, data.classes)
        with matmul.precision(recipe.precision):
            alike = exactness.slots_alike(sizes, recipe.batch_size, slots, precision=recipe.precision, device=device)
        if alike:
            return resident.train(trials, ids, data, slots=slots, device=device, dtype=dtype, on_epoch=on_epoch)
        alone = (_Loop([trial], data, device=device, dtype=dtype) for trial in trials)
        return [loop.run([trial_id], on_epoch)[0] for loop, trial_id in zip(alone, ids, strict=True)]
    if device.type == "cuda":
        checkpoint = None
    return _begun(trials, data, device, dtype, checkpoint).run(ids, on_epoch)


def _begun(
    trials: Sequence[Trial], data: Data, device: torch.device, dtype: torch.dtype, checkpoint: Checkpoint | None
) -> _Loop:
    """A stack at its start, or where its check-point has left it."""
    kept = checkpoint.load() if checkpoint is not None else None
    if checkpoint is not None and kept is not None:
        try:
            loop = _Loop(trials, data, device=device, dtype=dtype, checkpoint=checkpoint, kept=kept)
        except Exception as error:  # whatever stands there, it must not stop the trial
            checkpoint.refuse(f"{type(error).__name__}: {error}")
        else:
            checkpoint.accept(kept)
            return loop
    return _Loop(trials, data, device=device, dtype=dtype, checkpoint=checkpoint)


class _Loop:
    """The loop that looks at every step: a stack of M members, one member a trial, from their start to their end.

    kept: what an earlier loop of the same trials had come to, to go on from. checkpoint: where this one's is kept.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        data: Data,
        *,
        device: torch.device,
        dtype: torch.dtype,
        checkpoint: Checkpoint | None = None,
        kept: Kept | None = None,
    ) -> None:
        self._trials, self._data, self._device, self._recipe = trials, data, device, trials[0].recipe
        self._dtype = dtype
        recipe, members, batch = self._recipe, len(trials), self._recipe.batch_size
        self._steps = steps_of(recipe, len(data.train_labels))
        sizes = widths(recipe, data.features, data.classes)
        self._network = Network(recipe, sizes, members, dtype=dtype, device=device)
        self._optimizer = Optimizer(trials, self._network)
        products = dense(len(sizes) - 1, recipe.precision)
        self._sparse = data.sparse(recipe)
        if self._sparse:
            products[0] = self._first = SparseFirstLayer()
        self._passes = Passes(self._network.layers, recipe, batch, products)
        self._gather = Gatherer(data.train_inputs, data.train_labels, data.scale, members, batch, dtype=dtype)
        self._ledger = Ledger(self._network, recipe, data, together=False, sparse=self._sparse)
        self._dropout = recipe.dropout > 0
        self._checkpoint = checkpoint
        self._epochs_done = 0
        if kept is None:
            self._begin()
        else:
            self._resume(kept)

    def _begin(self) -> None:
        """Every member at its trial's start."""
        self._network.initialize(self._trials)
        for m, trial in enumerate(self._trials):
            calibrate(self._network, m, trial, self._data)
            pretrain(self._network, m, trial, self._data)
        self._ledger.open(dict(enumerate(self._trials)))
        self._offer(0)  # pre-training may have taken long

    def _offer(self, epoch: int) -> None:
        if self._checkpoint is not None:
            self._checkpoint.offer(epoch, self._state)

    def _state(self) -> dict[str, Any]:
        """Everything that an epoch leaves to the next; what else there is follows from the trials or is overwritten."""
        return {
            "network": self._network.moving(),
            "optimizer": self._optimizer.state(),
            "ledger": self._ledger.state(),
        }

    def _resume(self, kept: Kept) -> None:
        """Every member where it was; ValueError and the like if the state is another stack's."""
        refill(self._network.moving(), kept.state["network"])
        self._ledger.resume(self._trials, kept.state["ledger"])
        for m in {*range(len(self._trials))} - {*self._ledger.alive}:
            self._optimizer.freeze(m)
        self._optimizer.resume(kept.state["optimizer"])
        self._epochs_done = kept.epoch

    def run(self, ids: Sequence[str], on_epoch: Callable[[int], object] | None) -> list[Outcome]:
        """Train to the end; outcomes in the trials' order."""
        ledger, members = self._ledger, len(self._trials)
        if self._epochs_done and on_epoch is not None:
            on_epoch(members * self._epochs_done)
        for epoch in range(self._epochs_done + 1, self._recipe.epochs + 1):
            if not ledger.alive:
                break
            begun = time.perf_counter()
            with matmul.precision(self._recipe.precision):
                costs = self._epoch(epoch)
            seconds = time.perf_counter() - begun
            means = {m: math.fsum(step[m] for step in costs) / len(costs) for m in ledger.alive}
            for m in ledger.close_epoch(means, len(costs), seconds):
                self._optimizer.freeze(m)
            if ledger.alive and on_epoch is not None:
                on_epoch(members)
            self._offer(epoch)  # after the word to the driver: where nobody listens any more, nothing is to be written
        runs_on = environment(self._device, members=members)
        return [ledger.close(m, trial_id, runs_on) for m, trial_id in enumerate(ids)]

    def _epoch(self, epoch: int) -> list[list[float]]:
        """The losses of an epoch's steps, by member; it ends with the last member's life."""
        self._optimizer.begin_epoch(epoch)
        passes, layers, gradients = self._passes, self._network.layers, self._network.layer_gradients
        batches = _batches(self._trials, epoch, self._data.train_labels, self._steps, self._recipe.batch_size)
        sparse = self._sparse.train.batches(batches, len(self._trials), self._dtype) if self._sparse else None
        costs: list[list[float]] = []
        for step in range(self._steps):
            self._gather.labels(batches[step], passes.labels)
            if sparse is None:
                self._gather.inputs(batches[step], passes.inputs)
            else:
                self._first.choose(next(sparse))
            if self._dropout:
                draw_masks(self._trials, passes.masks, epoch, step)
            passes.forward(layers, dropout=self._dropout, update=True)
            costs.append(passes.losses.tolist())
            if not all(map(math.isfinite, costs[step])) and not self._freeze_diverged(costs[step], epoch, step):
                break
            passes.backward(layers, gradients, dropout=self._dropout)
            self._optimizer.step(passes.losses, self._again)
        return costs

    def _again(self) -> float:
        """Loss and gradients of the same batch at the parameters as they are now (LBFGS asks for them)."""
        layers, gradients = self._network.layers, self._network.layer_gradients
        self._passes.forward(layers, dropout=self._dropout, update=True)
        self._passes.backward(layers, gradients, dropout=self._dropout)
        return float(self._passes.losses[0])

    def _freeze_diverged(self, losses: Sequence[float], epoch: int, step: int) -> bool:
        """Freeze members whose loss in this step (from 0) is not finite; say whether any member is left."""
        for m in [m for m in self._ledger.alive if not math.isfinite(losses[m])]:
            self._ledger.diverge(m, Divergence(epoch, step + 1, first_bad_layer(self._passes, m)))
            self._optimizer.freeze(m)
        return bool(self._ledger.alive)


def _batches(trials: Sequence[Trial], epoch: int, labels: Tensor, steps: int, batch: int) -> Tensor:
    """Row s, (M * B,): the examples of step s, the first member's, then the second's, and so on."""
    kept = torch.stack([order(trial, epoch, len(labels))[: steps * batch] for trial in trials])
    return kept.view(len(trials), steps, batch).transpose(0, 1).reshape(steps, -1).to(labels.device)
