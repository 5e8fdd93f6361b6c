"""Learning-rate schedules: torch's schedulers as the oracle of factors, an autograd loop as that of the training."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import oracle
import pytest
import torch
from oracle import agree, engine, problem, reference, same_bits
from torch.optim import lr_scheduler

from fanin.choice import Choice, choose
from fanin.engine.schedules import factor
from fanin.engine.train import train
from fanin.recipe import Recipe, Trial

EPOCHS = 9
THEIRS = {
    "constant": ({}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    "step": ({"every": 2, "gamma": 0.3}, lambda o: lr_scheduler.StepLR(o, 2, 0.3)),
    "exponential": ({"gamma": 0.7}, lambda o: lr_scheduler.ExponentialLR(o, 0.7)),
    "linear": ({"final": 0.2}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, EPOCHS)),
    "cosine": ({"final": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, eta_min=0.1 * 0.5)),
}


def chosen(name: str, **options: Any) -> Choice:
    return choose("schedule", {"name": name} | options)


@pytest.mark.parametrize("name", THEIRS)
def test_factors_are_torchs(name):
    options, make = THEIRS[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = make(optimizer)
    for epoch in range(1, EPOCHS + 1):
        assert 0.5 * factor(chosen(name, **options), epoch, EPOCHS) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", THEIRS)
def test_warm_up_rises_to_one_and_the_schedule_follows(name):
    schedule, plain = chosen(name, warmup=3), chosen(name)
    found = [factor(schedule, epoch, EPOCHS) for epoch in range(1, EPOCHS + 1)]
    assert found[:3] == [0.25, 0.5, 0.75]
    assert found[3:] == [factor(plain, epoch, EPOCHS - 3) for epoch in range(1, EPOCHS - 2)]
    assert factor(chosen(name, warmup=20), 5, 9) == 5 / 21  # nothing but warm-up


OPTIMIZERS = ["sgd", "adam", "rmsprop", "adagrad", "asgd", {"name": "lbfgs", "lr": 0.1, "max_iter": 3}]


def scheduled(name: Any, schedule: Any, seed: int = 1) -> Trial:
    fields = {"hidden": [5], "epochs": 3, "batch_size": 20, "optimizer": name, "schedule": schedule}
    return Trial(Recipe.from_dict(fields), seed)


@pytest.mark.parametrize("name", OPTIMIZERS, ids=str)
def test_the_engine_follows_a_schedule(name):
    """The reference loop, with the rate of each epoch set by hand: it asks for the order once an epoch."""
    data, trial = problem(), scheduled(name, {"name": "exponential", "gamma": 0.3})
    made = []

    def noting(recipe, net):
        made.append(oracle_optimizer(recipe, net))
        return made[-1]

    class Ordering(oracle.Stream):
        def permutation(self, n):
            made[-1].param_groups[0]["lr"] = trial.recipe.optimizer["lr"] * 0.3 ** next(epochs)
            return super().permutation(n)

    oracle_optimizer, epochs = oracle.optimizer_for, iter(range(3))
    with patch.object(oracle, "optimizer_for", noting), patch.object(oracle, "Stream", Ordering):
        theirs = reference(trial, data)
    agree(engine(trial, data), theirs)
    with pytest.raises(AssertionError):
        agree(engine(scheduled(name, "constant"), data), theirs)


def test_members_follow_schedules_of_their_own():
    data = problem()
    trials = [scheduled("adam", schedule) for schedule in ("constant", "cosine", {"name": "constant", "warmup": 2})]
    together = train(trials, ["a", "b", "c"], data)
    for trial, outcome in zip(trials, together, strict=True):
        same_bits(outcome, train([trial], ["alone"], data)[0])
    with pytest.raises(AssertionError):
        same_bits(together[0], together[1])
