"""Choice: a name of the catalogue with all of its options, validated; and the fields of a recipe that take one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError, create_model

from fanin.catalogue import TABLES, canonical
from fanin.code import looks_like_attribute
from fanin.errors import RecipeError
from fanin.validation import STRICT, as_lists, as_tuples, problems


@dataclass(frozen=True)
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
        changed = {k: as_lists(v) for k, v in self.options if k not in defaults or v != defaults[k][1]}
        return {"name": self.name} | changed if changed else self.name


def choose(table: str, value: Any) -> Choice:
    """A validated Choice from `"adam"`, `{"name": "adam", "lr": 0.01}` or a Choice; RecipeError lists every problem."""
    value = _table(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise RecipeError(f"{table}: expected a name or a table with a name, such as {{name = ...}}; got {value!r}")
    name = canonical(table, value["name"])
    try:
        checked = _options_model(table, name).validate_python({k: v for k, v in value.items() if k != "name"})
    except ValidationError as error:
        known = TABLES[table][name].options
        raise RecipeError("\n".join(problems(error, f"{table}.", known, of=name))) from None
    return Choice(name, tuple(sorted(checked.model_dump().items())))


@cache
def _options_model(table: str, name: str) -> TypeAdapter[Any]:
    fields: dict[str, Any] = {
        option: (Annotated[kind, BeforeValidator(as_tuples)], default)
        for option, (kind, default) in TABLES[table][name].options.items()
    }
    return TypeAdapter(create_model(f"{name} options", __config__=STRICT, **fields))


def choose_model(value: Any) -> Choice | None:
    """A Choice from `"package.module:factory"` or a table of that name and the factory's keyword arguments; or None.

    Nothing is imported: whether there is such a factory, and whether it takes them, is seen where it is called.
    """
    if value is None:
        return None
    value = _table(value)
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or not looks_like_attribute(name):
        raise RecipeError(
            "model: expected the name of a function that makes a network, such as package.module:factory, or a table "
            f'such as {{name = "package.module:factory", width = 64}}; got {value!r}'
        )
    options = {key: as_tuples(item) for key, item in value.items() if key != "name"}
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


def _table(value: Any) -> Any:
    """A Choice or a bare name as a table of the name and the options; anything else as it is, to be complained of."""
    if isinstance(value, Choice):
        return {"name": value.name} | value.keywords()
    return {"name": value} if isinstance(value, str) else value


def _is_argument(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_argument, value))
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _canonical_name(table: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RecipeError(f"{table}: expected one of {', '.join(TABLES[table])}; got {value!r}")
    return canonical(table, value)


# types of a recipe's fields
ActivationChoice = Annotated[Choice, BeforeValidator(partial(choose, "activation"))]
InitChoice = Annotated[Choice, BeforeValidator(partial(choose, "init"))]
BiasInitChoice = Annotated[Choice, BeforeValidator(partial(choose, "bias_init"))]
CalibrationChoice = Annotated[Choice, BeforeValidator(partial(choose, "calibration"))]
PretrainingChoice = Annotated[Choice, BeforeValidator(partial(choose, "pretraining"))]
ModelChoice = Annotated[Choice | None, BeforeValidator(choose_model)]
ScheduleChoice = Annotated[Choice, BeforeValidator(partial(choose, "schedule"))]
OptimizerChoice = Annotated[Choice, BeforeValidator(partial(choose, "optimizer"))]
NormalizationName = Annotated[str, BeforeValidator(partial(_canonical_name, "normalization"))]
LossName = Annotated[str, BeforeValidator(partial(_canonical_name, "loss"))]
PrecisionName = Annotated[str, BeforeValidator(partial(_canonical_name, "precision"))]
