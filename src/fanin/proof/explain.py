"""explain: what makes two settings differ, each factor's share of the difference, by a factorial of paired seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fanin.errors import FaninError
from fanin.proof.attribution import FULL, PERMUTATIONS, attribute, cells_of, orders
from fanin.proof.cells import Asked, Factor, Maker, factors_of, run_recipes, study_of
from fanin.proof.explanation import Explanation
from fanin.recipe import Recipe
from fanin.statistics import CONFIDENCE
from fanin.study import Arm

MOST_FACTORS = 12
MAKER_EPOCHS = 5


def explain(
    a: Recipe | Arm | Callable[..., Any],
    b: Recipe | Arm | None = None,
    *,
    factors: Mapping[str, tuple[Any, Any]] | None = None,
    data: Any = None,
    eval_data: Any = None,
    seeds: int = 8,
    metric: str = "train_cost",
    epoch: int | None = 1,
    epochs: int | None = None,
    permutations: int = PERMUTATIONS,
    out: Path | str | None = None,
    confidence: float = CONFIDENCE,
    **options: Any,
) -> Explanation:
    """Each factor's Shapley share of metric(A) - metric(B), with main effects and interactions, over paired seeds.

    Recipes: explain(a, b) of two recipes, or arms of studies; the factors are the settings in which they differ. All
    runs go into the study folder `out` (runs/explain-... by default), where `fanin results` finds them; what is there
    is not run again. data: as for fanin.run; `options` too (data_dir, device, jobs).

    Your own code: explain(make, factors={"init": (a, b), "lr": (a, b)}, data=...). make(**levels) is called under the
    seed, so that equal seeds start from equal noise, and returns a network, or a dict with "model" and any of
    "optimizer" (of that model), "loss", "data", "batch_size"; else data, loss and optimiser are the same everywhere.

    metric: train_cost (mean loss of an epoch's mini-batches), test_loss, test_accuracy, ..., diverged; of `epoch`, None
    for the last. epochs: instead of the recipes' own; of your own code 5, or as many as `epoch` needs. Of your own code
    all but train_cost is that of the last epoch, on `eval_data`.

    Up to 4 factors all 2^k combinations run. Of more, the ways from B to A in `permutations` orders, and all cells that
    differ from A or from B by one factor. Seeds in which a combination diverges before the epoch are left out, and
    counted; metric="diverged" explains the divergence itself.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 2:
        raise FaninError(f"seeds: expected at least 2; got {seeds!r}")
    plan = _Plan((), Asked(metric, epoch), seeds, permutations, confidence)
    if isinstance(a, Recipe | Arm):
        if not isinstance(b, Recipe | Arm) or factors is not None:
            raise FaninError(f"explain: expected a second recipe or arm, and no factors; got {type(b).__name__}")
        return _explain_recipes(a, b, plan, epochs, {"data": "auto" if data is None else data, "out": out} | options)
    if not callable(a) or b is not None or not factors:
        raise FaninError(
            "explain: expected two recipes or arms, explain(a, b), or a function and its factors, explain(make, "
            f"factors={{'init': (a, b)}}); got {type(a).__name__}, {type(b).__name__} and factors={factors!r}"
        )
    if options or out is not None:
        raise FaninError(f"explain: {', '.join([*options, *(['out'] if out is not None else [])])}: only for recipes")
    found = tuple(_factor(name, levels) for name, levels in factors.items())
    count = epochs if epochs is not None else MAKER_EPOCHS if epoch is None or metric != "train_cost" else epoch
    return _explain_maker(Maker(a, data, eval_data, count), replace(plan, factors=found))


@dataclass(frozen=True)
class _Plan:
    """What is to be run, and how it is judged."""

    factors: tuple[Factor, ...]
    asked: Asked
    seeds: int
    permutations: int
    confidence: float

    def orders(self) -> tuple[tuple[int, ...], ...]:
        """Orders of change, none where all cells are run; FaninError for factors that cannot be divided among."""
        names = [factor.name for factor in self.factors]
        if not names:
            raise FaninError("explain: expected A and B to differ; they are the same, and so is all that they lead to")
        if len(names) > MOST_FACTORS:
            raise FaninError(f"explain: expected at most {MOST_FACTORS} factors; got {', '.join(names)}")
        if len(names) <= FULL:
            return ()
        if self.permutations < 4:
            raise FaninError(f"permutations: expected at least 4 orders, two pairs; got {self.permutations}")
        return orders(len(names), self.permutations)


def _explain_recipes(
    a: Recipe | Arm, b: Recipe | Arm, plan: _Plan, epochs: int | None, options: dict[str, Any]
) -> Explanation:
    names = (a.name if isinstance(a, Arm) else "A", b.name if isinstance(b, Arm) else "B")
    changes: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    if plan.asked.metric in ("train_loss", "train_accuracy"):
        changes["train_metrics"] = True
    first, second = (Recipe.from_dict((x.recipe if isinstance(x, Arm) else x).to_dict() | changes) for x in (a, b))
    if plan.asked.epoch is not None and plan.asked.epoch > min(first.epochs, second.epochs):
        raise FaninError(
            f"epoch: the recipes train for {first.epochs} and {second.epochs} epochs; got {plan.asked.epoch}"
        )
    plan = replace(plan, factors=factors_of(first, second))
    cells = cells_of(len(plan.factors), plan.orders())
    title = f"explain {names[0]} and {names[1]}"
    study = study_of(title, second, plan.factors, cells, plan.seeds)
    out = options.pop("out")
    folder = Path("runs") / _slug(title) if out is None else Path(out)
    values = run_recipes(study, plan.factors, cells, plan.asked, out=folder, **options)
    return _explanation(plan, names, values, folder)


def _explain_maker(maker: Maker, plan: _Plan) -> Explanation:
    asked = plan.asked
    if asked.metric == "accuracy_on_raw_pixels":
        raise FaninError("metric: accuracy_on_raw_pixels is of recipes; give eval_data and metric='test_accuracy'")
    if asked.metric.startswith("test") and maker.eval_data is None:
        raise FaninError(f"eval_data: {asked.metric} needs data to be measured on; got None")
    if asked.metric != "train_cost":
        asked = Asked(asked.metric, None)
    if asked.epoch is not None and asked.epoch > maker.epochs:
        raise FaninError(f"epoch: expected at most {maker.epochs}, which is what is trained; got {asked.epoch}")
    plan = replace(plan, asked=asked)
    values = maker.run(plan.factors, cells_of(len(plan.factors), plan.orders()), asked, plan.seeds)
    return _explanation(plan, ("A", "B"), values, None)


def _explanation(
    plan: _Plan, names: tuple[str, str], values: Mapping[int, Sequence[float]], folder: Path | None
) -> Explanation:
    kept = [s for s in range(plan.seeds) if all(math.isfinite(of[s]) for of in values.values())]
    if len(kept) < 2:
        raise FaninError(
            f"explain: {plan.asked.words} is finite in all combinations for {len(kept)} of {plan.seeds} seeds, and at "
            'least 2 are needed; metric="diverged" explains the divergence itself'
        )
    whole = {cell: [of[s] for s in kept] for cell, of in values.items()}
    return Explanation(
        a=names[0],
        b=names[1],
        factors=plan.factors,
        metric=plan.asked.metric,
        words=plan.asked.words,
        seeds=tuple(kept),
        attribution=attribute(
            [factor.name for factor in plan.factors], whole, chosen=plan.orders(), confidence=plan.confidence
        ),
        values=whole,
        missing={cell: lost for cell, of in values.items() if (lost := sum(not math.isfinite(v) for v in of))},
        confidence=plan.confidence,
        folder=folder,
    )


def _factor(name: str, levels: Any) -> Factor:
    if not isinstance(levels, tuple | list) or len(levels) != 2:
        raise FaninError(f"factors: expected {name}=(A's level, B's level); got {levels!r}")
    return Factor(name, *levels)


def _slug(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-")[:80]
