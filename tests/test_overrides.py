"""Overrides: --set and --vary."""

from __future__ import annotations

import pytest

from fanin.bundle import find
from fanin.errors import RecipeError
from fanin.overrides import override, parse_assignment, parse_value
from fanin.recipe import Recipe
from fanin.settings import assign, setting
from fanin.study import Study


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=0.1,0.2", ("lr", ["0.1", "0.2"])),
        ("hidden=[4],[3,3]", ("hidden", ["[4]", "[3,3]"])),
        ('init={name="normal",std=1.0},zeros', ("init", ['{name="normal",std=1.0}', "zeros"])),
        ("a='x,y',z", ("a", ["'x,y'", "z"])),
    ],
)
def test_assignments(text, expected):
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["lr", "=3", "lr="])
def test_assignments_without_key_or_value(text):
    with pytest.raises(RecipeError, match="expected key=value"):
        parse_assignment(text)


def test_values_are_toml_or_words():
    assert [parse_value(t) for t in ("0.1", "true", "[1, 2]", "zeros", '"x y"')] == [0.1, True, [1, 2], "zeros", "x y"]


def changed(key, value, data=None):
    return Recipe.from_dict(assign(data or Recipe().to_dict(), key, value))


def test_assign_reaches_fields_and_options():
    assert changed("lr", 0.5).optimizer["lr"] == 0.5
    assert changed("optimizer.lr", 0.5) == changed("lr", 0.5)
    assert changed("epochs", 2).epochs == 2
    assert changed("std", 0.5, changed("init", "normal").to_dict()).init["std"] == 0.5
    data = Recipe().to_dict()
    for key, message in [
        ("epoch", "did you mean 'epochs'"),
        ("momentum", "momentum: unknown key"),  # Adam has none
        ("epochs.x", "epochs has no options"),
        ("nothing.x", "nothing.x: unknown key"),
    ]:
        with pytest.raises(RecipeError, match=message):
            assign(data, key, 1)


def test_vary_multiplies_arms_and_values():
    (study,) = find("lab9/xavier")
    varied = override(study, ["epochs=3"], ["lr=0.1,0.001", "dropout=0,0.5"])
    assert varied.name == "lab9/xavier [epochs=3 lr=0.1,0.001 dropout=0,0.5]"
    assert len(varied.arms) == len(study.arms) * 4
    assert varied.arms[0].name == "Xavier uniform, lr=0.1, dropout=0"
    assert all(arm.published is None for arm in varied.arms)
    assert {arm.recipe.epochs for arm in varied.arms} == {3}


def test_what_changes_nothing_is_the_study_itself():
    (study,) = find("lab9/xavier")
    assert override(study) is study
    assert override(study, ["epochs=15"]) == study


def test_a_changed_study_has_a_name_of_its_own_and_no_questions():
    (study,) = find("lab9/activation")
    changed = override(study, ["epochs=2"])
    assert changed.name == "lab9/activation [epochs=2]"
    assert study.questions
    assert changed.questions == ()
    assert (changed.title, changed.question) == ("lab9/activation with epochs=2", "")


def test_one_arm_is_named_by_its_values():
    study = Study.from_dict({"name": "s"})
    assert [arm.name for arm in override(study, [], ["init=zeros,he_normal"]).arms] == ["init=zeros", "init=he_normal"]


def test_order_of_assignments_does_not_matter():
    study = Study.from_dict({"name": "s", "recipe": {"optimizer": "sgd"}})
    for sets in (["nesterov=true", "momentum=0.9"], ["momentum=0.9", "nesterov=true"]):
        assert override(study, sets).arms[0].recipe.optimizer["nesterov"]
    for sets in (["std=0.5", "init=normal"], ["init=normal", "std=0.5"]):
        assert override(study, sets).arms[0].recipe.init["std"] == 0.5


BAD = [
    ("lab9/nn", ["lr=-1"], [], "lab9/nn, arm 'two hidden layers': optimizer.lr: expected greater than 0; got -1"),
    ("lab9/nn", ["momentum=0.9"], [], "lab9/nn, arm 'two hidden layers': momentum: unknown key"),
    ("lab9/nn", [], ["lr=0.1,0.1"], "is used more than once"),
    ("lab9/nn", [], ["hidden=256,256"], "is used more than once"),
    ("lab9/activation", ["activation=relu"], [], "--set activation: the arms of lab9/activation ('sigmoid', 'tanh'"),
]


@pytest.mark.parametrize(("name", "sets", "varies", "message"), BAD, ids=[m for *_, m in BAD])
def test_overrides_that_make_no_sense(name, sets, varies, message):
    (study,) = find(name)
    with pytest.raises(RecipeError) as caught:
        override(study, sets, varies)
    assert message in str(caught.value)


def test_two_settings_of_many_values_make_a_map():
    study = Study.from_dict({"name": "s"})
    assert override(study, varies=["lr=0.1,0.2,0.3", "hidden=3,4,5"]).grid == ("lr", "hidden")
    assert override(study, varies=["lr=0.1,0.2,0.3", "hidden=3,4"]).grid == ()
    assert override(study, varies=["lr=0.1,0.2,0.3"]).grid == ()


def test_what_a_grid_varies_cannot_be_set():
    study = Study.from_dict({"name": "s", "grid": {"lr": [0.1, 0.2], "hidden": ["3", "4"]}})
    with pytest.raises(RecipeError, match=r"\('lr=0.1, hidden=3', 'lr=0.1, hidden=4', .*4'\) differ in lr"):
        override(study, sets=["lr=0.3"])
    many = Study.from_dict({"name": "s", "grid": {"lr": [i / 10 for i in range(1, 10)]}})
    with pytest.raises(RecipeError, match=r"'lr=0.6' and 3 more\) differ in lr"):
        override(many, sets=["lr=0.3"])
    assert override(study, sets=["epochs=3"]).grid == ("lr", "hidden")


@pytest.mark.parametrize(
    ("key", "value"), [("hidden", (256, 256)), ("lr", 1e-3), ("optimizer.lr", 1e-3), ("epochs", 15)]
)
def test_a_setting_by_its_key(key, value):
    assert setting(Recipe(), key) == value


@pytest.mark.parametrize("key", ["init.std", "epochs.x", "nothing"])
def test_a_setting_that_is_not_there(key):
    with pytest.raises(RecipeError, match=key.partition(".")[0]):
        setting(Recipe(), key)
