"""The engine against the independent implementation: float64, 50 steps, to 1e-9, for all that the catalogue offers.

LBFGS is compared at full length only where its trajectory is not chaotic: its direction divides by curvatures
estimated from differences of gradients, and over changing mini-batches these differences are mostly noise, so that one
rounding in the last place grows by orders of magnitude a step (`test_lbfgs_amplifies_roundings_by_itself` shows it with
the reference alone). Hence a small rate and a short history in the matrix; full-sized settings over the first steps.
With identity activation under batch normalisation every `shift` but the last has a mathematically zero gradient too
(the next normalisation takes the mean away), which both sides compute as rounding noise: one hidden layer there.
"""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch

from fanin.catalogue import ACTIVATIONS, OPTIMIZERS
from fanin.recipe import Recipe, Trial

VARIANTS: dict[str, dict[str, Any]] = {
    "none": {},
    "batch": {"normalization": "batch"},
    "dropout": {"dropout": 0.5},
}
STEPS: dict[str, Any] = {"batch_size": 8, "epochs": 2}  # 2 epochs of 25 steps
LBFGS_STEPS: dict[str, Any] = {"batch_size": 100, "epochs": 25}  # 25 epochs of 2 steps
LBFGS: dict[str, Any] = {"name": "lbfgs", "lr": 0.01, "max_iter": 2, "history_size": 3}


def check(trial: Trial, data: Any = None, *, steps: int = 50, tolerance: float = 1e-9) -> None:
    data = data or oracle.problem()
    ours, theirs = oracle.engine(trial, data), oracle.reference(trial, data)
    assert len(ours.losses) == steps
    assert ours.outcome.record.status == "done"
    oracle.agree(ours, theirs, tolerance=tolerance)


def test_the_catalogue_is_covered() -> None:
    assert set(oracle.MODULES) == set(ACTIVATIONS)
    assert set(oracle.OPTIMIZERS) == set(OPTIMIZERS)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_activation_and_regularisation(optimizer: str, activation: str, variant: str) -> None:
    hidden = (5,) if (activation, variant) == ("identity", "batch") else (5, 4)
    steps, options = (LBFGS_STEPS, LBFGS) if optimizer == "lbfgs" else (STEPS, {"name": optimizer})
    recipe = Recipe(hidden=hidden, activation=activation, optimizer=options, **steps, **VARIANTS[variant])
    check(Trial(recipe, 3))


HYPERPARAMETERS: list[dict[str, Any]] = [
    {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"name": "sgd", "lr": 0.05, "momentum": 0.8, "dampening": 0.3},
    {"name": "adadelta", "lr": 0.7, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.02},
    {"name": "adagrad", "lr_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-7, "weight_decay": 0.01},
    {"name": "adam", "lr": 0.01, "betas": [0.8, 0.95], "eps": 1e-5, "weight_decay": 0.03, "amsgrad": True},
    {"name": "adamw", "lr": 0.01, "betas": [0.7, 0.9], "weight_decay": 0.2, "amsgrad": True},
    {"name": "adamw", "weight_decay": 0.0},
    {"name": "sparse_adam", "lr": 0.01, "betas": [0.5, 0.9], "eps": 1e-6},
    {"name": "adamax", "lr": 0.02, "betas": [0.6, 0.9], "eps": 1e-5, "weight_decay": 0.1},
    {"name": "asgd", "lr": 0.05, "lambd": 0.01, "alpha": 0.5, "t0": 10.0, "weight_decay": 0.01},
    {
        "name": "rmsprop",
        "lr": 0.01,
        "alpha": 0.9,
        "eps": 1e-5,
        "momentum": 0.5,
        "centered": True,
        "weight_decay": 0.1,
    },
    {"name": "rprop", "lr": 0.02, "etas": [0.4, 1.1], "step_sizes": [1e-4, 0.1]},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("optimizer", HYPERPARAMETERS, ids=lambda o: f"{o['name']}-{len(o)}")
def test_hyperparameters_and_losses(optimizer: dict[str, Any], loss: str, variant: str) -> None:
    recipe = Recipe(hidden=(5, 4), activation="tanh", optimizer=optimizer, loss=loss, **STEPS, **VARIANTS[variant])
    check(Trial(recipe, 5))


@pytest.mark.parametrize(
    "options",
    [
        {"line_search_fn": "strong_wolfe"},
        {"line_search_fn": "strong_wolfe", "lr": 0.3, "max_iter": 5, "history_size": 2},
        {"lr": 0.1, "max_iter": 20, "max_eval": 7, "history_size": 5},
        {"lr": 0.1, "max_iter": 8, "tolerance_grad": 1e-2},
        {"lr": 0.1, "max_iter": 8, "tolerance_change": 1e-1},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_lbfgs_options_over_the_first_steps(options: dict[str, Any], variant: str) -> None:
    recipe = Recipe(
        hidden=(5, 4),
        activation="tanh",
        optimizer={"name": "lbfgs"} | options,
        batch_size=200,
        epochs=1,
        **VARIANTS[variant],
    )
    check(Trial(recipe, 5), steps=1)


def test_lbfgs_amplifies_roundings_by_itself() -> None:
    # the reason for LBFGS's settings above: two references that start under 1e-8 apart part a thousandfold and more
    recipe = Recipe(
        hidden=(5, 4), activation="softsign", optimizer={"name": "lbfgs", "lr": 0.1, "max_iter": 3}, **STEPS
    )
    trial, data = Trial(recipe, 3), oracle.problem()
    shifted = oracle.problem()
    shifted.train_inputs[0, 0] *= 1 + 1e-7  # one float32 rounding of one input of one example
    gap = oracle.difference(oracle.reference(trial, shifted), oracle.reference(trial, data))
    start = abs(oracle.reference(trial, shifted).losses[0] - oracle.reference(trial, data).losses[0])
    assert start < 1e-8
    assert gap["losses"] > 1e3 * 1e-8


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rprop"])
@pytest.mark.parametrize(
    "shape",
    [{"hidden": ()}, {"hidden": (), "outputs": 5}, {"hidden": (4,), "outputs": 7}, {"hidden": (1, 1)}],
    ids=str,
)
def test_shapes(shape: dict[str, Any], optimizer: str, loss: str) -> None:
    check(Trial(Recipe(**shape, activation="tanh", optimizer=optimizer, loss=loss, **STEPS), 7))


@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_depth_and_everything_at_once(normalization: str) -> None:
    recipe = Recipe(
        hidden=(7, 5, 6, 4),
        outputs=4,
        activation={"name": "leaky_relu", "negative_slope": 0.2},
        init="orthogonal",
        bias_init={"name": "normal", "std": 0.1},
        normalization=normalization,
        dropout=0.25,
        optimizer={"name": "adam", "amsgrad": True},
        **STEPS,
    )
    check(Trial(recipe, 11))


def test_batch_of_one() -> None:
    check(Trial(Recipe(hidden=(5,), activation="elu", batch_size=1, epochs=1), 1), oracle.problem(examples=50))


def test_last_incomplete_batch_is_dropped() -> None:
    check(Trial(Recipe(hidden=(5,), activation="elu", **STEPS), 1), oracle.problem(examples=207))


@pytest.mark.parametrize("scale", [1 / 255, 0.5])
def test_bytes_are_scaled(scale: float) -> None:
    check(Trial(Recipe(hidden=(5,), activation="elu", **STEPS), 1), oracle.problem(bytes_=True, scale=scale))


@pytest.mark.parametrize("p", [0.5, 0.25, 0.3, 0.1, 0.9])
def test_dropout_rates(p: float) -> None:
    check(Trial(Recipe(hidden=(5, 6), activation="tanh", dropout=p, optimizer="sgd", **STEPS), 2))


def test_with_autograds_noise_left_in_the_biases_before_batch_normalisation() -> None:
    # plain SGD does not amplify the noise, so here nothing is set to zero and still everything agrees
    recipe = Recipe(hidden=(5, 4), activation="tanh", normalization="batch", optimizer="sgd", **STEPS)
    trial, data = Trial(recipe, 3), oracle.problem()
    oracle.agree(oracle.engine(trial, data), oracle.reference(trial, data, exact_zeros=False))


def test_the_bias_before_batch_normalisation_stays_exactly_where_it_was() -> None:
    recipe = Recipe(hidden=(5, 4), activation="tanh", normalization="batch", optimizer="rprop", **STEPS)
    trial, data = Trial(recipe, 3), oracle.problem()
    start, end = oracle.start_of(trial, data, torch.float64), oracle.engine(trial, data).state
    for layer in (0, 1):
        assert torch.equal(start[f"layers.{layer}.bias"], end[f"layers.{layer}.bias"])
    assert not torch.equal(start["layers.2.bias"], end["layers.2.bias"])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if o != "lbfgs"])
def test_float32_losses_over_an_epoch(optimizer: str, variant: str) -> None:
    recipe = Recipe(hidden=(16, 16), optimizer=optimizer, batch_size=8, epochs=1, **VARIANTS[variant])
    trial, data = Trial(recipe, 3), oracle.problem(features=20)
    ours = oracle.engine(trial, data, dtype=torch.float32)
    theirs = oracle.reference(trial, data, dtype=torch.float64)
    assert len(ours.losses) == 25
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)


def test_train_cost_is_the_mean_of_the_steps_losses() -> None:
    trial, data = Trial(Recipe(hidden=(5,), batch_size=8, epochs=2), 3), oracle.problem()
    run = oracle.engine(trial, data)
    for epoch in run.outcome.record.epochs:
        steps = run.losses[25 * (epoch.epoch - 1) : 25 * epoch.epoch]
        assert epoch.train_cost == pytest.approx(sum(steps) / 25, rel=1e-14)
