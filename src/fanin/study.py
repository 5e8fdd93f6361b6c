"""Study: a question, the arms that are compared to answer it, and the seeds; TOML in and out."""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from annotated_types import Ge, Interval, Len
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from fanin.catalogue import TABLES
from fanin.errors import RecipeError, nearest
from fanin.recipe import RECIPE_FIELDS, Choice, Recipe, Trial, problems

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
_PART = ConfigDict(extra="forbid", allow_inf_nan=False)  # not strict: built from nested tables

DEFAULT_SEEDS = 6  # the fewest pairs with which an exact two-sided sign test can reach p < 0.05

Curve = Annotated[tuple[float, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]
Text = Annotated[str, Len(min_length=1)]


@validated(frozen=True, kw_only=True, config=_PART)
class Published:
    """Numbers that somebody printed for an arm, per epoch or at the end; `data` is what they were measured on."""

    data: str = "mnist"
    train_cost: Curve = ()
    train_loss: Curve = ()
    train_accuracy: Curve = ()
    test_loss: Curve = ()
    test_accuracy: Curve = ()
    accuracy: float | None = None
    accuracy_on_raw_pixels: float | None = None


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
]


@validated(frozen=True, kw_only=True, config=_PART)
class Quantity:
    """A metric of an arm: the last epoch's, unless its name says otherwise.

    gradient_ratio: second moment of the gradient in the first layer over that in the output layer, before training.
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
    test accuracy reaches this.
    """

    name: Text
    arms: Annotated[tuple[Arm, ...], Len(min_length=1)]
    title: str = ""
    question: str = ""
    notes: str = ""
    seeds: Annotated[int, Ge(1)] = DEFAULT_SEEDS
    success_accuracy: Annotated[float, Interval(ge=0, le=1)] = 0.5
    questions: tuple[Question, ...] = ()

    def __post_init__(self) -> None:
        """Arms have names of their own, and questions ask about arms that exist."""
        names = [arm.name for arm in self.arms]
        found = [
            f"arms: the name {n!r} is used more than once" for n in sorted({n for n in names if names.count(n) > 1})
        ]
        for i, question in enumerate(self.questions):
            for side in ("a", "b"):
                arm = getattr(question, side).arm
                if arm not in names:
                    found.append(f"questions.{i}.{side}.arm: expected one of {names}; got {arm!r}{nearest(arm, names)}")
        if found:
            raise RecipeError("\n".join(found))

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
        study = None
        try:
            # stand-ins keep the other fields' messages when arms or questions have problems of their own
            study = cls(
                **content | {"arms": arms or (Arm(name="-", recipe=Recipe()),), "questions": questions if arms else ()}
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
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read ({error.strerror}); expected a study in TOML") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: not valid TOML: {error}") from None
        return cls.from_dict({"name": path.stem} | data, where=f"{path}: ")

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
        if self.questions:
            out["questions"] = [dataclasses.asdict(question) for question in self.questions]
        return out

    def to_toml(self) -> str:
        """The study as a TOML document that `from_toml` reads back to an equal Study."""
        return tomli_w.dumps(self.to_dict())


STUDY_FIELDS = (*(f.name for f in dataclasses.fields(Study)), "recipe")


def _arm_dict(arm: Arm, recipe: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"name": arm.name} | ({"note": arm.note} if arm.note else {})
    out |= {k: v for k, v in recipe.items() if k not in shared}
    if arm.published:
        values = dataclasses.asdict(arm.published)
        out["published"] = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v not in (None, ())}
    return out


def _arms(value: Any, shared: Any, where: str, found: list[str]) -> tuple[Arm, ...]:
    if not isinstance(shared, Mapping):
        found.append(f"{where}recipe: expected a table of recipe keys; got {shared!r}")
        shared = {}
    if value is None:  # a study without arms is its recipe alone
        value = [{"name": "default"}]
    if not (isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value)):
        found.append(f"{where}arms: expected a list of tables, [[arms]]; got {value!r}")
        return ()
    built: list[Arm] = []
    before = len(found)
    for i, item in enumerate(value):
        own = dict(item)
        at = f"{where}arms.{i}."
        rest = {k: own.pop(k) for k in ("name", "note") if k in own}
        published = _parts([own.pop("published")] if "published" in own else [], Published, f"{at}published", found)
        try:
            recipe = Recipe.from_dict({**shared, **own}, where=at)
            built.append(Arm(**rest, recipe=recipe, published=published[0] if published else None))
        except ValidationError as error:
            found += problems(error, at, ("name", "note", "published", *RECIPE_FIELDS), of="an arm")
        except TypeError:
            found.append(f"{at}name: field required")
        except RecipeError as error:
            found += str(error).splitlines()
    # a problem in the shared recipe would be told once per arm
    found[before:] = _told_once(found[before:], shared, where, len(value))
    return tuple(built) if len(found) == before else ()


def _told_once(lines: list[str], shared: Mapping[str, Any], where: str, arms: int) -> list[str]:
    out: list[str] = []
    for line in lines:
        moved = line
        for i in range(arms):
            prefix = f"{where}arms.{i}."
            rest = line.removeprefix(prefix)
            if rest != line and rest.replace(":", ".").split(".")[0] in shared:
                same = all(f"{where}arms.{j}.{rest}" in lines for j in range(arms))
                moved = f"{where}recipe.{rest}" if same else line
        if moved not in out:
            out.append(moved)
    return out


def _parts(value: Any, kind: type[Any], where: str, found: list[str]) -> tuple[Any, ...]:
    """`value` as a tuple of `kind`, or its problems in `found`."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        found.append(f"{where}: expected a list of tables; got {value!r}")
        return ()
    known = [f.name for f in dataclasses.fields(kind)]
    out = []
    for i, item in enumerate(value):
        at = f"{where}." if kind is Published else f"{where}.{i}."
        try:
            out.append(TypeAdapter(kind).validate_python(dict(item)))
        except ValidationError as error:
            found += problems(error, at, known, of=f"a {kind.__name__.lower()}")
    return tuple(out)


# Overrides: --set key=value and --vary key=value,value


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


def assign(recipe: Recipe, key: str, value: Any) -> Recipe:
    """`recipe` with one key changed: a field, a dotted option ("optimizer.lr"), or an option's bare name ("lr")."""
    data = recipe.to_dict()
    field, _, option = key.partition(".")
    if not option and field not in RECIPE_FIELDS:
        field, option = _owner(recipe, field), field
    if field not in RECIPE_FIELDS:
        raise RecipeError(
            f"{key}: unknown key; expected one of {', '.join(RECIPE_FIELDS)}{nearest(field, RECIPE_FIELDS)}"
        )
    if option:
        choice = getattr(recipe, field)
        if not isinstance(choice, Choice):
            raise RecipeError(f"{key}: {field} has no options; set {field} itself")
        data[field] = {"name": choice.name} | choice.keywords() | {option: value}
    else:
        data[field] = value
    return Recipe.from_dict(data)


def _owner(recipe: Recipe, option: str) -> str:
    """The field whose current choice has that option; the optimiser first, since lr and weight_decay are meant so."""
    choices = ["optimizer", "init", "activation", "bias_init"]
    for field in choices:
        if option in TABLES[field][getattr(recipe, field).name].options:
            return field
    known = [*RECIPE_FIELDS, *(o for f in choices for o in TABLES[f][getattr(recipe, f).name].options)]
    raise RecipeError(f"{option}: unknown key; expected one of {', '.join(known)}{nearest(option, known)}")


def override(study: Study, sets: Iterable[str] = (), varies: Iterable[str] = ()) -> Study:
    """`study` with `--set` applied to every arm and each arm split by `--vary`, several of which multiply out.

    Published numbers and questions belong to the recipes they were written for: a changed arm loses the first, a study
    with varied arms the second.
    """
    arms = list(study.arms)
    for text in sets:
        key, values = parse_assignment(text)
        arms = [_changed(arm, [(key, ",".join(values))], arm.name) for arm in arms]
    axes = [parse_assignment(text) for text in varies]
    if axes:
        arms = [
            _changed(
                arm, list(zip([a[0] for a in axes], point, strict=True)), _varied_name(arm, axes, point, len(arms))
            )
            for arm in arms
            for point in itertools.product(*(a[1] for a in axes))
        ]
    return dataclasses.replace(study, arms=tuple(arms), questions=() if axes else study.questions)


def _varied_name(arm: Arm, axes: list[tuple[str, list[str]]], point: tuple[str, ...], arms: int) -> str:
    label = ", ".join(f"{key}={value}" for (key, _), value in zip(axes, point, strict=True))
    return f"{arm.name}, {label}" if arms > 1 else label


def _changed(arm: Arm, assignments: list[tuple[str, str]], name: str) -> Arm:
    recipe = arm.recipe
    for key, text in assignments:
        recipe = assign(recipe, key, parse_value(text))
    published = arm.published if recipe == arm.recipe else None
    return Arm(name=name, recipe=recipe, published=published, note=arm.note if recipe == arm.recipe else "")


# Bundled studies


def _bundle() -> Path:
    return Path(__file__).parent / "studies"


def bundled() -> dict[str, Path]:
    """Names of the bundled studies ("lab9/nn") and their files, in the order of each folder's file `ORDER`."""
    found = {}
    for folder in sorted(p for p in _bundle().iterdir() if p.is_dir()):
        for stem in (folder / "ORDER").read_text(encoding="utf-8").split():
            found[f"{folder.name}/{stem}"] = folder / f"{stem}.toml"
    return found


def find(name: str) -> list[Study]:
    """Studies by name: a bundled one ("lab9/nn" or "nn"), a bundled folder ("lab9": all of it), or a TOML file."""
    known = bundled()
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return [Study.from_toml(path)]
    group = [file for key, file in known.items() if key.split("/")[0] == name]
    exact = [file for key, file in known.items() if name in (key, key.split("/")[1])]
    if not group and not exact:
        names = [*dict.fromkeys(key.split("/")[0] for key in known), *known, *(key.split("/")[1] for key in known)]
        raise RecipeError(
            f"unknown study {name!r}; expected a TOML file, {', '.join(known)}, or "
            f"{', '.join(dict.fromkeys(k.split('/')[0] for k in known))} for all{nearest(name, names)}"
        )
    return [Study.from_toml(file) for file in group or exact[:1]]
