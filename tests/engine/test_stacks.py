"""Promise 1, to the bit: a trial's result is that of the trial alone, whoever shares its stack, in whatever slot.

The engine promises it wherever `exactness.stacks_exactly` says that this machine's products stack exactly; elsewhere
the driver trains every trial alone. On the BLAS path it should hold for odd shapes too, not only for multiples of a
vector (`test_exactness` counts for how many, lest these tests be skipped and nobody notice).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import oracle
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fanin.catalogue import ACTIVATIONS, OPTIMIZERS
from fanin.choice import choose
from fanin.engine import exactness, matmul
from fanin.engine.data import Data
from fanin.engine.train import train
from fanin.recipe import Recipe, Trial

ODD = oracle.problem(examples=50, features=7, classes=5, tests=11)
EVEN = oracle.problem(examples=64, features=32, classes=16, tests=11)


def check(trials: Sequence[Trial], data: Data, orders: Sequence[Sequence[int]] | None = None) -> None:
    alone = [train([trial], ["alone"], data)[0] for trial in trials]
    for order in orders or [range(len(trials))]:
        together = train([trials[m] for m in order], [f"t{m}" for m in order], data)
        for slot, m in enumerate(order):
            assert together[slot].record.trial_id == f"t{m}"
            oracle.same_bits(together[slot], alone[m])


def exact(recipe: Recipe, data: Data, members: int) -> bool:
    sizes = [data.features, *recipe.hidden, recipe.outputs or data.classes]
    return exactness.stacks_exactly(sizes, recipe.batch_size, members, precision=recipe.precision)


def require_exact(recipe: Recipe, data: Data, members: int) -> None:
    if not exact(recipe, data, members):
        pytest.skip("this machine's products do not stack exactly here; the driver trains alone")


def recipe_of(**fields: Any) -> Recipe:
    return Recipe(**{"hidden": (16, 16), "batch_size": 16, "epochs": 2} | fields)


VARIANTS: dict[str, dict[str, Any]] = {
    "none": {},
    "batch": {"normalization": "batch"},
    "dropout": {"dropout": 0.5},
    "both": {"normalization": "batch", "dropout": 0.25, "loss": "mse", "train_metrics": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("path", matmul.PATHS)
def test_every_activation(path: str, activation: str, variant: str) -> None:
    matmul.use(path)
    recipe = recipe_of(activation=activation, **VARIANTS[variant])
    require_exact(recipe, EVEN, 3)
    check([Trial(recipe, seed) for seed in range(3)], EVEN)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if o != "lbfgs"])
def test_every_optimizer_with_other_rates_beside(optimizer: str, variant: str) -> None:
    matmul.use("blas")
    recipes = [
        recipe_of(optimizer={"name": optimizer, "lr": lr}, **VARIANTS[variant]) for lr in (1e-3, 1e-2, 1e-3, 0.05)
    ]
    require_exact(recipes[0], EVEN, 4)
    check([Trial(r, seed) for seed, r in enumerate(recipes)], EVEN)


@pytest.mark.parametrize("path", matmul.PATHS)
@pytest.mark.parametrize("batch", [2, 4, 16])
def test_small_products_in_bfloat16(batch: int, path: str) -> None:
    """Too small alone for the library that multiplies the stack: each must be multiplied alone in the stack as well."""
    matmul.use(path)
    recipe = recipe_of(hidden=(32, 32, 32), batch_size=batch, epochs=1, precision="bf16")
    if path == "blas":
        assert exact(recipe, EVEN, 8)
    require_exact(recipe, EVEN, 8)  # the last layer is multiplied in float32
    check([Trial(recipe, seed) for seed in range(8)], EVEN)


@pytest.mark.parametrize("path", matmul.PATHS)
@pytest.mark.parametrize("members", [2, 3, 5, 8])
def test_any_size_of_stack_any_slot_any_order(members: int, path: str) -> None:
    matmul.use(path)
    recipe = recipe_of(normalization="batch", dropout=0.3)
    require_exact(recipe, EVEN, members)
    order = list(range(members))
    check([Trial(recipe, seed) for seed in range(members)], EVEN, [order, order[::-1], order[1:] + order[:1]])


def test_neighbours_that_differ_in_every_number() -> None:
    matmul.use("blas")
    recipes = [
        recipe_of(dropout=0.5),
        recipe_of(dropout=0.1, init={"name": "normal", "std": 0.3}, optimizer={"name": "adam", "lr": 0.1}),
        recipe_of(dropout=0.9, init="orthogonal", bias_init="zeros"),
        recipe_of(dropout=0.3, init="zeros", optimizer={"name": "adam", "betas": [0.5, 0.5], "amsgrad": True}),
        recipe_of(dropout=0.5, init={"name": "constant", "value": 0.0}, optimizer={"name": "adam", "eps": 1.0}),
    ]
    require_exact(recipes[0], EVEN, 5)
    check([Trial(r, 3) for r in recipes], EVEN, [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])


def test_the_same_trial_twice_in_one_stack() -> None:
    trial = Trial(recipe_of(dropout=0.5), 3)
    require_exact(trial.recipe, EVEN, 2)
    first, second = train([trial, trial], ["a", "b"], EVEN)
    oracle.same_bits(first, second)


@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if o != "lbfgs"])
def test_beside_a_neighbour_that_diverges(optimizer: str) -> None:
    matmul.use("blas")
    good = recipe_of(optimizer=optimizer, normalization="none", dropout=0.5)
    bad = replace(good, init=choose("init", {"name": "normal", "std": 1e30}))
    require_exact(good, EVEN, 3)
    trials = [Trial(good, 1), Trial(bad, 2), Trial(good, 3)]
    assert train([trials[1]], ["bad"], EVEN)[0].record.status == "diverged"
    check(trials, EVEN, [[0, 1, 2], [1, 0, 2], [2, 0, 1]])


@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_beside_a_neighbour_that_diverges_later(normalization: str) -> None:
    matmul.use("blas")
    good = recipe_of(optimizer={"name": "sgd", "lr": 0.1}, normalization=normalization)
    bad = replace(good, optimizer=choose("optimizer", {"name": "sgd", "lr": 1e30}))
    require_exact(good, EVEN, 3)
    trials = [Trial(good, 1), Trial(bad, 2), Trial(good, 3)]
    alone = [train([t], ["x"], EVEN)[0] for t in trials]
    together = train(trials, ["a", "b", "c"], EVEN)
    assert together[1].record.status == "diverged"
    for m in (0, 2):
        oracle.same_bits(together[m], alone[m])


def test_a_diverged_member_itself_is_the_same_alone() -> None:
    """Also its running statistics: they must not follow the neighbours' later batches."""
    matmul.use("blas")
    good = recipe_of(optimizer={"name": "sgd", "lr": 0.1}, normalization="batch")
    bad = replace(good, optimizer=choose("optimizer", {"name": "sgd", "lr": 1e30}))
    require_exact(good, EVEN, 2)
    trials = [Trial(bad, 2), Trial(good, 1)]
    oracle.same_bits(train(trials, ["b", "a"], EVEN)[0], train(trials[:1], ["b"], EVEN)[0])


# --- odd shapes


@pytest.mark.parametrize("batch_size", [7, 8, 25])
@pytest.mark.parametrize("variant", ["none", "batch", "dropout"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_odd_shapes_on_the_blas_path(activation: str, variant: str, batch_size: int) -> None:
    """7-13-5 networks: no row, no layer, no batch is a multiple of a vector register."""
    matmul.use("blas")
    recipe = recipe_of(hidden=(13,), batch_size=batch_size, activation=activation, epochs=1, **VARIANTS[variant])
    require_exact(recipe, ODD, 3)
    check([Trial(recipe, seed) for seed in range(3)], ODD)


@pytest.mark.parametrize("activation", ["sigmoid", "gelu", "relu", "softplus"])
@pytest.mark.parametrize("path", matmul.PATHS)
@pytest.mark.parametrize("batch_size", [1, 7, 10])
def test_odd_shapes_where_products_are_said_to_stack(path: str, batch_size: int, activation: str) -> None:
    """`stacks_exactly` is the driver's only guard, so a yes must cover the whole training, not the products alone."""
    matmul.use(path)
    recipe = recipe_of(hidden=(13, 9), batch_size=batch_size, activation=activation, epochs=1)
    for members in (2, 3):
        if exact(recipe, ODD, members):
            check([Trial(recipe, seed) for seed in range(members)], ODD)


shapes = st.fixed_dictionaries(
    {
        "hidden": st.lists(st.integers(1, 40), max_size=2).map(tuple),
        "activation": st.sampled_from(list(ACTIVATIONS)),
        "normalization": st.sampled_from(["none", "batch"]),
        "dropout": st.sampled_from([0.0, 0.5]),
        "optimizer": st.sampled_from([o for o in OPTIMIZERS if o != "lbfgs"]),
        "batch_size": st.integers(2, 25),
        "loss": st.sampled_from(["cross_entropy", "mse"]),
    }
)


@pytest.mark.parametrize("path", matmul.PATHS)
@given(
    fields=shapes,
    features=st.integers(1, 40),
    classes=st.integers(2, 12),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=4),
)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
def test_any_shape(path: str, fields: dict[str, Any], features: int, classes: int, seeds: list[int]) -> None:
    matmul.use(path)
    recipe = recipe_of(**fields, epochs=1)
    data = oracle.problem(examples=50, features=features, classes=classes, tests=11)
    assume(exact(recipe, data, len(seeds)))
    check([Trial(recipe, seed) for seed in seeds], data)


def test_the_comparison_of_bits_can_fail() -> None:
    trial = Trial(recipe_of(), 1)
    ours, theirs = train([trial], ["x"], EVEN)[0], train([trial], ["x"], EVEN)[0]
    ours.state["layers.1.weight"][3, 4] *= 1 + 2**-23
    with pytest.raises(AssertionError, match=r"layers\.1\.weight"):
        oracle.same_bits(ours, theirs)


def test_a_run_repeats_to_the_bit_whatever_the_global_generators_do() -> None:
    trial = Trial(recipe_of(dropout=0.5), 1)
    torch.manual_seed(1)
    first = train([trial], ["x"], EVEN)[0]
    torch.manual_seed(2)
    torch.rand(100)
    oracle.same_bits(train([trial], ["x"], EVEN)[0], first)


def test_the_global_generator_is_not_used() -> None:
    before = torch.get_rng_state()
    train([Trial(recipe_of(dropout=0.5), 1)], ["x"], EVEN)
    assert torch.equal(torch.get_rng_state(), before)
