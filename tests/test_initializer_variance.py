"""The variance that theory is told of a scheme is that of what the scheme draws."""

from __future__ import annotations

from typing import Any

import pytest

from fanin.catalogue import INITIALIZERS
from fanin.choice import choose
from fanin.initializers import Keyed, Place, initialize
from fanin.initializers.variance import weight_variance
from fanin.streams import Stream

FANS = {"fan_in": 300, "fan_out": 500}
PLACES = [
    Place("tanh", keep=1.0, bias_variance=0.05),
    Place("relu", keep=0.8, bias_variance=0.01, first=True),
    Place(None, keep=0.8, last=True),
]
SPECS: list[dict[str, Any]] = [
    {"name": "uniform", "low": -0.3, "high": 0.3},
    {"name": "normal", "std": 0.2},
    {"name": "kaiming_uniform", "mode": "fan_out", "negative_slope": 0.3},
    {"name": "variance_scaling", "scale": 2.5, "mode": "fan_avg"},
    {"name": "orthogonal", "gain": 1.7},
    {"name": "mup", "base_width": 30},
]


@pytest.mark.parametrize("place", PLACES, ids=["hidden", "first", "last"])
@pytest.mark.parametrize("spec", [*({"name": name} for name in INITIALIZERS), *SPECS], ids=str)
def test_the_variance_of_what_is_drawn(spec: dict[str, Any], place: Place) -> None:
    choice = choose("init", spec)
    told = weight_variance(choice, **FANS, place=place)
    if told is None or INITIALIZERS[choice.name].draws_bias:
        assert told is None
        return
    weight = initialize(choice, Keyed(Stream(3, "weight")), (500, 300), **FANS, place=place)
    assert float(weight.mean()) == pytest.approx(0, abs=5 * (told / weight.numel()) ** 0.5)
    assert float(weight.square().mean()) == pytest.approx(told, rel=5 * (2 / weight.numel()) ** 0.5)


@pytest.mark.parametrize(
    "spec", [{"name": "constant"}, {"name": "normal", "mean": 0.1}, {"name": "uniform", "low": 0.0}], ids=str
)
def test_entries_of_another_mean_have_no_such_variance(spec: dict[str, Any]) -> None:
    assert weight_variance(choose("init", spec), **FANS, place=PLACES[0]) is None


def test_some_schemes_are_described() -> None:
    told = [weight_variance(choose("init", name), **FANS, place=PLACES[0]) for name in INITIALIZERS]
    assert sum(value is not None for value in told) >= 14
