"""Study: TOML in and out, overrides, bundled studies."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanin.bundle import bundled, find
from fanin.errors import RecipeError
from fanin.recipe import Recipe
from fanin.study import Arm, Published, Study
from tests.test_recipe import recipes

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
curves = st.lists(st.floats(0, 1e3), max_size=4).map(tuple)
published = st.builds(Published, train_cost=curves, test_accuracy=curves, accuracy=st.none() | st.floats(0, 1))
arms = st.builds(
    lambda name, recipe, pub, note: Arm(name=name, recipe=Recipe.from_dict(recipe), published=pub, note=note),
    names,
    recipes,
    st.none() | published,
    st.text(max_size=10),
)
studies = st.builds(
    lambda name, arms, question, seeds: Study(name=name, arms=tuple(arms), question=question, seeds=seeds),
    names,
    st.lists(arms, min_size=1, max_size=4, unique_by=lambda arm: arm.name),
    st.text(max_size=20),
    st.integers(1, 99),
)


@given(studies)
def test_toml_round_trip(study):
    assert Study.from_dict(tomllib.loads(study.to_toml())) == study


@pytest.mark.parametrize("name", sorted(bundled()))
def test_bundled_studies_are_valid_and_named_after_their_files(name):
    (study,) = find(name)
    assert study.name == name
    assert study.title
    assert study.question
    assert Study.from_dict(tomllib.loads(study.to_toml())) == study


def test_lab9_is_all_of_its_folder_in_order():
    assert [study.name for study in find("lab9")] == [name for name in bundled() if name.startswith("lab9/")]
    assert len(find("lab9")) == 11


def test_quirks_trains_nothing_that_other_studies_do_not():
    *others, quirks = find("lab9")
    known = {arm.recipe.key for study in others for arm in study.arms}
    assert quirks.name == "lab9/quirks"
    assert {arm.recipe.key for arm in quirks.arms} <= known


def test_a_study_without_arms_is_its_recipe():
    study = Study.from_dict({"name": "one", "recipe": {"hidden": [5]}})
    assert [(arm.name, arm.recipe.hidden) for arm in study.arms] == [("default", (5,))]


def grid(**fields):
    return {"name": "g", "recipe": {"init": {"name": "normal", "std": 0.5}}, **fields}


def test_a_grid_multiplies_the_arms():
    study = Study.from_dict(grid(grid={"lr": [0.1, 0.2], "hidden": ["4x2", [3]]}))
    assert study.grid == ("lr", "hidden")
    assert [(arm.name, arm.recipe.optimizer["lr"], arm.recipe.hidden) for arm in study.arms] == [
        ("lr=0.1, hidden=4x2", 0.1, (4, 4)),
        ("lr=0.1, hidden=[3]", 0.1, (3,)),
        ("lr=0.2, hidden=4x2", 0.2, (4, 4)),
        ("lr=0.2, hidden=[3]", 0.2, (3,)),
    ]
    assert Study.from_dict(tomllib.loads(study.to_toml())) == study


def test_a_grid_of_arms_sets_names_before_their_options():
    arms = [{"name": "a"}, {"name": "b", "activation": "tanh"}]
    study = Study.from_dict(grid(arms=arms, grid={"init.std": [1.0], "init": ["truncated_normal", "normal"]}))
    assert next(arm.name for arm in study.arms) == "a, init.std=1.0, init=truncated_normal"
    assert [(arm.recipe.init.name, arm.recipe.init["std"]) for arm in study.arms[2:]] == [
        ("truncated_normal", 1.0),
        ("normal", 1.0),
    ]
    assert {arm.recipe.activation.name for arm in study.arms[2:]} == {"tanh"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "grid: expected a table of lists of values"),
        ({"lr": 0.1}, "grid: expected a table of lists of values"),
        ({"lr": []}, "grid: expected a table of lists of values"),
        ({}, "grid: expected a table of lists of values"),
        ({"lrr": [1]}, "unknown key"),
        ({"lr": [-1.0]}, "optimizer.lr: expected greater than 0"),
        ({"lr": [0.1], "hidden": [3], "epochs": [1]}, "grid: .*at most 2"),
        ({"lr": [0.1, 0.1]}, "is used more than once"),
        (["lr", "init.mode"], "grid: init.mode: this recipe has no such setting"),
    ],
)
def test_bad_grids(value, message):
    with pytest.raises(RecipeError, match=message):
        Study.from_dict(grid(grid=value))


def test_trials_are_paired_by_seed():
    study = Study.from_dict({"name": "s", "seeds": 3, "arms": [{"name": "a"}, {"name": "b", "init": "zeros"}]})
    assert [[t.seed for t in study.trials(arm)] for arm in study.arms] == [[0, 1, 2], [0, 1, 2]]


BAD = [
    ({"arms": []}, "arms: expected a list of tables"),
    ({"arms": [{}]}, "arms.0.name: required, and not given"),
    ({"arms": [{"name": "a"}, {"name": "a"}]}, "the name 'a' is used more than once"),
    ({"arms": [{"name": "a", "hiden": [1]}]}, "arms.0.hiden: unknown key"),
    ({"arms": [{"name": "a", "published": {"cost": 1}}]}, "arms.0.published.cost: unknown key"),
    ({"seeds": 0}, "seeds: expected greater than or equal to 1; got 0"),
    ({"sed": 3}, "sed: unknown key; a study takes"),
    ({"recipe": 3}, "recipe: expected a table"),
    ({"recipe": {"init": "xavir"}, "arms": [{"name": "a"}, {"name": "b"}]}, "recipe.init: expected one of"),
    ({"success_accuracy": 2.0}, "success_accuracy: expected less than or equal to 1"),
    (
        {"questions": [{"ask": "?", "a": {"arm": "x"}, "b": {"arm": "default"}, "if_higher": "h", "if_lower": "l"}]},
        "questions.0.a.arm: expected one of ['default']; got 'x'",
    ),
    ({"questions": [{"ask": "?"}]}, "questions.0.a: required, and not given"),
]


@pytest.mark.parametrize(("data", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_studies(tmp_path, data, message):
    import tomli_w

    file = tmp_path / "s.toml"
    file.write_text(tomli_w.dumps({"name": "s"} | data))
    with pytest.raises(RecipeError) as caught:
        Study.from_toml(file)
    assert message in str(caught.value)
    assert all(line.startswith(f"{file}: ") for line in str(caught.value).splitlines())


def test_a_problem_of_the_shared_recipe_is_told_once():
    data = {"name": "s", "recipe": {"hiden": [1]}, "arms": [{"name": str(i)} for i in range(5)]}
    with pytest.raises(RecipeError) as caught:
        Study.from_dict(data)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_no_toml(tmp_path):
    (tmp_path / "a.toml").write_text("x = [")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    for name, message in [("a.toml", "not valid TOML"), ("b.toml", "not valid TOML"), ("c.toml", "cannot be read")]:
        with pytest.raises(RecipeError, match=message):
            find(str(tmp_path / name))


def test_unknown_study_suggests_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'softmax'"):
        find("softmx")


@pytest.mark.parametrize(
    ("shared", "arm"),
    [
        ({"activation": "sigmoid", "pretraining": "dbn"}, {}),
        ({"pretraining": "dbn"}, {"activation": "sigmoid"}),
        ({"normalization": "batch", "batch_size": 1}, {"batch_size": 20}),
    ],
)
def test_shared_settings_may_need_each_other_or_the_arms(shared, arm):
    study = Study.from_dict({"name": "a/b", "recipe": shared, "arms": [{"name": "x"} | arm]})
    assert study.arms[0].recipe == Recipe.from_dict(shared | arm)


def test_shared_settings_that_fit_no_arm_are_told_by_the_arms():
    with pytest.raises(RecipeError, match=r"arms\.0\.pretraining: the units of a dbn are sigmoid"):
        Study.from_dict({"name": "a/b", "recipe": {"pretraining": "dbn"}, "arms": [{"name": "x"}]})


def test_a_name_that_is_too_long_for_a_file_is_an_unknown_study():
    with pytest.raises(RecipeError, match="unknown study"):
        find("x" * 5000)
