"""The numbers that recipes lead to: whoever changes them raises ENGINE_REVISION, so that no folder mixes the two.

Costs in float64 on a small problem, which do not depend on the machine to ten digits.
"""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch

from fanin.engine.train import train
from fanin.recipe import ENGINE_REVISION, Recipe, Trial

DATA = oracle.problem(examples=60, features=9, classes=4, bytes_=True, scale=1 / 255)
REVISION = 2
COSTS: list[tuple[dict[str, Any], list[float]]] = [
    ({}, [1.4169511277073668, 1.4149823095076497]),
    (
        {"optimizer": {"name": "sgd", "momentum": 0.9}, "init": "kaiming_normal"},
        [1.4237254808083655, 1.4230016651344255],
    ),
    ({"normalization": "batch", "activation": "tanh", "init": "orthogonal"}, [1.6984786508840202, 1.7562146539468237]),
    ({"dropout": 0.3, "optimizer": "rmsprop", "loss": "mse"}, [0.2523109239240041, 0.20203770005513716]),
    ({"hidden": [], "optimizer": "adagrad", "bias_init": "zeros"}, [1.4056494733055278, 1.3785230454347146]),
]


@pytest.mark.parametrize(("fields", "costs"), COSTS, ids=str)
def test_numbers_of_this_revision(fields: dict[str, Any], costs: list[float]) -> None:
    assert ENGINE_REVISION == REVISION, "write the new revision and its numbers here"
    found = [epoch.train_cost for epoch in run(fields)]
    assert found == pytest.approx(costs, rel=1e-9), "if this is meant, raise ENGINE_REVISION"


def run(fields: dict[str, Any]) -> Any:
    recipe = Recipe.from_dict({"hidden": [8, 6], "batch_size": 12, "epochs": 2, **fields})
    return train([Trial(recipe, 5)], ["x"], DATA, dtype=torch.float64)[0].record.epochs
