"""Pre-training in a stack: what pretrain_ does to the trial's own network, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from torch import nn

import fanin.pretraining.pretrain
from fanin.engine.export import to_sequential
from fanin.engine.network import Network, widths
from fanin.engine.pretraining import pretrain
from fanin.engine.train import train
from fanin.errors import RecipeError
from fanin.pretraining.pretrain import pretrain_
from fanin.recipe import Recipe, Trial

DATA = oracle.problem(examples=120, features=9, classes=4, bytes_=True, scale=1 / 255)
METHODS = ["dbn", "autoencoder", {"name": "denoising", "corruption": "gaussian"}]


def recipe(method: Any, **fields: Any) -> Recipe:
    plain = {"name": method} if isinstance(method, str) else method
    chosen = plain if plain["name"] == "none" else plain | {"epochs": 2, "batch_size": 30}
    base = {"hidden": [12, 10], "activation": "sigmoid", "batch_size": 40, "epochs": 2, "pretraining": chosen}
    return Recipe.from_dict(base | fields)


def network(trials: list[Trial]) -> Network:
    sizes = widths(trials[0].recipe, 9, 4)
    found = Network(trials[0].recipe, sizes, len(trials), dtype=torch.float64, device=torch.device("cpu"))
    found.initialize(trials)
    return found


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_member_is_pre_trained_as_its_own_plain_network(method: Any) -> None:
    trials = [Trial(recipe(method), seed) for seed in (3, 8)]
    stack, drawn = network(trials), network(trials)
    module = to_sequential(trials[1].recipe, drawn.state(1))
    options = trials[1].recipe.pretraining.keywords()
    pretrain_(module, DATA.train_inputs.double() / 255, method=trials[1].recipe.pretraining.name, seed=8, **options)
    pretrain(stack, 1, trials[1], DATA)
    plain = [part for part in module if isinstance(part, nn.Linear)]
    for i, linear in enumerate(plain):
        torch.testing.assert_close(stack.state(1)[f"layers.{i}.weight"], linear.weight.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(stack.state(1)[f"layers.{i}.bias"], linear.bias.detach(), rtol=1e-9, atol=1e-12)
        same = torch.equal(stack.state(1)[f"layers.{i}.weight"], drawn.state(1)[f"layers.{i}.weight"])
        assert same == (i == 2)  # the last layer is as it was drawn
    assert all(torch.equal(value, drawn.state(0)[name]) for name, value in stack.state(0).items())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_training_begins_with_it_and_does_not_depend_on_the_stack(method: Any) -> None:
    trials = [Trial(recipe(method), seed) for seed in (3, 8)]
    together = train(trials, ["a", "b"], DATA)
    alone = train(trials[1:], ["b"], DATA)
    assert together[1].record.signal == alone[0].record.signal
    plain = train([Trial(recipe("none"), 8)], ["c"], DATA)
    assert plain[0].record.signal[0] != alone[0].record.signal[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": "relu"}, "pretraining: the units of a dbn are sigmoid; got activation 'relu'"),
        ({"normalization": "batch"}, "pretraining: dbn knows nothing of normalisation"),
        ({"hidden": []}, "pretraining: dbn trains hidden layers, and hidden is empty"),
    ],
)
def test_recipes_that_cannot_be_pre_trained(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe("dbn", **fields)


def test_pre_training_that_diverges_is_a_trial_that_diverges() -> None:
    wild = {"name": "autoencoder", "lr": 1e38}
    (outcome,) = train([Trial(recipe(wild), 3)], ["a"], DATA, dtype=torch.float64)
    assert outcome.record.status == "diverged"
    assert outcome.record.divergence is not None
    assert (outcome.record.divergence.epoch, outcome.record.divergence.step) == (1, 1)


def test_trials_of_equal_seeds_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = dataclasses.replace(DATA, room=tmp_path)
    few, all_, other = (Trial(recipe("dbn", labels=n), seed) for n, seed in ((60, 3), (None, 3), (None, 4)))
    train([few], ["a"], shared)
    assert len(list(tmp_path.iterdir())) == 1
    alone = train([all_], ["b"], DATA)
    monkeypatch.setattr(fanin.pretraining.pretrain, "pretrain_", _not_again)
    (found,) = train([all_], ["b"], shared)
    assert found.record.signal == alone[0].record.signal
    with pytest.raises(AssertionError, match="trained again"):
        train([other], ["c"], shared)


def _not_again(*_: Any, **__: Any) -> None:
    raise AssertionError("trained again")
