"""Arms, grids and questions out of plain data, with every problem told, and an arm back into it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fanin.errors import RecipeError
from fanin.recipe import RECIPE_FIELDS, Recipe, valid_alone
from fanin.settings import assign
from fanin.study.parts import Arm, Published, Question
from fanin.validation import problems

DEFAULT_ARM = "default"

MAX_ARMS = 10_000  # and as many questions: beyond it a small file would fill the memory
GRID_KEYS = 2  # a map has two sides

Part = TypeVar("Part", Published, Question)


def arms_of(value: Any, shared: Any, where: str, found: list[str]) -> tuple[Arm, ...]:
    """The arms, each with its recipe on top of the shared one; problems go to `found`, the shared ones once."""
    shared = _shared(shared, where, found)
    if value is None:  # a study without arms is its recipe alone
        value = [{"name": DEFAULT_ARM}]
    if not (isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value)):
        found.append(f"{where}arms: expected a list of tables, [[arms]]; got {value!r}")
        return ()
    if len(value) > MAX_ARMS:
        found.append(f"{where}arms: expected at most {MAX_ARMS:,}; got {len(value):,}")
        return ()
    before = len(found)
    arms = [_arm(item, shared, f"{where}arms.{i}.", found) for i, item in enumerate(value)]
    return tuple(arm for arm in arms if arm is not None) if len(found) == before else ()


def _shared(value: Any, where: str, found: list[str]) -> dict[str, Any]:
    """The shared recipe without the keys that have a problem, so that no arm tells of it again."""
    if not isinstance(value, Mapping):
        found.append(f"{where}recipe: expected a table of recipe keys; got {value!r}")
        return {}
    good = {}
    for key, chosen in value.items():
        try:
            Recipe.from_dict({key: chosen}, where=f"{where}recipe.")
        except RecipeError as error:
            if not valid_alone(key, chosen):  # else it does not fit defaults, which arms may change
                found += str(error).splitlines()
                continue
        good[key] = chosen
    return good


def _arm(item: Mapping[str, Any], shared: Mapping[str, Any], at: str, found: list[str]) -> Arm | None:
    own = dict(item)
    rest = {k: own.pop(k) for k in ("name", "note") if k in own}
    published = _published(own.pop("published"), f"{at}published", found) if "published" in own else None
    try:
        recipe = Recipe.from_dict({**shared, **own}, where=at)
        return Arm(**rest, recipe=recipe, published=published)
    except ValidationError as error:
        found += problems(error, at, ("name", "note", "published", *RECIPE_FIELDS), of="an arm")
    except RecipeError as error:
        found += str(error).splitlines()
    return None


def multiplied(
    arms: tuple[Arm, ...], grid: Any, where: str, found: list[str]
) -> tuple[tuple[Arm, ...], tuple[str, ...]]:
    """Each arm at every point of a grid of values, and the grid's keys; of a list of keys the arms as they are."""
    if isinstance(grid, list) and all(isinstance(key, str) for key in grid):
        return arms, tuple(grid)
    if not isinstance(grid, Mapping) or not grid or not all(isinstance(v, list) and v for v in grid.values()):
        found.append(f"{where}: expected a table of lists of values, such as lr = [0.1, 0.01]; got {grid!r}")
        return arms, ()
    count = len(arms) * math.prod(map(len, grid.values()))
    if len(grid) > GRID_KEYS or count > MAX_ARMS:
        found.append(
            f"{where}: expected at most {GRID_KEYS} keys, and {MAX_ARMS:,} arms in all; got {len(grid)} keys, "
            f"{count:,} arms"
        )
        return arms, ()
    try:
        points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
        return tuple(_at(arm, point, f"{where}: ") for arm in arms for point in points), tuple(grid)
    except RecipeError as error:
        found += str(error).splitlines()
        return arms, ()


def _at(arm: Arm, point: Mapping[str, Any], where: str) -> Arm:
    data = arm.recipe.to_dict()
    for key in sorted(point, key=lambda key: key not in RECIPE_FIELDS):  # names before their options
        data = assign(data, key, point[key])
    label = ", ".join(f"{key}={value}" for key, value in point.items())
    name = label if arm.name == DEFAULT_ARM else f"{arm.name}, {label}"
    return dataclasses.replace(arm, name=name, recipe=Recipe.from_dict(data, where=where), published=None)


def questions_of(value: Any, where: str, found: list[str]) -> tuple[Question, ...]:
    """The questions of a list of tables; what keeps the others from being one goes to `found`."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        found.append(f"{where}: expected a list of tables; got {value!r}")
        return ()
    if len(value) > MAX_ARMS:
        found.append(f"{where}: expected at most {MAX_ARMS:,}; got {len(value):,}")
        return ()
    questions = [_part(item, Question, f"{where}.{i}.", found) for i, item in enumerate(value)]
    return tuple(question for question in questions if question is not None)


def _published(value: Any, where: str, found: list[str]) -> Published | None:
    if not isinstance(value, Mapping):
        found.append(f"{where}: expected a table; got {value!r}")
        return None
    return _part(value, Published, f"{where}.", found)


def _part(item: Mapping[str, Any], kind: type[Part], at: str, found: list[str]) -> Part | None:
    """A table as a `kind`, or its problems in `found`."""
    try:
        return TypeAdapter(kind).validate_python(dict(item))
    except ValidationError as error:
        known = [field.name for field in dataclasses.fields(kind)]
        found += problems(error, at, known, of=f"a {kind.__name__.lower()}")
        return None


def plain_arm(arm: Arm, recipe: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """The arm as a TOML table: of `recipe`, its recipe in plain form, only what is not `shared` by all arms."""
    out: dict[str, Any] = {"name": arm.name} | ({"note": arm.note} if arm.note else {})
    out |= {k: v for k, v in recipe.items() if k not in shared}
    if arm.published:
        values = dataclasses.asdict(arm.published)
        out["published"] = {
            k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v not in (None, (), "")
        }
    return out
