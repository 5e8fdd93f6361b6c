"""Gains: the factor on weights of variance 1 / fan that keeps a second moment through an activation."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from fanin.catalogue import ACTIVATIONS, canonical
from fanin.choice import Choice
from fanin.theory.quadrature import Activation, function_of, sample

Direction = Literal["forward", "backward", "both"]

# the names of torch.nn.init.calculate_gain that are activations of the catalogue, and what they are called there
_TORCH: dict[str, Any] = {"identity": "linear"} | {
    name: name for name in ("sigmoid", "tanh", "relu", "leaky_relu", "selu")
}
_DIFFERS = 0.01


class GainWarning(UserWarning):
    """torch.nn.init.calculate_gain has another value by more than 1 %."""


@dataclass(frozen=True)
class GainRow:
    """An activation's gains, and torch.nn.init.calculate_gain's, where it has one."""

    name: str
    forward: float
    backward: float
    both: float
    torch: float | None


def gain(activation: Activation, direction: Direction = "forward", *, compare: bool = False) -> float:
    """The gain 1 / sqrt(E f(z)^2), z ~ N(0, 1), of f = `activation`: a name, an nn.Module or a function of tensors.

    Weights N(0, gain^2 / fan_in) before f keep the second moment from layer to layer. direction "backward":
    1 / sqrt(E f'(z)^2), which keeps the gradient's with fan_out for fan_in; "both": 1 / sqrt of the mean of the two
    expectations, between them. To 1e-6, kinks and steps anywhere included. ValueError where the expectation is 0 (a
    step function's derivative), infinite, or beyond that accuracy.

    compare: warn (GainWarning) where torch.nn.init.calculate_gain differs by more than 1 %; off by default.
    He et al. (2015), section 2.2, for ReLU; Klambauer et al. (2017) for the fixed point of SELU.
    """
    forward, backward = _moments(activation)
    moment = {"forward": forward, "backward": backward, "both": (forward + backward) / 2}
    if direction not in moment:
        raise ValueError(f"direction: expected {', '.join(get_args(Direction)[:-1])} or both; got {direction!r}")
    if not 0 < moment[direction] < math.inf:
        what = "f'" if direction == "backward" else "f"
        raise ValueError(
            f"{activation} has no {direction} gain: E {what}(z)^2 under N(0, 1) is {moment[direction]:g}, and no"
            " factor on the weights makes up for that"
        )
    if compare and (text := torch_gain_difference(activation)):
        warnings.warn(text, GainWarning, stacklevel=2)
    return 1 / math.sqrt(moment[direction])


def torch_gain_difference(activation: Activation) -> str | None:
    """In words, where torch.nn.init.calculate_gain is off 1 / sqrt(E f(z)^2) by more than 1 %; None where it is not.

    None too for what calculate_gain does not know. Of the names it does know: tanh (5/3 for 1.5925), SELU (3/4 for 1)
    and sigmoid (1 for 1.8462).
    """
    theirs, ours = _torch_gain(activation), gain(activation)
    if theirs is None or abs(theirs / ours - 1) <= _DIFFERS:
        return None
    name = activation.name if isinstance(activation, Choice) else activation
    kept = (theirs / ours) ** 2
    return (
        f"{name}: torch.nn.init.calculate_gain has {theirs:.4f}, but {ours:.4f} keeps the second moment;"
        f" torch's changes it by a factor {kept:.3g} at the first layer"
    )


def gains_table() -> tuple[GainRow, ...]:
    """Forward, backward and both gains of every activation of the catalogue, with torch.nn.init.calculate_gain's."""
    return tuple(
        GainRow(name, gain(name), gain(name, "backward"), gain(name, "both"), _torch_gain(name)) for name in ACTIVATIONS
    )


def _moments(activation: Activation) -> tuple[float, float]:
    samples = sample(function_of(activation), 1.0)
    return float(samples.mean(samples.f.square())), float(samples.mean(samples.slope.square()))


def _torch_gain(activation: Activation) -> float | None:
    if not isinstance(activation, str | Choice):
        return None
    name = canonical("activation", activation) if isinstance(activation, str) else activation.name
    if name not in _TORCH:
        return None
    slope = activation["negative_slope"] if isinstance(activation, Choice) and activation.options else None
    return float(nn.init.calculate_gain(_TORCH[name], slope))
