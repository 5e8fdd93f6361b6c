"""Cohorts: which trials are trained together, and about how much work each is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fanin.execution import optimizer_flags, steps_on_card
from fanin.recipe import Recipe, Trial

# One thread's products run at about this rate, and each tensor operation costs about this much besides: rough figures,
# good enough to weigh trials against each other for the progress bar and to see which networks are too small to fill
# a core.
_FLOP_PER_SECOND = 1.2e11
_SECONDS_PER_LAYER = 5e-5

# A layer's share of a step under which stacking pays, and the largest stack that still fits the cache (measured, see
# docs/design/engine.md).
_FILLED = 8.2e7
_LARGEST_STACK = 8
# A card's bucket has up to 128 slots; the others wait for those whose trials end early.
_LARGEST_ON_A_CARD = 256


@dataclass
class Cohort:
    """Trials whose recipes differ in numbers only, and how far they have come.

    ids: the trials' on the data at hand. attempts: how many workers died over them. work_done: of the current attempt.
    """

    trials: list[Trial]
    ids: list[str]
    attempts: int = 0
    work_done: float = 0.0

    @property
    def recipe(self) -> Recipe:
        """The first trial's recipe: shapes and operations are the same in all."""
        return self.trials[0].recipe

    def halves(self) -> list[Cohort]:
        """Its trials in two cohorts, the first the larger if they are odd."""
        middle = -(-len(self.trials) // 2)
        return [Cohort(self.trials[part], self.ids[part]) for part in (slice(middle), slice(middle, None))]


def cohort_key(recipe: Recipe) -> tuple[object, ...]:
    """What changes shapes or operations; recipes with equal keys may share a stack."""
    return (
        recipe.model,
        recipe.hidden,
        recipe.outputs,
        recipe.activation,
        recipe.normalization,
        recipe.dropout > 0,
        recipe.optimizer.name,
        tuple(optimizer_flags(recipe.optimizer).items()),
        recipe.loss,
        recipe.precision,
        recipe.batch_size,
        recipe.epochs,
        recipe.labels,
        recipe.train_metrics,
    )


def plan(
    trials: Iterable[tuple[Trial, str]],
    *,
    features: int,
    classes: int,
    workers: int,
    device: str = "cpu",
    begun: Sequence[Sequence[str]] = (),
) -> list[Cohort]:
    """Cohorts in the order in which their first trials appear; no stack is so large that a worker would stand idle.

    begun: stacks, by their trials' ids, that an earlier run left with a check-point: they come first, and as they were.
    """
    left = {trial_id: trial for trial, trial_id in trials}
    cohorts = []
    for ids in begun:
        if left.keys() >= set(ids):  # a trial may stand in two check-points: of a stack, and of its half
            cohorts.append(Cohort([left.pop(trial_id) for trial_id in ids], list(ids)))
    groups: dict[tuple[object, ...], list[tuple[Trial, str]]] = {}
    for trial_id, trial in left.items():
        groups.setdefault(cohort_key(trial.recipe), []).append((trial, trial_id))
    for members in groups.values():
        size = min(stack_size(members[0][0].recipe, features, classes, device), -(-len(members) // workers))
        for start in range(0, len(members), size):
            part = members[start : start + size]
            cohorts.append(Cohort([t for t, _ in part], [i for _, i in part]))
    return cohorts


def stack_size(recipe: Recipe, features: int, classes: int, device: str = "cpu") -> int:
    """Members of a stack: on a CPU 1 for a network that fills a core alone, more for a small one; on a card many.

    LBFGS searches along one network's direction, and products of single examples do not stack exactly: both go alone,
    and so does a network of the user's own, which autograd trains.
    """
    if recipe.model is not None:
        return 1
    if device == "cuda" and steps_on_card(recipe):
        return _LARGEST_ON_A_CARD
    if recipe.optimizer.name == "lbfgs" or recipe.batch_size == 1:
        return 1
    layers = len(recipe.hidden) + 1
    return max(1, min(_LARGEST_STACK, int(_FILLED * layers / step_flop(recipe, features, classes))))


def step_flop(recipe: Recipe, features: int, classes: int) -> float:
    """Floating-point operations of one step's products: forward, weight gradients, and gradients by hidden layers."""
    products = _products(recipe, features, classes)
    return 2.0 * recipe.batch_size * (3 * sum(products) - products[0])


def _products(recipe: Recipe, features: int, classes: int) -> list[int]:
    sizes = [features, *recipe.hidden, recipe.outputs or classes]
    return [a * b for a, b in pairwise(sizes)]


def epoch_seconds(recipe: Recipe, *, examples: int, tests: int, features: int, classes: int) -> float:
    """About how long an epoch of one trial takes on one core; only ratios matter.

    A network of the user's own is taken for a perceptron of the usual size: who knows what it holds.
    """
    steps = (recipe.labels or examples) // recipe.batch_size
    evaluations = 10 if recipe.optimizer.name == "lbfgs" else 1
    layers = len(recipe.hidden) + 1
    training = step_flop(recipe, features, classes) / _FLOP_PER_SECOND + _SECONDS_PER_LAYER * layers
    scored = 2 * tests + (examples if recipe.train_metrics else 0)
    scoring = 2.0 * scored * sum(_products(recipe, features, classes)) / _FLOP_PER_SECOND
    return steps * evaluations * training + scoring


def distinct(trials: Iterable[tuple[Trial, str]]) -> list[tuple[Trial, str]]:
    """Each trial once, where it first appears: arms of several studies may share trials."""
    first: dict[str, tuple[Trial, str]] = {}
    for trial, trial_id in trials:
        first.setdefault(trial_id, (trial, trial_id))
    return list(first.values())
