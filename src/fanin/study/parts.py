"""What a study is made of: arms, numbers that somebody published for them, and questions about their quantities."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Len
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass as validated

from fanin.recipe import Recipe
from fanin.validation import STRICT

_PART = ConfigDict(extra="forbid", allow_inf_nan=False)  # not strict: built from nested tables

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


@validated(frozen=True, kw_only=True, config=STRICT)
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
