"""Recipe and Trial: everything that defines one training run, as frozen, validated, hashable plain data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping
from functools import cache, cached_property, partial
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Le, Lt
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.dataclasses import dataclass as validated

from fanin.catalogue import STACKED_OPTIMIZERS, TABLES, Count, Fraction, canonical
from fanin.code import looks_like_attribute
from fanin.errors import RecipeError, nearest

# Part of every trial's identity: raised when a change of the engine changes the numbers that a recipe leads to.
ENGINE_REVISION = 2

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A catalogue name with all of its options, defaults filled in: equal settings are equal however written."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, option: str) -> Any:
        return dict(self.options)[option]

    def keywords(self) -> dict[str, Any]:
        """The options as keyword arguments."""
        return dict(self.options)

    def __str__(self) -> str:
        """As messages say it: the name, and options if there are any."""
        options = ", ".join(f"{key} {value}" for key, value in self.options)
        return f"{self.name} ({options})" if options else self.name

    def plain(self, table: str) -> str | dict[str, Any]:
        """As a TOML value: the bare name, or a table with the options that are not at their default."""
        defaults = {} if table == "model" else TABLES[table][self.name].options
        changed = {k: _plain(v) for k, v in self.options if k not in defaults or v != defaults[k][1]}
        return {"name": self.name} | changed if changed else self.name


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _listed(value: Any) -> Any:
    return tuple(_listed(item) for item in value) if isinstance(value, list) else value


@cache
def _options_model(table: str, name: str) -> TypeAdapter[Any]:
    fields: dict[str, Any] = {
        option: (Annotated[kind, BeforeValidator(_listed)], default)
        for option, (kind, default) in TABLES[table][name].options.items()
    }
    return TypeAdapter(create_model(f"{name} options", __config__=_STRICT, **fields))


def choose(table: str, value: Any) -> Choice:
    """A validated Choice from `"adam"`, `{"name": "adam", "lr": 0.01}` or a Choice; RecipeError lists every problem."""
    if isinstance(value, Choice):
        value = {"name": value.name} | value.keywords()
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise RecipeError(f"{table}: expected a name or a table with a name, such as {{name = ...}}; got {value!r}")
    name = canonical(table, value["name"])
    try:
        checked = _options_model(table, name).validate_python({k: v for k, v in value.items() if k != "name"})
    except ValidationError as error:
        known = TABLES[table][name].options
        raise RecipeError("\n".join(problems(error, f"{table}.", known, of=name))) from None
    return Choice(name, tuple(sorted(checked.model_dump().items())))


def choose_model(value: Any) -> Choice | None:
    """A Choice from `"package.module:factory"` or a table of that name and the factory's keyword arguments; or None.

    Nothing is imported: whether there is such a factory, and whether it takes them, is seen where it is called.
    """
    if value is None:
        return None
    if isinstance(value, Choice):
        value = {"name": value.name} | value.keywords()
    if isinstance(value, str):
        value = {"name": value}
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or not looks_like_attribute(name):
        raise RecipeError(
            "model: expected the name of a function that makes a network, such as package.module:factory, or a table "
            f'such as {{name = "package.module:factory", width = 64}}; got {value!r}'
        )
    options = {key: _listed(item) for key, item in value.items() if key != "name"}
    bad = [key for key, item in options.items() if not (key.isidentifier() and _is_argument(item))]
    if bad:
        raise RecipeError(
            "\n".join(
                f"model.{key}: expected a name of Python's with a number, a text, true, false or a list of those; "
                f"got {options[key]!r}"
                for key in bad
            )
        )
    return Choice(name, tuple(sorted(options.items())))


def _is_argument(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_argument, value))
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def problems(error: ValidationError, prefix: str, known: Collection[str], *, of: str) -> list[str]:
    """One line per problem of a pydantic error: key path, what was expected, what was given, the nearest spelling."""
    lines = []
    for item in error.errors():
        where = prefix + ".".join(str(part) for part in item["loc"])
        if item["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
            allowed = ", ".join(known) or "no options"
            hint = nearest(str(item["loc"][-1]), known)
            lines.append(f"{where}: unknown key; {of} takes {allowed}{hint}")
        elif isinstance(cause := item.get("ctx", {}).get("error"), RecipeError):
            lines += [
                _rooted(line, prefix, str(item["loc"][0]) if item["loc"] else "") for line in str(cause).splitlines()
            ]
        elif item["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
            lines.append(f"{where}: required, and not given")
        else:
            lines.append(f"{where}: {_lower(item['msg'])}; got {item['input']!r}")
    return lines


def _rooted(line: str, prefix: str, field: str) -> str:
    """A nested message names its table first; show the same path from the root, without saying the field twice."""
    return f"{prefix}{line}" if line.startswith(field) else f"{prefix}{field}: {line}"


def _lower(message: str) -> str:
    """pydantic's "Input should be less than 1" as "expected less than 1"."""
    message = message.removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}".replace("input should be", "expected", 1)


def _checked_name(table: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RecipeError(f"{table}: expected one of {', '.join(TABLES[table])}; got {value!r}")
    return canonical(table, value)


ActivationChoice = Annotated[Choice, BeforeValidator(partial(choose, "activation"))]
InitChoice = Annotated[Choice, BeforeValidator(partial(choose, "init"))]
BiasInitChoice = Annotated[Choice, BeforeValidator(partial(choose, "bias_init"))]
CalibrationChoice = Annotated[Choice, BeforeValidator(partial(choose, "calibration"))]
PretrainingChoice = Annotated[Choice, BeforeValidator(partial(choose, "pretraining"))]
ModelChoice = Annotated[Choice | None, BeforeValidator(choose_model)]
ScheduleChoice = Annotated[Choice, BeforeValidator(partial(choose, "schedule"))]
OptimizerChoice = Annotated[Choice, BeforeValidator(partial(choose, "optimizer"))]
NormalizationName = Annotated[str, BeforeValidator(partial(_checked_name, "normalization"))]
LossName = Annotated[str, BeforeValidator(partial(_checked_name, "loss"))]
PrecisionName = Annotated[str, BeforeValidator(partial(_checked_name, "precision"))]


def parse_widths(value: Any) -> Any:
    """`[256, 256]`, `256`, `"256x2"` or `"512,256x3"` as a tuple of layer widths; anything else is left to pydantic."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, str):
        return _listed(value)
    widths: list[int] = []
    for part in filter(None, (p.strip() for p in value.split(","))):
        width, _, times = part.partition("x")
        if not (width.isdecimal() and (times or "1").isdecimal() and len(width) < 10 and len(times) < 6):
            raise RecipeError(f"hidden: expected widths such as [256, 256] or '256x2'; got {value!r}")
        widths += [int(width)] * int(times or 1)
    return tuple(widths)


Width = Annotated[int, Ge(1), Le(1_000_000)]


@validated(frozen=True, kw_only=True, config=_STRICT)
class Recipe:
    """Everything that defines a trial but its seed: a multilayer perceptron or a user's network, and how it is trained.

    model: None, or the function that makes a network of the user's own, "package.module:factory", or a table of its
    name and keyword arguments. What describes the multilayer perceptron (PERCEPTRON_FIELDS) is then left at its
    default; an init and a bias_init other than "default" are drawn anew in that network.
    hidden: widths of the hidden layers, first to last; () is softmax regression.
    outputs: units of the last layer; None means one per class. More are allowed: labels never name the rest.
    activation, init, bias_init, optimizer: a catalogue name, or a table with the name and its options. An init that
    draws the biases with the weights (random_asymmetric) takes the place of bias_init too. calibration: what adjusts
    the weights, once drawn, by what the first mini-batch does to them. pretraining: what replaces those of the hidden
    layers by weights learnt from all training inputs, without labels.
    schedule: a factor on the optimiser's lr for each epoch.
    normalization: "none", or "batch" between Linear and activation. dropout: the probability of a zero after each
    hidden activation. precision: of the products in training, "fp32", "tf32" or "bf16"; evaluation is in float32.
    batch_size: the last incomplete batch of an epoch is dropped. labels: how many training examples have one, drawn by
    the trial's seed; None is all. train_metrics: also measure loss and accuracy on the
    whole training set after each epoch.
    Raises pydantic.ValidationError (a ValueError); `from_dict` raises RecipeError with one line per problem.
    """

    model: ModelChoice = None
    hidden: Annotated[tuple[Width, ...], BeforeValidator(parse_widths)] = (256, 256)
    outputs: Width | None = None
    activation: ActivationChoice = dataclasses.field(default_factory=lambda: choose("activation", "relu"))
    init: InitChoice = dataclasses.field(default_factory=lambda: choose("init", "default"))
    bias_init: BiasInitChoice = dataclasses.field(default_factory=lambda: choose("bias_init", "default"))
    calibration: CalibrationChoice = dataclasses.field(default_factory=lambda: choose("calibration", "none"))
    pretraining: PretrainingChoice = dataclasses.field(default_factory=lambda: choose("pretraining", "none"))
    normalization: NormalizationName = "none"
    dropout: Fraction = 0.0
    optimizer: OptimizerChoice = dataclasses.field(default_factory=lambda: choose("optimizer", "adam"))
    schedule: ScheduleChoice = dataclasses.field(default_factory=lambda: choose("schedule", "constant"))
    loss: LossName = "cross_entropy"
    precision: PrecisionName = "fp32"
    batch_size: Count = 100
    epochs: Count = 15
    labels: Count | None = None
    train_metrics: bool = False

    def __post_init__(self) -> None:
        """Check what no single field can see."""
        found = [
            *_optimizer_problems(self.optimizer),
            *_uniform_problems("init", self.init),
            *_uniform_problems("bias_init", self.bias_init),
            *_pretraining_problems(self),
            *_schedule_problems(self),
            *_model_problems(self),
        ]
        if self.normalization == "batch" and self.batch_size < 2:
            found.append("batch_size: batch normalisation needs at least 2 examples in a batch; got 1")
        if found:
            raise RecipeError("\n".join(found))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "") -> Recipe:
        """A Recipe from plain data; RecipeError lists all problems at once, each with its key path behind `where`."""
        try:
            return cls(**data)
        except ValidationError as error:
            raise RecipeError("\n".join(problems(error, where, RECIPE_FIELDS, of="a recipe"))) from None
        except RecipeError as error:
            raise RecipeError("\n".join(where + line for line in str(error).splitlines())) from None

    def to_dict(self) -> dict[str, Any]:
        """As plain TOML data: every field that is set and has a meaning here, choices in their shortest form."""
        out: dict[str, Any] = {}
        for name in RECIPE_FIELDS:
            if self.model is not None and name in PERCEPTRON_FIELDS:
                continue
            value = getattr(self, name)
            if value is not None:
                out[name] = value.plain(name) if isinstance(value, Choice) else _plain(value)
        return out

    @cached_property
    def key(self) -> str:
        """16 hex digits of SHA-256 over all fields, defaults included."""
        content = {f: _content(v) if isinstance(v := getattr(self, f), Choice) else v for f in RECIPE_FIELDS}
        for field in ("calibration", "pretraining"):  # younger, see _content
            if content[field]["name"] == "none":
                del content[field]
        if self.schedule == choose("schedule", "constant"):
            del content["schedule"]
        for field in ("labels", "model"):
            if content[field] is None:
                del content[field]
        return digest(content)

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """The fields in which two recipes differ, as field -> (this value, the other's), in plain form."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {f: (mine.get(f), theirs.get(f)) for f in RECIPE_FIELDS if mine.get(f) != theirs.get(f)}


def _content(choice: Choice) -> dict[str, Any]:
    """A choice as part of an identity. Younger options count where they are set, so that older results keep theirs."""
    options = tuple((k, v) for k, v in choice.options if (k, v) not in _YOUNGER.get(choice.name, ()))
    return {"name": choice.name, "options": options}


_YOUNGER: dict[str, tuple[tuple[str, Any], ...]] = dict.fromkeys(
    ("kaiming_uniform", "kaiming_normal"), (("mode", "fan_in"), ("negative_slope", 0.0))
)

RECIPE_FIELDS: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(Recipe))


def valid_alone(field: str, value: Any) -> bool:
    """Whether a field takes this value, whatever the others are."""
    known = get_type_hints(Recipe, include_extras=True)
    if field not in known:
        return False
    try:
        TypeAdapter(known[field]).validate_python(value, strict=True)
    except (ValidationError, RecipeError):
        return False
    return True


# what a network of the user's own settles itself, or what is there for the multilayer perceptron alone
PERCEPTRON_FIELDS = (
    "hidden",
    "outputs",
    "activation",
    "calibration",
    "pretraining",
    "normalization",
    "dropout",
    "precision",
)


def _optimizer_problems(optimizer: Choice) -> list[str]:
    if (
        optimizer.name == "sgd"
        and optimizer["nesterov"]
        and (optimizer["momentum"] == 0 or optimizer["dampening"] != 0)
    ):
        return ["optimizer.nesterov: Nesterov momentum needs momentum > 0 and dampening = 0"]
    if optimizer.name == "rprop" and optimizer["step_sizes"][0] >= optimizer["step_sizes"][1]:
        return [f"optimizer.step_sizes: expected (smallest, largest); got {optimizer['step_sizes']!r}"]
    return []


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


def _uniform_problems(field: str, choice: Choice) -> list[str]:
    if choice.name == "uniform" and choice["low"] >= choice["high"]:
        return [f"{field}.low: expected low < high; got low = {choice['low']}, high = {choice['high']}"]
    return []


def _pretraining_problems(recipe: Recipe) -> list[str]:
    name = recipe.pretraining.name
    if name == "none":
        return []
    found = []
    if not recipe.hidden:
        found.append(f"pretraining: {name} trains hidden layers, and hidden is empty")
    if recipe.normalization != "none":
        found.append(
            f"pretraining: {name} knows nothing of normalisation between the layers; got {recipe.normalization!r}"
        )
    if name == "dbn" and recipe.activation.name != "sigmoid":
        found.append(
            f"pretraining: the units of a dbn are sigmoid; got activation {recipe.activation.name!r}: "
            "take denoising or autoencoder"
        )
    return found


def _schedule_problems(recipe: Recipe) -> list[str]:
    if recipe.optimizer.name == "rprop" and recipe.schedule != choose("schedule", "constant"):
        return [
            f"schedule: rprop looks at its lr before the first step alone; got {recipe.schedule.name}: take constant"
        ]
    return []


def _model_problems(recipe: Recipe) -> list[str]:
    if recipe.model is None:
        return []
    default = Recipe()
    given = [field for field in PERCEPTRON_FIELDS if getattr(recipe, field) != getattr(default, field)]
    return [
        f"{field}: has no effect on a network of one's own, and model is {recipe.model.name}; leave {field} out, or "
        "make it an argument of that function"
        for field in given
    ]


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


def digest(content: Any) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of plain data."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


Seed = Annotated[int, Ge(0), Lt(2**63)]


@validated(frozen=True, config=_STRICT)
class Trial:
    """One training run: a recipe and a seed. On given data it has exactly one result."""

    recipe: Recipe
    seed: Seed

    def id(self, data_fingerprint: str) -> str:
        """Identity: 16 hex digits over recipe, seed, data and the engine's revision."""
        return digest([self.recipe.key, self.seed, data_fingerprint, ENGINE_REVISION])
