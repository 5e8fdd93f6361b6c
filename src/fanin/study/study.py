"""Study: arms and questions that fit together, in and out of plain data and TOML; and refusing code from files."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from annotated_types import Ge, Interval, Len
from pydantic import ValidationError
from pydantic.dataclasses import dataclass as validated

from fanin.errors import RecipeError, nearest
from fanin.recipe import Recipe, Trial
from fanin.settings import setting
from fanin.study.document import read_document
from fanin.study.parts import Arm, Question, Text
from fanin.study.plain import GRID_KEYS, arms_of, multiplied, plain_arm, questions_of
from fanin.validation import STRICT, problems

DEFAULT_SEEDS = 6  # the fewest pairs with which an exact two-sided sign test can reach p < 0.05

MAX_TRIALS = 1_000_000  # none that somebody wrote comes near, and beyond it a small file would fill the memory


@validated(frozen=True, kw_only=True, config=STRICT)
class Study:
    """A question and the arms that answer it; the first arm is the one the others are compared with.

    seeds: how many; they are 0 .. seeds - 1, the same in every arm. success_accuracy: a trial has trained if its final
    test accuracy reaches this. grid: keys of settings, at most two, in which the arms differ as the places of a map do;
    in TOML a table [grid] of values, by which each arm is multiplied.
    """

    name: Text
    arms: Annotated[tuple[Arm, ...], Len(min_length=1)]
    title: str = ""
    question: str = ""
    notes: str = ""
    seeds: Annotated[int, Ge(1)] = DEFAULT_SEEDS
    success_accuracy: Annotated[float, Interval(ge=0, le=1)] = 0.5
    questions: tuple[Question, ...] = ()
    grid: Annotated[tuple[Text, ...], Len(max_length=GRID_KEYS)] = ()

    def __post_init__(self) -> None:
        """Arms have names of their own, and questions ask about arms that exist."""
        names = [arm.name for arm in self.arms]
        found = [f"arms: the name {n!r} is used more than once" for n, k in sorted(Counter(names).items()) if k > 1]
        if len(names) * self.seeds > MAX_TRIALS:
            found.append(f"seeds: expected at most {MAX_TRIALS:,} trials; got {len(names)} arms x {self.seeds} seeds")
        for i, question in enumerate(self.questions):
            for side in ("a", "b"):
                arm = getattr(question, side).arm
                if arm not in names:
                    found.append(f"questions.{i}.{side}.arm: expected one of {names}; got {arm!r}{nearest(arm, names)}")
        found += self._grid_problems()
        if found:
            raise RecipeError("\n".join(found))

    def _grid_problems(self) -> list[str]:
        """Every arm must have the grid's settings, to have a place in it."""
        found: dict[str, None] = {}
        for arm in self.arms:
            for key in self.grid:
                try:
                    setting(arm.recipe, key)
                except RecipeError as error:
                    found[f"grid: {error}"] = None
        return list(found)

    def changed(self, **fields: Any) -> Study:
        """A copy with other fields; RecipeError if that does not make a study."""
        try:
            return dataclasses.replace(self, **fields)
        except ValidationError as error:
            raise RecipeError("\n".join(problems(error, f"{self.name}: ", STUDY_FIELDS, of="a study"))) from None

    def trials(self, arm: Arm) -> tuple[Trial, ...]:
        """The trials of one arm, in the order of their seeds."""
        return tuple(Trial(arm.recipe, seed) for seed in range(self.seeds))

    def arm(self, name: str) -> Arm:
        """The arm of that name; RecipeError with the nearest spelling if there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        names = [arm.name for arm in self.arms]
        raise RecipeError(f"{self.name} has no arm {name!r}; its arms are {', '.join(names)}{nearest(name, names)}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "") -> Study:
        """A Study from plain data. RecipeError names every problem with its key path behind `where`."""
        content = dict(data)
        shared = content.pop("recipe", {})
        found: list[str] = []
        arms = arms_of(content.pop("arms", None), shared, where, found)
        questions = questions_of(content.pop("questions", []), f"{where}questions", found)
        arms, keys = multiplied(arms, content.pop("grid", []), f"{where}grid", found)
        study = None
        try:
            # stand-ins keep the other fields' messages when arms or questions have problems of their own
            study = cls(
                **content
                | {"arms": arms or (Arm(name="-", recipe=Recipe()),), "questions": questions if arms else ()}
                | {"grid": keys}
            )
        except ValidationError as error:
            found += problems(error, where, STUDY_FIELDS, of="a study")
        except RecipeError as error:
            found += [where + line for line in str(error).splitlines()]
        if found or study is None:
            raise RecipeError("\n".join(found))
        return study

    @classmethod
    def from_toml(cls, path: Path) -> Study:
        """A Study from a TOML file; RecipeError names the file, and the line of a syntax error."""
        return cls.from_dict({"name": path.stem} | read_document(path), where=f"{path}: ")

    def to_dict(self) -> dict[str, Any]:
        """As plain TOML data: what all arms share stands once, under `recipe`."""
        recipes = [arm.recipe.to_dict() for arm in self.arms]
        shared = {k: v for k, v in recipes[0].items() if all(k in r and r[k] == v for r in recipes)}
        out: dict[str, Any] = {"name": self.name}
        for field in ("title", "question", "notes"):
            if getattr(self, field):
                out[field] = getattr(self, field)
        out |= {"seeds": self.seeds, "success_accuracy": self.success_accuracy, "recipe": shared}
        out["arms"] = [plain_arm(arm, recipe, shared) for arm, recipe in zip(self.arms, recipes, strict=True)]
        if self.grid:
            out["grid"] = list(self.grid)
        if self.questions:
            out["questions"] = [dataclasses.asdict(question) for question in self.questions]
        return out

    def to_toml(self) -> str:
        """The study as a TOML document that `from_toml` reads back to an equal Study."""
        return tomli_w.dumps(self.to_dict())


STUDY_FIELDS = (*(f.name for f in dataclasses.fields(Study)), "recipe")


def refuse_code(studies: Iterable[Study]) -> None:
    """RecipeError if arms name networks of one's own: for studies from files, where the user has not allowed code."""
    found: dict[str, str] = {}
    for study in studies:
        for arm in study.arms:
            if arm.recipe.model is not None:
                found.setdefault(arm.recipe.model.name, f"{study.name}, arm {arm.name!r}")
    if found:
        raise RecipeError(
            "\n".join(
                f"{where}: model: {name} is Python code, which no file may have run by itself; look at it and, if you "
                "trust it, say --allow-code"
                for name, where in found.items()
            )
        )
