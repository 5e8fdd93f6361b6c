"""Promise 2: divergence is data, with the epoch, step and layer at which the numbers stopped being finite."""

from __future__ import annotations

import math
from typing import Any

import oracle
import pytest
import torch

from fanin.engine import train as training
from fanin.engine.train import train
from fanin.recipe import Recipe, Trial
from fanin.record import Divergence, Record

DATA = oracle.problem(examples=64, features=16, classes=4, tests=11)


def run(*recipes: Recipe, **fields: Any) -> list[training.Outcome]:
    trials = [Trial(r, seed + 1) for seed, r in enumerate(recipes)]
    return train(trials, [str(t.seed) for t in trials], DATA, **fields)


def recipe_of(**fields: Any) -> Recipe:
    return Recipe(**{"hidden": (8, 8, 8), "batch_size": 16, "epochs": 3, "optimizer": "sgd"} | fields)


# float32 ends near 3.4e38; layer l's values are of the order of std^l times a few
@pytest.mark.parametrize(
    ("std", "layer"), [(3e37, 2), (1e25, 2), (1e15, 3), (3e9, None)], ids=["3e37", "1e25", "1e15", "3e9"]
)
def test_the_layer_in_which_the_forward_pass_overflows(std: float, layer: int | None) -> None:
    # at 3e9 all four layers stay finite (about 1e38): nothing has diverged at the first step's forward pass
    record = run(recipe_of(init={"name": "normal", "std": std}, bias_init="zeros"))[0].record
    if layer is None:
        assert record.divergence is None or record.divergence != Divergence(1, 1, 1)
        return
    assert record.divergence == Divergence(epoch=1, step=1, layer=layer)
    assert record.status == "diverged"
    assert record.epochs == ()
    assert record.final is None


def test_the_last_layer_overflows() -> None:
    record = run(recipe_of(hidden=(8,), init={"name": "normal", "std": 1e25}))[0].record
    assert record.divergence == Divergence(1, 1, 2)


def test_softmax_regression_overflows_in_its_only_layer() -> None:
    recipe = recipe_of(hidden=(), init={"name": "constant", "value": 3e38}, bias_init="zeros")
    assert run(recipe)[0].record.divergence == Divergence(1, 1, 1)


def test_only_the_loss_overflows() -> None:
    recipe = recipe_of(hidden=(), loss="mse", init={"name": "normal", "std": 1e25})
    assert run(recipe)[0].record.divergence == Divergence(1, 1, None)


def test_a_step_too_large_is_seen_one_step_later() -> None:
    record = run(recipe_of(optimizer={"name": "sgd", "lr": 1e30}))[0].record
    assert (record.divergence.epoch, record.divergence.step) == (1, 2)


def test_a_known_step_of_a_later_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    # member 1's second layer is poisoned before epoch 2, step 3 (the seventh step of four a epoch)
    step, calls = training.Optimizer.step, [0]

    def poisoned(self: Any, loss: torch.Tensor, again: Any) -> None:
        step(self, loss, again)
        calls[0] += 1
        if calls[0] == 6:
            networks[0].layers[1].weight[1, 0, 0] = float("inf")

    networks: list[Any] = []
    build = training.Network

    def noted(*args: Any, **kwargs: Any) -> Any:
        networks.append(build(*args, **kwargs))
        return networks[-1]

    alone = run(recipe_of())[0]
    monkeypatch.setattr(training, "Network", noted)
    monkeypatch.setattr(training.Optimizer, "step", poisoned)
    good, bad = run(recipe_of(), recipe_of())
    assert bad.record.divergence == Divergence(epoch=2, step=3, layer=2)
    assert [e.epoch for e in bad.record.epochs] == [1]
    assert sorted({s.epoch for s in bad.record.signal}) == [0, 1]
    assert good.record.status == "done"
    for name, tensor in alone.state.items():
        assert torch.equal(good.state[name], tensor)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad", "rmsprop", "asgd", "adadelta", "adamw"])
def test_a_frozen_members_parameters_stay_as_they_were(optimizer: str) -> None:
    """Frozen at its first step, hence at its start, while a neighbour trains on for 12 steps."""
    bad = recipe_of(optimizer=optimizer, init={"name": "normal", "std": 1e25}, epochs=3)
    good, frozen = run(recipe_of(optimizer=optimizer), bad)
    assert good.record.status == "done"
    assert frozen.record.divergence == Divergence(1, 1, 2)
    start = oracle.start_of(Trial(bad, 2), DATA, torch.float32)
    for name, tensor in frozen.state.items():
        assert tensor.isfinite().all()
        assert torch.equal(tensor, start[name]), name


def test_a_diverged_trial_leaves_finite_parameters() -> None:
    state = run(recipe_of(optimizer={"name": "sgd", "lr": 1e30}), recipe_of())[0].state
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_a_cohort_that_is_all_dead_ends_early() -> None:
    bad = recipe_of(init={"name": "normal", "std": 1e30}, epochs=1000)
    epochs: list[int] = []
    with oracle.watched() as losses:
        outcomes = run(bad, bad, bad, on_epoch=epochs.append)
    assert losses == []  # not even one step
    assert epochs == []
    assert [o.record.status for o in outcomes] == ["diverged"] * 3


def test_members_may_die_one_after_the_other() -> None:
    first = recipe_of(init={"name": "normal", "std": 1e30}, epochs=1000)
    second = recipe_of(optimizer={"name": "sgd", "lr": 1e30}, epochs=1000)
    with oracle.watched() as losses:
        a, b = run(first, second)
    assert (a.record.divergence.step, b.record.divergence.step) == (1, 2)
    assert len(losses) == 1


def test_on_epoch_is_called_after_each_epoch() -> None:
    epochs: list[int] = []
    run(recipe_of(), on_epoch=epochs.append)
    assert epochs == [1, 1, 1]  # members that went through it


def finite(record: Record) -> bool:
    numbers = [
        x
        for e in record.epochs
        for x in (
            e.train_cost,
            e.test_loss,
            e.test_accuracy,
            e.accuracy_on_raw_pixels,
            e.train_loss,
            e.train_accuracy,
        )
        if x is not None
    ]
    return all(math.isfinite(x) for x in numbers)


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
def test_divergence_in_an_epochs_last_step(optimizer: str, epochs: int) -> None:
    """The step that ruins the parameters is the epoch's last: the epoch's test loss is not finite.

    Epochs hold only what came before, and a trial whose last numbers are NaN is not "done".
    """
    recipe = recipe_of(batch_size=64, optimizer={"name": optimizer, "lr": 1e30}, epochs=epochs)
    record = run(recipe)[0].record
    assert record.status == "diverged"
    assert finite(record)
