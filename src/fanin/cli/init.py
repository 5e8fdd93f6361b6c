"""`fanin init show`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fanin.errors import FaninError, RecipeError

if TYPE_CHECKING:
    from fanin.choice import Choice

_MOST_WEIGHTS = 100_000_000


def show(*schemes: str, shape: str = "256x784", activation: str = "relu") -> int:
    """Show initialisers: formula, paper, when to use, options, what they draw for a shape and do to a signal.

    Parameters
    ----------
    schemes
        Names (`fanin list initializers`), or with options '{name = "normal", std = 0.1}'.
    shape
        Of the weight, out x in as PyTorch has it, or out x in x kernel of a convolution, such as 64x32x3x3.
    activation
        The function that follows, a name or with options.
    """
    from fanin.choice import choose
    from fanin.overrides import parse_value  # `--help` stays fast

    if not schemes:
        raise RecipeError("expected at least one initialiser, such as kaiming_normal; see `fanin list initializers`")
    sizes = _shape(shape)
    chosen = [choose("init", parse_value(scheme)) for scheme in schemes]
    follows = choose("activation", parse_value(activation))
    for choice in chosen:
        _show(choice, sizes, follows)
    return 0


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split("x")
    if not (2 <= len(parts) <= 5 and all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts)):
        raise RecipeError(f"--shape: expected out x in, such as 256x784, or out x in x kernel; got {text!r}")
    shape = tuple(map(int, parts))
    if math.prod(shape) > _MOST_WEIGHTS:
        raise RecipeError(f"--shape: expected at most {_MOST_WEIGHTS:,} weights, for all are drawn; got {text!r}")
    return shape


def _show(choice: Choice, shape: tuple[int, ...], activation: Choice) -> None:
    from rich.console import Console

    from fanin.report.propagation.scheme import print_scheme
    from fanin.signal.scheme import describe

    try:
        found = describe(choice, shape, activation)
    except FaninError:
        raise
    except ValueError as error:  # a shape or an activation for which the scheme has no draw
        raise FaninError(f"{choice.name}: {error}") from None
    print_scheme(found, Console())
