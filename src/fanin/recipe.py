"""Recipe and Trial: everything that defines one training run, as frozen, validated, hashable plain data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Le, Lt
from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from fanin.catalogue import Count, Fraction
from fanin.choice import (
    ActivationChoice,
    BiasInitChoice,
    CalibrationChoice,
    Choice,
    InitChoice,
    LossName,
    ModelChoice,
    NormalizationName,
    OptimizerChoice,
    PrecisionName,
    PretrainingChoice,
    ScheduleChoice,
    choose,
)
from fanin.errors import RecipeError
from fanin.validation import STRICT, as_lists, as_tuples, problems

# Part of every trial's identity: raised when a change of the engine changes the numbers that a recipe leads to.
ENGINE_REVISION = 2


def parse_widths(value: Any) -> Any:
    """`[256, 256]`, `256`, `"256x2"` or `"512,256x3"` as a tuple of layer widths; anything else is left to pydantic."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, str):
        return as_tuples(value)
    widths: list[int] = []
    for part in filter(None, (p.strip() for p in value.split(","))):
        width, _, times = part.partition("x")
        if not (width.isdecimal() and (times or "1").isdecimal() and len(width) < 10 and len(times) < 6):
            raise RecipeError(f"hidden: expected widths such as [256, 256] or '256x2'; got {value!r}")
        widths += [int(width)] * int(times or 1)
    return tuple(widths)


Width = Annotated[int, Ge(1), Le(1_000_000)]


@validated(frozen=True, kw_only=True, config=STRICT)
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
                out[name] = value.plain(name) if isinstance(value, Choice) else as_lists(value)
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


RECIPE_FIELDS: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(Recipe))

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


def _content(choice: Choice) -> dict[str, Any]:
    """A choice as part of an identity. Younger options count where they are set, so that older results keep theirs."""
    options = tuple((k, v) for k, v in choice.options if (k, v) not in _YOUNGER.get(choice.name, ()))
    return {"name": choice.name, "options": options}


_YOUNGER: dict[str, tuple[tuple[str, Any], ...]] = dict.fromkeys(
    ("kaiming_uniform", "kaiming_normal"), (("mode", "fan_in"), ("negative_slope", 0.0))
)


def digest(content: Any) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of plain data."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


Seed = Annotated[int, Ge(0), Lt(2**63)]


@validated(frozen=True, config=STRICT)
class Trial:
    """One training run: a recipe and a seed. On given data it has exactly one result."""

    recipe: Recipe
    seed: Seed

    def id(self, data_fingerprint: str) -> str:
        """Identity: 16 hex digits over recipe, seed, data and the engine's revision."""
        return digest([self.recipe.key, self.seed, data_fingerprint, ENGINE_REVISION])
