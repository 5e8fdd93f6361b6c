"""What follows from a recipe: the data it needs, which options change an optimiser's operations, what a card stacks."""

from __future__ import annotations

import pytest

from fanin.catalogue import OPTIMIZERS, STACKED_OPTIMIZERS
from fanin.choice import choose
from fanin.errors import RecipeError
from fanin.execution import check_against, optimizer_flags, steps_on_card
from fanin.recipe import Recipe


def test_recipe_is_checked_against_data():
    check_against(Recipe(batch_size=10), examples=10, classes=10)
    with pytest.raises(RecipeError, match="batch_size: expected at most 9"):
        check_against(Recipe(batch_size=10), examples=9, classes=10)
    with pytest.raises(RecipeError, match="outputs: expected at least 10"):
        check_against(Recipe(outputs=9), examples=900, classes=10)


def test_labels_take_the_place_of_examples():
    check_against(Recipe(batch_size=10, labels=10), examples=900, classes=10)
    with pytest.raises(RecipeError, match="batch_size: expected at most 9, the labels; got 10"):
        check_against(Recipe(batch_size=10, labels=9), examples=900, classes=10)
    with pytest.raises(RecipeError, match="labels: expected at most 900, the examples of the training set; got 901"):
        check_against(Recipe(labels=901), examples=900, classes=10)


def test_flags_are_what_changes_an_optimizers_operations():
    assert optimizer_flags(choose("optimizer", "sgd")) == {"nesterov": False, "momentum": False}
    assert optimizer_flags(choose("optimizer", {"name": "sgd", "lr": 9, "momentum": 0.1}))["momentum"] is True
    one, two = ({"name": "adam", "lr": lr, "betas": [b, 0.9]} for lr, b in ((0.1, 0.2), (0.3, 0.4)))
    assert optimizer_flags(choose("optimizer", one)) == optimizer_flags(choose("optimizer", two)) == {"amsgrad": False}
    assert optimizer_flags(choose("optimizer", {"name": "adam", "amsgrad": True})) == {"amsgrad": True}


def test_a_card_steps_stacks_of_plain_recipes():
    stepped = {name for name in OPTIMIZERS if steps_on_card(Recipe(optimizer=name))}
    assert stepped == STACKED_OPTIMIZERS
    assert not steps_on_card(Recipe(schedule="cosine"))
    assert not steps_on_card(Recipe(model="package.module:factory"))
