"""Hyperparameters that differ by member reach the right member, and each member moves by its own gradient alone."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch

from fanin.catalogue import OPTIMIZERS
from fanin.engine.network import Network
from fanin.engine.optimizers import TORCH_CLASSES, Optimizer
from fanin.recipe import Recipe, Trial

ALL = [name for name in OPTIMIZERS if name != "lbfgs"]


def stack(optimizers: list[dict[str, Any]]) -> tuple[Network, Optimizer]:
    trials = [Trial(Recipe(hidden=(3,), optimizer=o), 1) for o in optimizers]
    network = Network(trials[0].recipe, [4, 3, 2], len(trials), dtype=torch.float64, device=torch.device("cpu"))
    network.initialize(trials)
    return network, Optimizer(trials, network)


def move(network: Network, optimizer: Optimizer, steps: int = 3) -> None:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        gradient = torch.randn(network.gradients.shape[1], generator=generator, dtype=torch.float64)
        network.gradients.copy_(gradient.expand_as(network.gradients))
        optimizer.step(torch.zeros(len(network.parameters)), lambda: 0.0)


def test_every_name_resolves() -> None:
    assert {name: getattr(torch.optim, TORCH_CLASSES[name]) for name in TORCH_CLASSES} == oracle.OPTIMIZERS


@pytest.mark.parametrize("name", ALL)
def test_each_member_has_its_own_rate(name: str) -> None:
    rates = [1e-3, 1e-2, 1e-3, 0.1]
    network, optimizer = stack([{"name": name, "lr": lr} for lr in rates])
    start = network.parameters.clone()
    assert torch.equal(start[0], start[3])
    move(network, optimizer)
    for m, lr in enumerate(rates):
        alone, its_optimizer = stack([{"name": name, "lr": lr}])
        move(alone, its_optimizer)
        assert torch.equal(network.parameters[m], alone.parameters[0])
    assert not torch.equal(network.parameters[0], network.parameters[1])
    assert torch.equal(network.parameters[0], network.parameters[2])


def options() -> list[tuple[str, str, Any]]:
    other: dict[str, Any] = {
        "momentum": 0.9,
        "dampening": 0.5,
        "nesterov": True,
        "weight_decay": 0.3,
        "rho": 0.5,
        "eps": 0.1,
        "lr_decay": 0.5,
        "initial_accumulator_value": 0.5,
        "betas": [0.5, 0.6],
        "amsgrad": True,
        "lambd": 0.1,
        "alpha": 0.5,
        "t0": 1.0,
        "centered": True,
        "etas": [0.3, 1.5],
        "step_sizes": [5e-3, 1e-2],
        "lr": 0.05,
    }
    return [(name, option, other[option]) for name in ALL for option in OPTIMIZERS[name].options]


@pytest.mark.parametrize(("name", "option", "value"), options())
def test_every_option_matters_to_its_member_only(name: str, option: str, value: Any) -> None:
    """An option that a group ignores would leave member 1 equal to member 0."""
    needed = {"momentum": 0.9} if option in {"nesterov", "dampening"} else {}
    plain = {"name": name} | needed
    network, optimizer = stack([plain, plain | {option: value}, plain])
    move(network, optimizer, steps=12)
    if (name, option) == ("asgd", "alpha"):
        # the rate's power, over lambd * lr * t: 1e-6 a step at the defaults
        gap = (network.parameters[0] - network.parameters[1]).abs().max()
        assert 0 < float(gap) < 1e-4
        return
    if (name, option) == ("asgd", "t0"):
        # the start of the average, which torch.optim keeps beside the weights and never puts into them
        assert torch.equal(network.parameters[0], network.parameters[1])
        return
    assert not torch.equal(network.parameters[0], network.parameters[1])
    assert torch.equal(network.parameters[0], network.parameters[2])


@pytest.mark.parametrize("name", ALL)
def test_a_frozen_member_is_not_touched_nor_are_its_neighbours(name: str) -> None:
    network, optimizer = stack(
        [{"name": name, "weight_decay": 0.1} if "weight_decay" in OPTIMIZERS[name].options else {"name": name}] * 3
    )
    free, its_optimizer = stack([{"name": name}] * 3)
    move(network, optimizer, 2)
    move(free, its_optimizer, 2)
    frozen = network.parameters[1].clone()
    optimizer.freeze(1)
    for step in range(3):
        network.gradients.fill_(0.1 * step)
        network.gradients[1].fill_(float("nan"))
        optimizer.step(torch.zeros(3), lambda: 0.0)
    assert torch.equal(network.parameters[1], frozen)
    assert bool(network.parameters.isfinite().all())
    assert torch.equal(network.parameters[0], network.parameters[2])


def test_lbfgs_calls_again_for_all_but_the_first_evaluation() -> None:
    network, optimizer = stack([{"name": "lbfgs", "max_iter": 4, "lr": 0.1}])
    calls = []

    def again() -> float:
        calls.append(1)
        network.gradients.copy_(2 * network.parameters)
        return float(network.parameters.square().sum())

    first = again()
    calls.clear()
    optimizer.step(torch.tensor([first]), again)
    assert len(calls) == 3  # four iterations, three of them followed by an evaluation
    assert float(network.parameters.square().sum()) < first


def test_lbfgs_is_not_stacked() -> None:
    with pytest.raises(ValueError, match="stack of one"):
        stack([{"name": "lbfgs"}, {"name": "lbfgs"}])
