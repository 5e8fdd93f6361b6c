"""fanin itself: its training loop as its workers call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import torch

from fanin.driver.plan import stack_size
from fanin.engine import matmul
from fanin.engine.data import Data
from fanin.engine.train import train
from fanin.recipe import Trial
from stopwatch import Done, Stopwatch
from way import BATCH, Way, cut, dataset


def trained(way: Way, watch: Stopwatch) -> Done:
    """An epoch with its probe and its test set cut to one batch: the peers measure neither."""
    return _second_epoch(way, watch, tests=BATCH)


def evaluated(way: Way, watch: Stopwatch) -> Done:
    """An epoch with everything fanin does in one: the test set twice (scaled, unscaled), the probe."""
    return _second_epoch(way, watch, tests=None)


def arm(way: Way, watch: Stopwatch) -> Done:
    """One trial from the bytes to the trained weights, test set cut to one batch."""
    watch.start()
    loss = _train(way, _data(way, tests=BATCH), members=1, epochs=way.epochs)
    watch.stop()
    return Done(1, loss)


def _second_epoch(way: Way, watch: Stopwatch, *, tests: int | None) -> Done:
    data = _data(way, tests=tests)
    members = stack_size(way.recipe, data.features, data.classes)

    # the first epoch is the warm-up: what is measured is the real loop, into which no stopwatch reaches
    moments = iter((watch.start, watch.stop))
    loss = _train(way, data, members=members, epochs=2, on_epoch=lambda _: next(moments)())
    return Done(members, loss)


def _data(way: Way, *, tests: int | None) -> Data:
    return cut(Data.of(dataset(), torch.device("cpu")), way.steps, tests)


def _train(
    way: Way, data: Data, *, members: int, epochs: int, on_epoch: Callable[[int], object] | None = None
) -> float:
    """Mean loss of the last epoch."""
    matmul.use(way.path)
    torch.set_flush_denormal(True)
    recipe = replace(way.recipe, epochs=epochs)
    trials = [Trial(recipe, way.seed * members + m) for m in range(members)]
    outcomes = train(trials, [str(trial.seed) for trial in trials], data, on_epoch=on_epoch)
    return fmean(outcome.record.epochs[-1].train_cost for outcome in outcomes)
