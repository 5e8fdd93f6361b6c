"""Cells of a factorial: what is trained at each combination of levels, and the metric that comes out, by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanin.choice import Choice
from fanin.errors import FaninError, RecipeError, nearest
from fanin.recipe import Recipe
from fanin.settings import assign
from fanin.study import Arm, Study

if TYPE_CHECKING:
    from fanin.record import Record
    from fanin.training import Training

METRICS = (
    "train_cost",
    "test_loss",
    "test_accuracy",
    "accuracy_on_raw_pixels",
    "train_loss",
    "train_accuracy",
    "diverged",
)
WORDS = {
    "train_cost": "training cost",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
    "accuracy_on_raw_pixels": "accuracy on raw pixels",
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "diverged": "share of runs that diverge",
}


@dataclass(frozen=True)
class Factor:
    """Something in which A and B differ, and its two levels."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Asked:
    """A metric after an epoch, counted from 1; None is the last."""

    metric: str
    epoch: int | None

    def __post_init__(self) -> None:
        """Check both."""
        if self.metric not in METRICS:
            raise FaninError(
                f"metric: expected one of {', '.join(METRICS)}; got {self.metric!r}{nearest(self.metric, METRICS)}"
            )
        if self.epoch is not None and self.epoch < 1:
            raise FaninError(f"epoch: expected 1, 2, ... or None for the last; got {self.epoch}")

    @property
    def words(self) -> str:
        """ "first-epoch training cost"."""
        name = WORDS[self.metric]
        if self.epoch is None or self.metric == "diverged":
            return name if self.metric == "diverged" else f"last-epoch {name}"
        return f"first-epoch {name}" if self.epoch == 1 else f"{name} of epoch {self.epoch}"

    def of(self, record: Record) -> float:
        """A trial's value, NaN if it has none (it diverged before)."""
        if self.metric == "diverged":
            return math.nan if record.status == "failed" else float(record.status == "diverged")
        epochs = [e for e in record.epochs if e.epoch == self.epoch]
        found = record.final if self.epoch is None else epochs[0] if epochs else None
        value = None if found is None else getattr(found, self.metric)
        return math.nan if value is None else float(value)


def factors_of(a: Recipe, b: Recipe) -> tuple[Factor, ...]:
    """The settings in which two recipes differ; options of the same choice one by one, else the field as a whole."""
    found = []
    for field in a.differences(b):
        one, other = getattr(a, field), getattr(b, field)
        if _same_but_numbers(one, other):
            mine, theirs = one.keywords(), other.keywords()
            found += [Factor(f"{field}.{key}", mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]]
        else:
            found.append(Factor(field, *(v.plain(field) if isinstance(v, Choice) else v for v in (one, other))))
    return tuple(found)


def _same_but_numbers(one: Any, other: Any) -> bool:
    """Whether both choose the same, and say the same of it: of a user's network an option may be said by one alone."""
    choices = isinstance(one, Choice) and isinstance(other, Choice) and one.name == other.name
    return choices and one.keywords().keys() == other.keywords().keys()


def recipe_at(b: Recipe, factors: Sequence[Factor], cell: int) -> Recipe:
    """The recipe with A's level of the factors in the cell, B's of the others; RecipeError if that makes none."""
    data = b.to_dict()
    for i, factor in enumerate(factors):
        if cell >> i & 1:
            data = assign(data, factor.name, list(factor.a) if isinstance(factor.a, tuple) else factor.a)
    try:
        return Recipe.from_dict({key: value for key, value in data.items() if value is not None})
    except RecipeError as error:
        raise RecipeError(f"{label(factors, cell)}: {error}; this combination of A and B cannot be run") from None


def label(factors: Sequence[Factor], cell: int) -> str:
    """A cell in words: "init=normal, lr=0.01"."""
    parts = []
    for factor, level in levels_of(factors, cell).items():
        name = level["name"] if isinstance(level, Mapping) and "name" in level else level
        parts.append(f"{factor}={getattr(name, '__name__', name)}")
    return ", ".join(parts)


def levels_of(factors: Sequence[Factor], cell: int) -> dict[str, Any]:
    """A cell's level of each factor."""
    return {factor.name: factor.a if cell >> i & 1 else factor.b for i, factor in enumerate(factors)}


def study_of(name: str, b: Recipe, factors: Sequence[Factor], cells: Sequence[int], seeds: int) -> Study:
    """One arm for each cell: B's first, as the one the others are compared with, A's second."""
    top = 2 ** len(factors) - 1
    order = [0, top, *(cell for cell in cells if cell not in (0, top))]
    arms = tuple(Arm(name=label(factors, cell), recipe=recipe_at(b, factors, cell)) for cell in order)
    return Study(name=name, arms=arms, seeds=seeds, question="Which of the settings makes the difference?")


def run_recipes(
    study: Study, factors: Sequence[Factor], cells: Sequence[int], asked: Asked, *, out: Path, **options: Any
) -> dict[int, list[float]]:
    """The metric of every cell by seed; the records stay in the study folder, and what is there is not run again."""
    from fanin.driver import run
    from fanin.store import Store

    run([study], out=out, **options)
    with Store.open(out) as store:
        records = store.records(study)
    found = {}
    for cell in cells:
        by_seed = {record.seed: record for record in records[label(factors, cell)]}
        failed = [r.error or "no reason was recorded" for r in by_seed.values() if r.status == "failed"]
        if failed or len(by_seed) < study.seeds:
            raise FaninError(
                f"{label(factors, cell)}: trials failed ({failed[0] if failed else 'no record'}); see {out}"
            )
        found[cell] = [asked.of(by_seed[seed]) for seed in range(study.seeds)]
    return found


@dataclass(frozen=True)
class Maker:
    """A user's function make(**levels), and what its networks are trained and measured on; see explain."""

    make: Callable[..., Any]
    data: Any
    eval_data: Any
    epochs: int

    def run(self, factors: Sequence[Factor], cells: Sequence[int], asked: Asked, seeds: int) -> dict[int, list[float]]:
        """The metric of every cell by seed."""
        return {cell: [self._value(factors, cell, asked, seed) for seed in range(seeds)] for cell in cells}

    def _value(self, factors: Sequence[Factor], cell: int, asked: Asked, seed: int) -> float:
        from fanin.proof.judging import Ask, judged, run, steps_of
        from fanin.training import batches_for

        try:
            training = _training(self.make, levels_of(factors, cell), self.data, seed)
            steps = steps_of(training.batches, self.epochs, None)
            model, curve = run(training, seed, steps=steps)
            if asked.metric == "diverged":
                return float(curve.stopped is not None)
            held_out = (
                batches_for(model, self.eval_data).in_order()
                if asked.metric.startswith("test")
                else training.batches.in_order()
            )
            ask = Ask("accuracy" if asked.metric.endswith("accuracy") else "loss", False, training)
            outcome = judged(model, curve, training, held_out, ask, only_curve=asked.metric == "train_cost")
        except FaninError as error:
            raise FaninError(f"{label(factors, cell)}, seed {seed}: {error}") from error
        if asked.metric == "train_cost":
            epoch = asked.epoch or self.epochs
            whole = len(outcome.curve) > epoch or (len(outcome.curve) == epoch and curve.stopped is None)
            return outcome.curve[epoch - 1] if whole else math.nan
        return math.nan if outcome.metric is None else outcome.metric


def _training(make: Callable[..., Any], levels: Mapping[str, Any], data: Any, seed: int) -> Training:
    """What make(**levels) gives, called under the seed, as a Training that starts at the weights it made."""
    from torch import nn

    from fanin.training import Training
    from fanin.training.randomness import RandomState, seed_all

    before = RandomState.now()
    try:
        seed_all(seed)
        made = make(**levels)
    except TypeError as error:
        raise FaninError(f"make: expected a function of {', '.join(levels)}; it raised TypeError: {error}") from error
    finally:
        before.restore()
    if isinstance(made, Training):
        return made
    parts = {"model": made} if isinstance(made, nn.Module) else dict(made) if isinstance(made, Mapping) else {}
    known = ("model", "data", "loss", "optimizer", "batch_size")
    if not isinstance(parts.get("model"), nn.Module) or set(parts) - set(known):
        raise FaninError(
            f"make: expected a network, or a dict of model and any of {', '.join(known[1:])}; got "
            f"{type(made).__name__}{f' of {sorted(map(str, parts))}' if parts else ''}"
        )
    chosen: dict[str, Any] = {"data": data} | parts
    if chosen["data"] is None:
        raise FaninError("data: expected a DataLoader, a Dataset or (X, y), here or from make; got None")
    return Training.of(**chosen)
