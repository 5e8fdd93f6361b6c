"""The variance of the weights that a scheme draws, in closed form: what theory is told of a scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanin.initializers.critical import critical_scale
from fanin.initializers.draw import Place

if TYPE_CHECKING:
    from fanin.choice import Choice


def weight_variance(choice: Choice, *, fan_in: int, fan_out: int, place: Place) -> float | None:
    """Var(W) of a dense layer's entries, of mean 0, that the scheme draws; None where no number describes them.

    None: entries of another mean (constant, normal about a mean), and matrices made as a whole, except orthogonal ones,
    whose signals have the same second moments as those of independent entries.
    """
    options = choice.keywords()
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    name, gain = choice.name, options.get("gain", 1.0)
    if name in ("normal", "truncated_normal"):
        return options["std"] ** 2 if options["mean"] == 0 else None
    if name == "uniform":
        return options["high"] ** 2 / 3 if options["low"] == -options["high"] else None
    if name in ("kaiming_uniform", "kaiming_normal"):
        return gain**2 / (1 + options["negative_slope"] ** 2) / fans[options["mode"]]
    if name == "mup":
        return gain**2 / fan_in * (options["base_width"] / fan_in if place.last else 1)
    if name == "critical":
        return critical_scale(place.activation, place.bias_variance, place.keep) / fan_in
    known = {
        "zeros": lambda: 0.0,
        "default": lambda: 1 / (3 * fan_in),
        "variance_scaling": lambda: options["scale"] / fans[options["mode"]],
        "lecun_uniform": lambda: gain**2 / fan_in,
        "lecun_normal": lambda: gain**2 / fan_in,
        "snn": lambda: 1 / fan_in,
        "xavier_uniform": lambda: gain**2 / fans["fan_avg"],
        "xavier_normal": lambda: gain**2 / fans["fan_avg"],
        "orthogonal": lambda: gain**2 / max(fan_in, fan_out),
    }
    return known[name]() if name in known else None
