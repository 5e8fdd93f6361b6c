"""What follows from a recipe for those who run it: the data it needs, and which trials take their steps together."""

from __future__ import annotations

from fanin.catalogue import STACKED_OPTIMIZERS
from fanin.choice import Choice, choose
from fanin.errors import RecipeError
from fanin.recipe import Recipe


def check_against(recipe: Recipe, *, examples: int, classes: int) -> None:
    """RecipeError if a training set of so many examples and classes cannot serve the recipe."""
    found = []
    if recipe.labels is not None and recipe.labels > examples:
        found.append(f"labels: expected at most {examples}, the examples of the training set; got {recipe.labels}")
    elif recipe.batch_size > (recipe.labels or examples):
        what = f"{recipe.labels}, the labels" if recipe.labels else f"{examples}, the examples of the training set"
        found.append(f"batch_size: expected at most {what}; got {recipe.batch_size}")
    if recipe.outputs is not None and recipe.outputs < classes:
        found.append(f"outputs: expected at least {classes}, one per class of the data; got {recipe.outputs}")
    if found:
        raise RecipeError("; ".join(found))


def optimizer_flags(choice: Choice) -> dict[str, bool]:
    """What of an optimiser's options changes its operations, and not only its numbers."""
    options = choice.keywords()
    flags = {name: value for name, value in options.items() if isinstance(value, bool)}
    if "momentum" in options:
        flags["momentum"] = options["momentum"] != 0
    return flags


def steps_on_card(recipe: Recipe) -> bool:
    """Whether a whole stack of such trials takes its steps together on a card (fanin.engine.card)."""
    plain = recipe.model is None and recipe.schedule == choose("schedule", "constant")
    return plain and recipe.optimizer.name in STACKED_OPTIMIZERS
