"""A complete study on a card: its trials per second, and how much of the time is not spent in steps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from statistics import fmean, median

import torch

from card.clock import Scale, seconds, wait
from card.ours import full_bucket
from fanin.engine.data import Data
from fanin.engine.train import train
from fanin.recipe import Trial
from way import NN


@dataclass(frozen=True)
class Study:
    """N trials through fanin's training loop.

    wall: seconds from the call to the outcomes. first: those until the first epoch was over, with the choice of the
    bucket's size, initialisation, compilation and capture in them. stepping: those that the same number of steps took
    in a bucket of this size on its own. The rest is evaluation, probe, orders, tables, initialisation and records.
    """

    trials: int
    epochs: int
    slots: int
    wall: float
    first: float
    stepping: float
    accuracy: float

    @property
    def rate(self) -> float:
        """Trials per second."""
        return self.trials / self.wall

    @property
    def outside(self) -> float:
        """Share of the time outside the steps."""
        return 1 - self.stepping / self.wall


def study(data: Data, trials: int, epochs: int, *, scale: Scale, device: torch.device) -> Study:
    """Train, then time the steps alone."""
    recipe = replace(NN, epochs=epochs)
    moments: list[float] = []
    wait(device)
    begun = time.perf_counter()
    outcomes = train(
        [Trial(recipe, seed) for seed in range(trials)],
        [str(seed) for seed in range(trials)],
        data,
        device=device,
        on_epoch=lambda _: moments.append(time.perf_counter()),
    )
    wait(device)
    wall = time.perf_counter() - begun
    slots = outcomes[0].record.environment["stack"]
    bucket = full_bucket(recipe, data, slots, device)
    bucket.run_epoch(dict.fromkeys(range(slots), 1))
    epoch = median(seconds(lambda: bucket.run_steps(bucket.steps), device) for _ in range(scale.rounds))
    accuracy = fmean(outcome.record.epochs[-1].test_accuracy for outcome in outcomes)
    stepping = epoch * epochs * math.ceil(trials / slots)
    return Study(trials, epochs, slots, wall, moments[0] - begun, stepping, accuracy)
