"""Activations as a trace finds them: expressions of one variable, recognised by their values, and their gains."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fanin.choice import Choice

Direction = Literal["forward", "backward", "both"]


class Variable(Enum):
    """The one variable of an expression."""

    Z = "z"


Z = Variable.Z


@dataclass(frozen=True, repr=False)
class Expression:
    """function(*arguments, **keywords), whose arguments are constants, Z or expressions; equal where written equally.

    bends: whether it is more than a sum and product of Z with constants. As a function it leaves its argument alone,
    whatever its parts do in place.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...] = ()
    bends: bool = True

    def __call__(self, z: Tensor) -> Tensor:
        """The values at z."""
        arguments = [_value(a, z) for a in self.arguments]
        return self.function(*arguments, **{name: _value(a, z) for name, a in self.keywords})

    def __repr__(self) -> str:
        if self.name in _INFIX and len(self.arguments) == 2 and not self.keywords:
            left, right = (f"({a})" if _is_sum(a) else str(_shown(a)) for a in self.arguments)
            return f"{left} {_INFIX[self.name]} {right}"
        parts = [str(_shown(a)) for a in self.arguments]
        parts += [f"{name}={_shown(a)}" for name, a in self.keywords if name != "inplace"]
        return f"{self.name}({', '.join(parts)})"


_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "truediv": "/", "pow": "**"}


def _is_sum(argument: Any) -> bool:
    return isinstance(argument, Expression) and argument.name in _INFIX


def _value(argument: Any, z: Tensor) -> Any:
    if argument is Z:
        return z.clone()  # a part may work in place
    return argument(z) if isinstance(argument, Expression) else argument


def _shown(argument: Any) -> Any:
    if argument is Z:
        return "z"
    return f"{argument:g}" if isinstance(argument, float) else argument


Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """What follows a layer: a function, and the layer's part in it.

    part: "whole", f(z) alone; "gate", the b of a f(b); "gated", the a of a f(b); "both", where one layer makes a and b.
    """

    function: str | Choice | Function
    part: Literal["whole", "gate", "gated", "both"] = "whole"

    def recognised(self) -> Activation:
        """With the catalogue's choice for the function, where it has one with the same values."""
        return Activation(recognise(self.function), self.part)

    def __str__(self) -> str:
        name = title(self.function)
        part = {"whole": "", "gate": ", as a gate", "gated": ", gated by it", "both": ", gated by its half"}[self.part]
        return name + part


T = TypeVar("T")


def _remembered(f: Callable[..., T]) -> Callable[..., T]:
    """f with a memory, but for modules, whose values may change; gradients can be taken in it, whoever calls it."""
    known = lru_cache(maxsize=1024)(f)

    @wraps(f)
    def call(function: str | Choice | Function, *rest: Any) -> T:
        with torch.inference_mode(False):
            if isinstance(function, torch.nn.Module) or not isinstance(function, Hashable):
                return f(function, *rest)
            return known(function, *rest)

    return call


@_remembered
def recognise(function: str | Choice | Function) -> str | Choice | Function:
    """The catalogue's choice that has the values of a function; the function itself where none has.

    A handwritten x * sigmoid(x) is SiLU, and nn.Hardtanh(0, inf) is ReLU, however they are written: 107 points, most
    of them in [-5, 5], decide, to 1e-12 of float64.
    """
    from fanin.choice import Choice, choose

    if isinstance(function, str | Choice):
        return choose("activation", function)
    try:
        with torch.no_grad():
            values = function(_GRID.clone()).to(torch.float64)
    except (RuntimeError, TypeError, ValueError, AttributeError):  # not a function of any tensor: nothing to compare
        return function
    if values.shape != _GRID.shape:
        return function
    same = (c for c, known in _candidates(values) if torch.allclose(values, known, rtol=1e-12, atol=1e-12))
    return next(same, function)


_WIDEST = 40  # characters of a formula in a table
_TENTHS = [*range(-50, 51), -300, -120, -70, 70, 120, 300]
_GRID = torch.tensor(_TENTHS, dtype=torch.float64, device="cpu") / 10


def _candidates(values: Tensor) -> list[tuple[Choice, Tensor]]:
    from fanin.choice import choose

    found = list(_catalogue_values())
    slope = -float(values[_GRID == -1])  # what it would be if this were a leaky ReLU
    if 0 < slope < 1:
        leaky = choose("activation", {"name": "leaky_relu", "negative_slope": slope})
        found.append((leaky, torch.where(_GRID > 0, _GRID, slope * _GRID)))
    return found


@lru_cache(maxsize=1)
def _catalogue_values() -> tuple[tuple[Choice, Tensor], ...]:
    from fanin.activations import resolve
    from fanin.catalogue import ACTIVATIONS
    from fanin.choice import choose

    choices = [choose("activation", name) for name in ACTIVATIONS]
    return tuple((choice, resolve(choice).module()(_GRID.clone())) for choice in choices)


def title(function: Any) -> str:
    """How a table names an activation."""
    if isinstance(function, Expression):
        return text if len(text := str(function)) <= _WIDEST else text[: _WIDEST - 3] + "..."
    if isinstance(function, torch.nn.Module):
        return type(function).__name__
    if isinstance(function, str):
        return function
    options = getattr(function, "options", None)  # of a choice
    if isinstance(options, tuple):
        return function.name + "".join(f"({value:g})" for _, value in options)
    return getattr(function, "__name__", None) or type(function).__name__


def gain_of(activation: Activation | None, direction: Direction) -> float:
    """The gain for a layer before this activation; 1 for None, that is, where a matrix product or nothing follows.

    Of a product a f(b) the layer of b has gain 1, so that f sees the variance it is given, and that of a has
    1 / sqrt(E f(z)^2). A layer that makes both halves has the g with g^2 E f(g z)^2 = 1. Gates are about the forward
    signal, whatever the direction.
    """
    if activation is None or activation.part == "gate":
        return 1.0
    if activation.part == "gated":
        return _gain(activation.function, "forward")
    return _fused_gain(activation.function) if activation.part == "both" else _gain(activation.function, direction)


@_remembered
def _gain(function: str | Choice | Function, direction: Direction) -> float:
    from fanin.theory import gain  # numpy, only where it is wanted

    return gain(function, direction)


@_remembered
def _fused_gain(function: str | Choice | Function) -> float:
    """The root of g^2 E f(g z)^2 = 1 in g by bisection of its logarithm: the left side grows with g for every gate."""
    from fanin.theory import function_of

    f = function_of(function)
    low, high = 1e-3, 1e3
    while high / low > 1 + 1e-9:
        g = math.sqrt(low * high)
        low, high = (g, high) if g < _gain_at(f, g) else (low, g)
    return math.sqrt(low * high)


def _gain_at(f: Function, scale: float) -> float:
    """1 / sqrt(E f(scale z)^2)."""
    from fanin.theory import gain

    return gain(lambda z: f(scale * z), "forward")
