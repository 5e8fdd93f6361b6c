"""Drawing the weights and biases of a layer by the scheme that a choice names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fanin.initializers.noise import Keyed, Shape, Source

if TYPE_CHECKING:
    from fanin.catalogue import Entry
    from fanin.choice import Choice
    from fanin.recipe import Recipe


@dataclass(frozen=True)
class Place:
    """Where in its network a weight is: what a scheme may want to know besides the fans.

    activation: the function that follows, by name, as a recipe's choice, or itself; None if none does. keep: the share
    of inputs that dropout keeps. bias_variance: second moment of the biases. first, last: whether no layer comes
    before, or after.
    """

    activation: str | Choice | Callable[[Tensor], Tensor] | None = None
    keep: float = 1.0
    bias_variance: float = 0.0
    first: bool = False
    last: bool = False


def initialize(
    choice: Choice, noise: Source, shape: Shape, *, fan_in: int, fan_out: int, place: Place | None = None
) -> Tensor:
    """A tensor of `shape`, drawn from `noise` by the scheme that a choice names, for its place in the network."""
    scheme = getattr(sys.modules["fanin.initializers"], choice.name)
    wanted = {name: getattr(place, name) for name in _entry(choice).needs} if place else {}
    return scheme(noise, shape, fan_in=fan_in, fan_out=fan_out, **choice.keywords(), **wanted)


def start(recipe: Recipe, seed: int, i: int, fan_in: int, fan_out: int) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out,) of layer i, counted from 0, at the start of a recipe's trial with this seed."""
    from fanin.streams import Stream  # loads scipy: only where it is wanted

    fans, place = {"fan_in": fan_in, "fan_out": fan_out}, place_of(recipe, i, fan_in)
    noise = Keyed(Stream(seed, "weight", layer=i))
    if draws_bias(recipe.init):
        both = initialize(recipe.init, noise, (fan_out, fan_in + 1), **fans, place=place)
        return both[:, :-1], both[:, -1]
    weight = initialize(recipe.init, noise, (fan_out, fan_in), **fans, place=place)
    noise = Keyed(Stream(seed, "bias", layer=i))
    return weight, initialize(recipe.bias_init, noise, (fan_out,), **fans)


def place_of(recipe: Recipe, i: int, fan_in: int) -> Place:
    """What a scheme is told of layer i of a recipe's network, counted from 0."""
    last = i == len(recipe.hidden)
    return Place(
        activation=None if last else recipe.activation,
        keep=1 - recipe.dropout if i else 1.0,
        bias_variance=bias_variance(recipe.bias_init, fan_in),
        first=i == 0,
        last=last,
    )


def draws_bias(choice: Choice) -> bool:
    """Whether the scheme draws weights and biases together, as a matrix with one column more."""
    return _entry(choice).draws_bias


def _entry(choice: Choice) -> Entry:
    from fanin.catalogue import INITIALIZERS  # who only wants the schemes loads nothing but torch

    return INITIALIZERS[choice.name]


def bias_variance(choice: Choice, fan_in: int) -> float:
    """The second moment of biases that are drawn by this choice."""
    options = choice.keywords()
    if choice.name == "constant":
        return options["value"] ** 2
    if choice.name == "normal":
        return options["mean"] ** 2 + options["std"] ** 2
    if choice.name == "uniform":
        low, high = options["low"], options["high"]
        return (low * low + low * high + high * high) / 3
    return 1 / (3 * fan_in) if choice.name == "default" else 0.0
