"""Cohorts: every trial once, equal shapes only, and no idle worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanin.driver.plan import cohort_key, distinct, epoch_seconds, plan, stack_size, step_flop
from fanin.recipe import Recipe, Trial
from tests.test_recipe import recipes


@given(st.lists(st.tuples(recipes, st.integers(0, 3)), max_size=30), st.integers(1, 8))
def test_every_trial_is_in_one_cohort_of_its_kind(drawn, workers):
    trials = distinct([(t := Trial(Recipe.from_dict(recipe), seed), t.id("d")) for recipe, seed in drawn])
    cohorts = plan(trials, features=64, classes=10, workers=workers)
    placed = [trial_id for cohort in cohorts for trial_id in cohort.ids]
    assert sorted(placed) == sorted(trial_id for _, trial_id in trials)
    for cohort in cohorts:
        assert {cohort_key(trial.recipe) for trial in cohort.trials} == {cohort_key(cohort.recipe)}
        assert len(cohort.trials) <= stack_size(cohort.recipe, 64, 10)


def test_distinct_keeps_the_first_place():
    trials = [(Trial(Recipe(epochs=e), 0), str(e)) for e in (1, 2, 1, 3, 2)]
    assert [trial_id for _, trial_id in distinct(trials)] == ["1", "2", "3"]


def test_numbers_share_a_cohort_and_shapes_do_not():
    base = cohort_key(Recipe(dropout=0.1))
    assert cohort_key(Recipe(dropout=0.5, init="zeros", optimizer={"name": "adam", "lr": 1.0})) == base
    for other in (Recipe(), Recipe(dropout=0.1, hidden=(3,)), Recipe(dropout=0.1, optimizer="sgd")):
        assert cohort_key(other) != base


def test_stacks_do_not_starve_workers():
    trials = [(Trial(Recipe(hidden=()), seed), str(seed)) for seed in range(6)]
    assert [len(c.trials) for c in plan(trials, features=64, classes=10, workers=2)] == [3, 3]
    assert [len(c.trials) for c in plan(trials, features=64, classes=10, workers=8)] == [1] * 6


def test_small_networks_are_stacked_and_large_ones_are_not():
    assert stack_size(Recipe(hidden=()), 784, 10) > 1
    assert stack_size(Recipe(hidden=(512,) * 4), 784, 10) == 1
    assert stack_size(Recipe(hidden=(), optimizer="lbfgs"), 64, 10) == 1
    assert stack_size(Recipe(hidden=(), batch_size=1), 64, 10) == 1


def test_flop_of_the_lab_network():
    # 784-256-256-10, batch 100: 121 MFLOP a step
    assert step_flop(Recipe(), 784, 10) == 2 * 100 * (3 * (784 * 256 + 256 * 256 + 2560) - 784 * 256)


def test_more_work_takes_longer():
    sizes = {"examples": 1000, "tests": 100, "features": 64, "classes": 10}
    base = epoch_seconds(Recipe(), **sizes)
    assert epoch_seconds(Recipe(hidden=(512,) * 4), **sizes) > base
    assert epoch_seconds(Recipe(train_metrics=True), **sizes) > base
    assert epoch_seconds(Recipe(optimizer="lbfgs"), **sizes) > base


def test_a_card_takes_large_cohorts_of_what_it_can_stack() -> None:
    sizes = {"adam": 256, "sgd": 256, "adadelta": 2, "lbfgs": 1}
    for name, size in sizes.items():
        assert stack_size(Recipe(optimizer=name), 784, 10, "cuda") == size
        assert stack_size(Recipe(optimizer=name), 784, 10) <= 2


def test_an_optimisers_flags_divide_cohorts() -> None:
    def key(**options: object) -> tuple[object, ...]:
        return cohort_key(Recipe.from_dict({"optimizer": {"name": "sgd", **options}}))

    assert key(momentum=0.5) == key(momentum=0.9, lr=1.0)
    assert key(momentum=0.5) != key()
    assert key(momentum=0.5) != key(momentum=0.5, nesterov=True)
