"""Settings: one of a recipe's settings by its key, "hidden", "optimizer.lr" or "lr"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fanin.catalogue import TABLES, canonical
from fanin.choice import Choice
from fanin.errors import RecipeError, nearest
from fanin.recipe import RECIPE_FIELDS, Recipe


def assign(data: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A recipe's plain data with one key changed: a field, an option ("optimizer.lr"), or its bare name ("lr")."""
    field, _, option = key.partition(".")
    if not option and field not in RECIPE_FIELDS:
        field, option = _owner(data, field), field
    if field not in RECIPE_FIELDS:
        raise RecipeError(
            f"{key}: unknown key; expected one of {', '.join(RECIPE_FIELDS)}{nearest(field, RECIPE_FIELDS)}"
        )
    if not option:
        return data | {field: value}
    if field != "model" and (field not in TABLES or not isinstance(getattr(Recipe(), field), Choice)):
        raise RecipeError(f"{key}: {field} has no options; set {field} itself")
    if field not in data:
        raise RecipeError(f"{key}: there is no {field}; set {field} itself first")
    chosen = data[field] if isinstance(data[field], dict) else {"name": data[field]}
    return data | {field: chosen | {option: value}}


def _owner(data: dict[str, Any], option: str) -> str:
    """The field whose current choice has that option; the optimiser first, since lr and weight_decay are meant so.

    A model's options are those that are given.
    """
    known: list[str] = list(RECIPE_FIELDS)
    for field in ("optimizer", "init", "activation", "bias_init", "calibration", "pretraining", "schedule", "model"):
        if field not in data:
            continue
        given = data[field] if isinstance(data[field], dict) else {"name": data[field]}
        options = given if field == "model" else TABLES[field][canonical(field, given["name"])].options
        if option in options:
            return field
        known += options
    raise RecipeError(f"{option}: unknown key; expected one of {', '.join(known)}{nearest(option, known)}")


def setting(recipe: Recipe, key: str) -> Any:
    """The value that a key of `assign` has in a recipe; RecipeError if it has none."""
    field, option = _place(recipe, key)
    value = getattr(recipe, field)
    return value[option] if option else value


def others(recipe: Recipe, keys: Iterable[str]) -> tuple[tuple[str, Any], ...]:
    """All that a recipe says besides these settings: equal where recipes differ in nothing else."""
    rest = {field: getattr(recipe, field) for field in RECIPE_FIELDS}
    for field, option in (_place(recipe, key) for key in keys):
        if not option:
            rest.pop(field, None)
        elif field in rest:
            choice = rest[field]
            rest[field] = Choice(choice.name, tuple(pair for pair in choice.options if pair[0] != option))
    return tuple(rest.items())


def _place(recipe: Recipe, key: str) -> tuple[str, str]:
    """The field and the option, or "", that a key means in a recipe; RecipeError if there are no such."""
    field, _, option = key.partition(".")
    if not option and field not in RECIPE_FIELDS:
        field, option = _owner(recipe.to_dict(), field), field
    value = getattr(recipe, field, None)
    if field not in RECIPE_FIELDS or (option and (not isinstance(value, Choice) or option not in value.keywords())):
        raise RecipeError(f"{key}: this recipe has no such setting")
    return field, option
