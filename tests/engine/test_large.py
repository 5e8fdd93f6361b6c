"""Large nets and long trainings: width 4,096, depth 1,000, batches of 8,192; memory that does not grow with epochs."""

from __future__ import annotations

import sys
from pathlib import Path

import oracle
import pytest

from fanin.engine.train import train
from fanin.recipe import Recipe, Trial


def recipe_of(**fields: object) -> Recipe:
    return Recipe.from_dict({"epochs": 1, "optimizer": "sgd"} | fields)


def test_a_thousand_layers_agree_with_autograd() -> None:
    recipe = recipe_of(hidden="6x1000", activation="tanh", init="orthogonal", bias_init="zeros", batch_size=20)
    data, trial = oracle.problem(examples=60), Trial(recipe, 1)
    ours, theirs = oracle.engine(trial, data), oracle.reference(trial, data)
    oracle.agree(ours, theirs, tolerance=1e-8)
    assert len(ours.outcome.record.signal) == 2 * 1001


def test_four_thousand_wide_agrees_with_autograd() -> None:
    recipe, data = recipe_of(hidden=(4096, 64), batch_size=30), oracle.problem(examples=60, features=20)
    trial = Trial(recipe, 1)
    oracle.agree(oracle.engine(trial, data), oracle.reference(trial, data))


def test_a_batch_of_eight_thousand_agrees_with_autograd() -> None:
    recipe, data = recipe_of(hidden=(16,), batch_size=8192), oracle.problem(examples=16_384, features=20, classes=100)
    trial = Trial(recipe, 1)
    oracle.agree(oracle.engine(trial, data), oracle.reference(trial, data))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("members", [1, 8])
def test_memory_does_not_grow_with_epochs(members: int) -> None:
    data = oracle.problem(examples=2000, features=100, bytes_=True, scale=1 / 255)
    recipe = recipe_of(hidden=(64, 64), epochs=40, batch_size=50, optimizer="adam", dropout=0.1, normalization="batch")
    resident: list[int] = []

    def note(_: int) -> None:
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)

    train([Trial(recipe, seed) for seed in range(members)], [str(seed) for seed in range(members)], data, on_epoch=note)
    settled, end = max(resident[5:10]), max(resident[-5:])
    assert end - settled < 2_000_000  # records of the epochs, and no buffers (one order of examples is 16 kB a member)
