"""Overrides: a study with `--set key=value` and `--vary key=value,value` applied."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any

from fanin.errors import RecipeError
from fanin.recipe import RECIPE_FIELDS, Recipe
from fanin.settings import assign
from fanin.study import Arm, Study

Assignment = tuple[str, str]  # key, and value as text
_MAP = 3  # values of a setting, from which on two of them make a map
_ARMS_NAMED = 6  # in a message


def override(study: Study, sets: Iterable[str] = (), varies: Iterable[str] = ()) -> Study:
    """`study` with every `--set` in all arms and each arm split by every `--vary`, several of which multiply out.

    A changed study has a name of its own, so that its results stand beside the original's. Published numbers and words
    belong to the recipes they were written for: a changed arm loses the first, a changed study its questions.
    """
    sets, axes = list(sets), [parse_assignment(text) for text in varies]
    settings = [(key, ",".join(values)) for key, values in map(parse_assignment, sets)]
    for key, _ in settings:
        _check_shared(study, key)
    points = list(itertools.product(*([(key, value) for value in values] for key, values in axes)))
    try:
        arms = [_changed(study, arm, settings, point) for arm in study.arms for point in points]
    except RecipeError as error:
        several = [text for text in sets if len(parse_assignment(text)[1]) > 1]
        hint = f"\nTo compare several values, use --vary {several[0]}" if several else ""
        raise RecipeError(f"{error}{hint}") from None
    if [arm.recipe for arm in arms] == [arm.recipe for arm in study.arms]:
        return study
    words = " ".join([*sets, *(f"{key}={','.join(values)}" for key, values in axes)])
    return study.changed(
        name=f"{study.name} [{words}]",
        title=f"{study.name} with {words}",
        question="",
        notes="",
        arms=tuple(arms),
        questions=(),
        grid=study.grid or _grid(axes),
    )


def _grid(axes: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """Two settings of many values each are shown as a map."""
    return tuple(key for key, _ in axes) if len(axes) == 2 and all(len(v) >= _MAP for _, v in axes) else ()


def _check_shared(study: Study, key: str) -> None:
    """A field in which the arms differ is what they are named after: setting it would make their names untrue."""
    differ = key in RECIPE_FIELDS and len({getattr(arm.recipe, key) for arm in study.arms}) > 1
    if differ or key in study.grid:
        names = ", ".join(repr(arm.name) for arm in study.arms[:_ARMS_NAMED])
        names += f" and {more} more" if (more := len(study.arms) - _ARMS_NAMED) > 0 else ""
        raise RecipeError(
            f"--set {key}: the arms of {study.name} ({names}) differ in {key}; "
            f"set what they share, or write a study of your own"
        )


def _changed(study: Study, arm: Arm, settings: Sequence[Assignment], point: Sequence[Assignment]) -> Arm:
    recipe = _assigned(arm.recipe, [*settings, *point], f"{study.name}, arm {arm.name!r}: ")
    if recipe == arm.recipe and not point:
        return arm
    label = ", ".join(f"{key}={value}" for key, value in point)
    name = f"{arm.name}, {label}" if label and len(study.arms) > 1 else label or arm.name
    return Arm(name=name, recipe=recipe)


def _assigned(recipe: Recipe, assignments: Sequence[Assignment], where: str) -> Recipe:
    """All assignments at once, names before their options, so that their order does not matter."""
    data = recipe.to_dict()
    for key, text in sorted(assignments, key=lambda item: item[0] not in RECIPE_FIELDS):
        try:
            data = assign(data, key, parse_value(text))
        except RecipeError as error:
            raise RecipeError(f"{where}{error}") from None
    return Recipe.from_dict(data, where=where)


def parse_assignment(text: str) -> tuple[str, list[str]]:
    """`"lr=0.01,0.1"` as ("lr", ["0.01", "0.1"]); commas inside brackets, braces or quotes do not separate."""
    key, sign, values = text.partition("=")
    if not sign or not key.strip() or not values.strip():
        raise RecipeError(f"expected key=value, such as lr=0.01 or init=xavier_uniform; got {text!r}")
    return key.strip(), _split(values)


def _split(text: str) -> list[str]:
    parts, depth, quote, start = [], 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def parse_value(text: str) -> Any:
    """A value as TOML writes it (0.01, true, [256, 256], {name = "normal", std = 0.1}); a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:  # int()'s own for thousands of digits; brackets within brackets
        raise RecipeError(f"expected a value as TOML writes it; got {text[:40]!r}...: {error}") from None
