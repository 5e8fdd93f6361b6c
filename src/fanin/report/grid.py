"""Maps: the arms of a study of a grid, each at its place, with the depth to which theory says that it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fanin.choice import Choice
from fanin.recipe import Recipe
from fanin.report.results import ArmSummary, StudySummary
from fanin.settings import others, setting

DEPTH = "hidden"  # the key whose values are depths, where a map's arms differ in nothing else of it
HALF = 0.5  # of the seeds: what a setting does
_TITLES = {
    DEPTH: "hidden layers",
    "init": "initialisation",
    "init.scale": "variance of the weights, times fan-in",
    "calibration": "calibration",
}


@dataclass(frozen=True)
class Side:
    """One side of a map: the key of a setting, and its values in the study's order, also as texts."""

    key: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]
    title: str


@dataclass(frozen=True)
class Map:
    """Arms by (column, row); `name` says what all of them have in common and others have not."""

    name: str
    x: Side
    y: Side
    arms: Mapping[tuple[int, int], ArmSummary]

    def limit(self, column: int) -> float | None:
        """The depth to which theory says that a column trains; None where it says nothing, or rows are no depths."""
        if self.y.key != DEPTH:
            return None
        found = [arm.trainable_depth for (x, _), arm in self.arms.items() if x == column]
        return next((depth for depth in found if depth is not None), None)

    def agreement(self) -> tuple[int, int]:
        """Places where trials train up to the predicted depth and not beyond, and all that have a prediction."""
        hits = total = 0
        for (column, row), arm in self.arms.items():
            limit = self.limit(column)
            if limit is not None and arm.success:
                total += 1
                hits += (arm.success.rate >= HALF) == (len(self.y.values[row]) <= limit)
        return hits, total


def maps(summary: StudySummary) -> list[Map]:
    """One map for each set of arms that differ in the study's two grid settings alone; none without a grid."""
    keys = summary.study.grid
    if len(keys) != 2:
        return []
    groups: dict[Any, list[ArmSummary]] = {}
    for arm in summary.arms:
        groups.setdefault(others(arm.arm.recipe, keys), []).append(arm)
    # of several maps each has the name that its arms had before the grid multiplied them
    names = [arms[0].name.partition(f", {keys[0]}=")[0] if len(groups) > 1 else "" for arms in groups.values()]
    return [_map(arms, keys, name) for arms, name in zip(groups.values(), names, strict=True)]


def _map(arms: Sequence[ArmSummary], keys: Sequence[str], name: str) -> Map:
    x, y = (_side(key, [arm.arm.recipe for arm in arms]) for key in keys)
    places = {
        (x.values.index(setting(arm.arm.recipe, x.key)), y.values.index(setting(arm.arm.recipe, y.key))): arm
        for arm in arms
    }
    return Map(name, x, y, places)


def _side(key: str, recipes: Sequence[Recipe]) -> Side:
    values = tuple(dict.fromkeys(setting(recipe, key) for recipe in recipes))
    texts = tuple(_text(key, value) for value in values)
    if key == DEPTH:
        widths = {width for value in values for width in value}
        title = f"{_TITLES[key]} of {widths.pop()}" if len(widths) == 1 else _TITLES[key]
        return Side(key, values, texts, title)
    return Side(key, values, texts, _TITLES.get(key, key))


def _text(key: str, value: Any) -> str:
    if isinstance(value, Choice):
        plain = value.plain(key)
        options = plain if isinstance(plain, dict) else {}
        return ", ".join([value.name, *(f"{k} {_option(v)}" for k, v in options.items() if k != "name")])
    return str(len(value)) if isinstance(value, tuple) else str(value)


def _option(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
