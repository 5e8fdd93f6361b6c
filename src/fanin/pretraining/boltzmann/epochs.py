"""Epochs of training on checked data: their steps, what is watched after each, and a state that never stays halfway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from fanin.pretraining.boltzmann.monitor import binarized, watch
from fanin.pretraining.boltzmann.options import Options
from fanin.pretraining.boltzmann.rows import Batches, evenly
from fanin.pretraining.boltzmann.start import add_companions
from fanin.pretraining.boltzmann.state import State
from fanin.pretraining.boltzmann.training import Trainer, machine
from fanin.pretraining.divergence import NotFiniteError

WATCHED = 500  # rows on which the history's figures are computed


def train_epochs(
    state: State, options: Options, X: Tensor, held_out: Tensor | None, *, count: int
) -> Iterator[dict[str, Any]]:
    """Train a state in place for so many epochs more; yields the history's entry of each.

    NotFiniteError, like anything else that breaks an epoch off, leaves the state as it was before that epoch.
    """
    add_companions(state, options, X)
    trainer = Trainer(options, state)
    batches = Batches(X, options.batch_size, binarize=options.binarize, seed=options.seed)
    parts = [X] if held_out is None else [X, held_out]
    watched = [binarized(evenly(part, WATCHED).to(options.dtype), options) for part in parts]
    for _ in range(count):
        lr, begun = options.rate(state.epoch + 1), time.perf_counter()
        _run(trainer, state, batches, lr)
        entry = {"epoch": state.epoch, "lr": lr, "seconds": time.perf_counter() - begun}
        yield entry | watch(machine(state.parameters(), options), options, *watched)


def _run(trainer: Trainer, state: State, batches: Batches, lr: float) -> None:
    """One epoch, completely or not at all."""
    before, epoch = state.clone(), state.epoch + 1
    try:
        for step in batches.epoch(epoch, trainer.rows):
            if not trainer.step(epoch, step, lr):
                raise NotFiniteError(step + 1, "gradient not finite")
        if not state.finite():
            raise NotFiniteError(len(batches), "parameters not finite")
    except BaseException:  # Ctrl-C too
        state.copy_(before)
        raise
    state.epoch = epoch
