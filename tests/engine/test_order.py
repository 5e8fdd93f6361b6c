"""Which examples a trial sees: all of them once an epoch, or a subset of its own."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch

from fanin.engine.data import Data
from fanin.engine.order import order, steps_of, subset
from fanin.engine.train import train
from fanin.errors import RecipeError
from fanin.execution import check_against
from fanin.recipe import Recipe, Trial
from fanin.streams import Stream


def trial(seed: int = 3, **fields: Any) -> Trial:
    return Trial(Recipe.from_dict({"hidden": [6], "batch_size": 5, "epochs": 2} | fields), seed)


def test_without_a_limit_every_example_is_seen_once_in_the_streams_order() -> None:
    found = order(trial(), 2, 40)
    assert found.tolist() == Stream(3, "order", epoch=2).permutation(40).tolist()
    assert subset(trial(), 40) is None


def test_labels_are_a_subset_that_stays_over_epochs_and_differs_by_seed() -> None:
    few = trial(labels=12)
    chosen = set(subset(few, 40).tolist())
    assert len(chosen) == 12
    assert {frozenset(order(few, epoch, 40).tolist()) for epoch in (1, 2, 3)} == {frozenset(chosen)}
    assert order(few, 1, 40).tolist() != order(few, 2, 40).tolist()
    assert set(subset(trial(4, labels=12), 40).tolist()) != chosen
    assert chosen < set(subset(trial(labels=20), 40).tolist())  # more labels are those and others
    assert (steps_of(few.recipe, 40), steps_of(trial().recipe, 40)) == (2, 8)


def test_training_is_that_on_the_subset_alone() -> None:
    data = oracle.problem(examples=40, features=9, classes=4)
    few = trial(labels=12)
    (outcome,) = train([few], ["x"], data, dtype=torch.float64)
    kept = subset(few, 40)
    others = torch.ones(40, dtype=torch.bool)
    others[kept] = False
    spoilt = data.train_inputs.clone()
    spoilt[others] = 7.0
    changed = Data(spoilt, data.train_labels, data.test_inputs, data.test_labels, data.scale, data.classes)
    (again,) = train([few], ["x"], changed, dtype=torch.float64)
    assert [e.train_cost for e in again.record.epochs] == [e.train_cost for e in outcome.record.epochs]
    spoilt[kept[0]] = 7.0
    (other,) = train([few], ["x"], changed, dtype=torch.float64)
    assert other.record.epochs[0].train_cost != outcome.record.epochs[0].train_cost


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": 41}, "labels: expected at most 40, the examples of the training set; got 41"),
        ({"labels": 4}, "batch_size: expected at most 4, the labels; got 5"),
    ],
)
def test_labels_that_data_do_not_have(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_against(trial(**fields).recipe, examples=40, classes=4)
