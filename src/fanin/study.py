"""Study: a question, the arms that are compared to answer it, and the seeds; TOML in and out."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from annotated_types import Ge, Interval, Len
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from fanin.errors import RecipeError, nearest
from fanin.recipe import RECIPE_FIELDS, Recipe, Trial, problems, valid_alone
from fanin.settings import assign, setting

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
_PART = ConfigDict(extra="forbid", allow_inf_nan=False)  # not strict: built from nested tables

DEFAULT_SEEDS = 6  # the fewest pairs with which an exact two-sided sign test can reach p < 0.05

DEFAULT_ARM = "default"

# What a study may hold: none that somebody wrote comes near, and beyond it a small file would fill the memory.
MAX_FILE = 2**20  # bytes
MAX_ARMS = 10_000  # and as many questions
MAX_TRIALS = 1_000_000
_GRID_KEYS = 2  # a map has two sides
_MAX_DEPTH = 32  # tables and lists within each other, and names in one dotted key
_PART_OF_KEY = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART_OF_KEY}[ \t]*+\.[ \t]*+){{{_MAX_DEPTH}}}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # such as ESC, by which a text would command a terminal

Curve = Annotated[tuple[float, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]
Text = Annotated[str, Len(min_length=1)]


@validated(frozen=True, kw_only=True, config=_PART)
class Published:
    """Numbers that somebody printed for an arm, per epoch or at the end.

    data: the data set they were measured on. if_outside: the likely reason, shown when some are not reproduced.
    """

    data: str = "mnist"
    train_cost: Curve = ()
    train_loss: Curve = ()
    train_accuracy: Curve = ()
    test_loss: Curve = ()
    test_accuracy: Curve = ()
    accuracy: float | None = None
    accuracy_on_raw_pixels: float | None = None
    if_outside: str = ""


@validated(frozen=True, kw_only=True, config=_STRICT)
class Arm:
    """One setting under comparison; `note` is shown beside its numbers."""

    name: Text
    recipe: Recipe
    published: Published | None = None
    note: str = ""


Metric = Literal[
    "accuracy",
    "accuracy_on_raw_pixels",
    "test_loss",
    "train_cost",
    "train_cost_first_epoch",
    "gradient_ratio",
    "distance_to_published",
]


@validated(frozen=True, kw_only=True, config=_PART)
class Quantity:
    """A metric of an arm: the last epoch's, unless its name says otherwise.

    gradient_ratio: second moment of the gradient in the first layer over that in the output layer, before training.
    distance_to_published: mean over the printed epochs of |ln(train_cost / printed train_cost)|, a seed's curve against
    the one published for its arm; none without a published curve or on other data. Lower is nearer.
    """

    arm: str
    metric: Metric = "accuracy"


@validated(frozen=True, kw_only=True, config=_PART)
class Question:
    """A question that a paired comparison of two quantities answers: the seeds decide which of the texts is the answer.

    The texts may use {a}, {b} (means), {difference}, {low}, {high} (of a - b), {n}, {wins} (seeds with a > b), and
    {a_points}, {b_points} (published points inside the spread, such as 15/15).
    """

    ask: Text
    a: Quantity
    b: Quantity
    if_higher: Text
    if_lower: Text
    if_neither: Text = "No evidence of a difference: {difference} [{low}, {high}] over {n} seeds."


@validated(frozen=True, kw_only=True, config=_STRICT)
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
    grid: Annotated[tuple[Text, ...], Len(max_length=_GRID_KEYS)] = ()

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
        arms = _arms(content.pop("arms", None), shared, where, found)
        questions = _parts(content.pop("questions", []), Question, f"{where}questions", found)
        arms, keys = _multiplied(arms, content.pop("grid", []), f"{where}grid", found)
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
        return cls.from_dict({"name": path.stem} | _document(path), where=f"{path}: ")

    def to_dict(self) -> dict[str, Any]:
        """As plain TOML data: what all arms share stands once, under `recipe`."""
        recipes = [arm.recipe.to_dict() for arm in self.arms]
        shared = {k: v for k, v in recipes[0].items() if all(k in r and r[k] == v for r in recipes)}
        out: dict[str, Any] = {"name": self.name}
        for field in ("title", "question", "notes"):
            if getattr(self, field):
                out[field] = getattr(self, field)
        out |= {"seeds": self.seeds, "success_accuracy": self.success_accuracy, "recipe": shared}
        out["arms"] = [_arm_dict(arm, recipe, shared) for arm, recipe in zip(self.arms, recipes, strict=True)]
        if self.grid:
            out["grid"] = list(self.grid)
        if self.questions:
            out["questions"] = [dataclasses.asdict(question) for question in self.questions]
        return out

    def to_toml(self) -> str:
        """The study as a TOML document that `from_toml` reads back to an equal Study."""
        return tomli_w.dumps(self.to_dict())


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


def _document(path: Path) -> dict[str, Any]:
    """What a TOML file says, as plain data; RecipeError for what is no TOML, or what nobody writes in a study."""
    text = _text(path)
    if _LONG_KEY.search(text):  # tomllib's time grows with the square of a key's parts
        raise RecipeError(f"{path}: expected keys of at most {_MAX_DEPTH} parts with dots between; got a longer one")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise RecipeError(f"{path}: expected at most {_MAX_DEPTH} levels of tables and lists; got far more") from None
    except ValueError as error:  # no TOML, or int()'s own for thousands of digits
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    found = list(itertools.islice(_strange(data), 10))
    if found:
        raise RecipeError("\n".join(f"{path}: {line}" for line in found))
    return data


def _text(path: Path) -> str:
    """The file's UTF-8 text, line ends as \\n and without a byte-order mark."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "a pipe or a device, which might never end")
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte within the path
        words = getattr(error, "strerror", None) or error
        raise RecipeError(f"{path}: cannot be read ({words}); expected a study in TOML") from None
    if len(content) > MAX_FILE:
        raise RecipeError(f"{path}: expected a study in TOML of at most {MAX_FILE:,} bytes; got more: is it the file?")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _strange(value: Any, key: str = "", depth: int = 0) -> Iterator[str]:
    """Problems of any TOML data: too deep, integers that are not TOML's 64 bits, control characters in text."""
    if isinstance(value, dict | list):
        if depth > _MAX_DEPTH:
            yield f"{key[:80]}...: expected at most {_MAX_DEPTH} levels of tables and lists; got more"
            return
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _strange_text(str(name), f"{key or 'the file'}: its key")
            yield from _strange(item, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(value, str):
        yield from _strange_text(value, key)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{key}: expected an integer of 64 bits, as TOML has them; got one of {value.bit_length()} bits"


def _strange_text(text: str, where: str) -> Iterator[str]:
    if bad := _CONTROL.search(text):
        yield f"{where!r}: expected text without control characters; got {bad[0]!r} at position {bad.start()}"


STUDY_FIELDS = (*(f.name for f in dataclasses.fields(Study)), "recipe")


def _arm_dict(arm: Arm, recipe: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"name": arm.name} | ({"note": arm.note} if arm.note else {})
    out |= {k: v for k, v in recipe.items() if k not in shared}
    if arm.published:
        values = dataclasses.asdict(arm.published)
        out["published"] = {
            k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v not in (None, (), "")
        }
    return out


def _arms(value: Any, shared: Any, where: str, found: list[str]) -> tuple[Arm, ...]:
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


def _multiplied(
    arms: tuple[Arm, ...], grid: Any, where: str, found: list[str]
) -> tuple[tuple[Arm, ...], tuple[str, ...]]:
    """Each arm at every point of a grid of values, and the grid's keys; of a list of keys the arms as they are."""
    if isinstance(grid, list) and all(isinstance(key, str) for key in grid):
        return arms, tuple(grid)
    if not isinstance(grid, Mapping) or not all(isinstance(values, list) and values for values in grid.values()):
        found.append(f"{where}: expected a table of lists of values, such as lr = [0.1, 0.01]; got {grid!r}")
        return arms, ()
    count = len(arms) * math.prod(map(len, grid.values()))
    if len(grid) > _GRID_KEYS or count > MAX_ARMS:
        found.append(
            f"{where}: expected at most {_GRID_KEYS} keys, and {MAX_ARMS:,} arms in all; got {len(grid)} keys, "
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
    published = None
    if "published" in own:
        parts = _parts([own.pop("published")], Published, f"{at}published", found)
        published = parts[0] if parts else None
    try:
        recipe = Recipe.from_dict({**shared, **own}, where=at)
        return Arm(**rest, recipe=recipe, published=published)
    except ValidationError as error:
        found += problems(error, at, ("name", "note", "published", *RECIPE_FIELDS), of="an arm")
    except RecipeError as error:
        found += str(error).splitlines()
    return None


def _parts(value: Any, kind: type[Any], where: str, found: list[str]) -> tuple[Any, ...]:
    """`value` as a tuple of `kind`, or its problems in `found`."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        given = value[0] if kind is Published else value
        found.append(f"{where}: expected a {'table' if kind is Published else 'list of tables'}; got {given!r}")
        return ()
    if len(value) > MAX_ARMS:
        found.append(f"{where}: expected at most {MAX_ARMS:,}; got {len(value):,}")
        return ()
    known, adapter = [f.name for f in dataclasses.fields(kind)], TypeAdapter(kind)
    out = []
    for i, item in enumerate(value):
        at = f"{where}." if kind is Published else f"{where}.{i}."
        try:
            out.append(adapter.validate_python(dict(item)))
        except ValidationError as error:
            found += problems(error, at, known, of=f"a {kind.__name__.lower()}")
    return tuple(out)
