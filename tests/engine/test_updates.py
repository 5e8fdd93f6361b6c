"""Optimiser steps of whole stacks against torch.optim, member by member, each with its own hyperparameters."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch

from fanin.catalogue import STACKED_OPTIMIZERS
from fanin.choice import Choice, choose
from fanin.engine.card import updates
from fanin.engine.card.updates import Update
from fanin.engine.network import Network
from fanin.recipe import Recipe

# (options of the first member, of the second): what may differ in one stack
STACKS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sgd", {}, {"lr": 0.1, "weight_decay": 0.2}),
    ("sgd", {"momentum": 0.9}, {"momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9, "nesterov": True}, {"momentum": 0.2, "nesterov": True, "lr": 0.3}),
    ("adam", {}, {"lr": 0.1, "betas": [0.5, 0.7], "eps": 1e-3, "weight_decay": 0.3}),
    ("adam", {"amsgrad": True}, {"amsgrad": True, "betas": [0.2, 0.5]}),
    ("adamw", {}, {"lr": 0.1, "weight_decay": 0.5}),
    ("adamw", {"amsgrad": True}, {"amsgrad": True, "weight_decay": 0.0}),
    ("rmsprop", {}, {"lr": 0.1, "alpha": 0.5, "weight_decay": 0.2}),
    ("rmsprop", {"momentum": 0.9}, {"momentum": 0.3, "eps": 1e-2}),
    ("rmsprop", {"centered": True}, {"centered": True, "alpha": 0.7}),
    ("rmsprop", {"centered": True, "momentum": 0.5}, {"centered": True, "momentum": 0.1}),
]
STEPS = 12


def network_of(members: int, dtype: torch.dtype = torch.float64) -> Network:
    network = Network(Recipe(hidden=(3,)), [4, 3, 2], members, dtype=dtype, device=torch.device("cpu"))
    network.parameters.normal_(generator=torch.Generator().manual_seed(0))
    return network


def gradient(step: int, length: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(step), dtype=torch.float64).to(dtype)


def reference(choice: Choice, row: torch.Tensor, steps: range) -> torch.Tensor:
    """torch.optim's plain loop over these steps."""
    row = row.clone().requires_grad_()
    optimizer = oracle.OPTIMIZERS[choice.name]([row], **choice.keywords(), foreach=False)
    for step in steps:
        row.grad = gradient(step, len(row), row.dtype)
        optimizer.step()
    return row.detach()


def move(network: Network, update: Update, step: int, at: int, alive: list[bool]) -> None:
    length, dtype = network.gradients.shape[1], network.gradients.dtype
    network.gradients.copy_(gradient(step, length, dtype).expand_as(network.gradients))
    update.step(torch.tensor([at]), torch.tensor(alive))


def test_every_stacked_optimiser_is_there() -> None:
    assert set(updates._COEFFICIENTS) == set(updates._PLAIN) == STACKED_OPTIMIZERS
    assert {name for name, *_ in STACKS} == STACKED_OPTIMIZERS


@pytest.mark.parametrize(("name", "first", "second"), STACKS, ids=str)
def test_steps_are_torch_optims(name: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    choices = [choose("optimizer", {"name": name, **options}) for options in (first, second)]
    network = network_of(3)
    start = network.parameters.clone()
    update = Update(choices[0], network)
    for m, choice in enumerate(choices):  # the third slot stays empty
        update.admit(m, choice)
    for step in range(STEPS):
        if step % 4 == 0:  # epochs of four steps: bias corrections go on
            update.begin_epoch(4)
        move(network, update, step, step % 4, [True, True, False])
    for m, choice in enumerate(choices):
        wanted = reference(choice, start[m], range(STEPS))
        assert torch.allclose(network.parameters[m], wanted, rtol=1e-12, atol=1e-14)
    assert not torch.equal(network.parameters[0], network.parameters[1])
    assert torch.equal(network.parameters[2], start[2])


@pytest.mark.parametrize(("name", "first", "second"), STACKS, ids=str)
def test_a_dead_members_nan_goes_nowhere(name: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    choices = [choose("optimizer", {"name": name, **options}) for options in (first, second)]
    ends = []
    for poisoned in (False, True):
        network = network_of(2)
        update = Update(choices[0], network)
        for m, choice in enumerate(choices):
            update.admit(m, choice)
        update.begin_epoch(STEPS)
        for step in range(STEPS):
            length = network.gradients.shape[1]
            network.gradients.copy_(gradient(step, length).expand(2, -1))
            if poisoned and step >= 5:
                network.gradients[1] = float("nan")
            update.step(torch.tensor([step]), torch.tensor([True, step < 5]))
        ends.append(network.parameters)
    assert torch.equal(ends[0], ends[1])
    assert ends[1].isfinite().all()


def test_a_slot_begins_anew() -> None:
    choice = choose("optimizer", {"name": "adam", "amsgrad": True})
    network = network_of(2)
    update = Update(choice, network)
    update.admit(0, choice)
    update.begin_epoch(STEPS)
    for step in range(STEPS):
        move(network, update, step, step, [True, False])
    start = network.parameters.clone()
    update.admit(0, choice)
    update.begin_epoch(STEPS)
    for step in range(STEPS):
        move(network, update, step, step, [True, False])
    assert torch.allclose(network.parameters[0], reference(choice, start[0], range(STEPS)), rtol=1e-12)


def test_operations_must_be_the_same_in_a_stack() -> None:
    update = Update(choose("optimizer", "adam"), network_of(2))
    for other in ({"name": "adam", "amsgrad": True}, "adamw"):
        with pytest.raises(ValueError, match="expected adam"):
            update.admit(0, choose("optimizer", other))
