"""explain: recipes through the driver into a folder, functions by autograd; shares, words, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import fanin
from fanin.datasets import load
from fanin.errors import FaninError, RecipeError
from fanin.proof.cells import Asked, Factor, factors_of, label, recipe_at
from fanin.recipe import Recipe
from fanin.statistics import ratio_interval
from fanin.store import Store
from fanin.study import Arm

SMALL = {"hidden": [16], "epochs": 2, "batch_size": 50}
A = Recipe.from_dict(SMALL | {"init": {"name": "normal", "std": 1.0}, "optimizer": {"name": "adam", "lr": 0.01}})
B = Recipe.from_dict(SMALL | {"init": "xavier_uniform", "optimizer": {"name": "adam", "lr": 0.001}})


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def explained(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    return fanin.explain(A, B, data=digits, seeds=6, out=folder, jobs=0), folder


def test_factors_are_the_settings_in_which_recipes_differ():
    assert factors_of(A, B) == (
        Factor(
            "init", {"name": "normal", "std": 1.0} if "std" in str(A.to_dict()["init"]) else "normal", "xavier_uniform"
        ),
        Factor("optimizer.lr", 0.01, 0.001),
    )
    assert factors_of(A, A) == ()


def test_cells_are_the_recipes_between():
    found = factors_of(A, B)
    assert recipe_at(B, found, 0) == B
    assert recipe_at(B, found, 3) == A
    between = recipe_at(B, found, 2)
    assert (between.init, between.optimizer["lr"]) == (B.init, 0.01)
    assert label(found, 2) == "init=xavier_uniform, optimizer.lr=0.01"


def test_a_field_that_is_not_set_on_one_side():
    some = Recipe.from_dict(SMALL | {"labels": 100, "outputs": 20})
    none = Recipe.from_dict(SMALL)
    found = factors_of(some, none)
    assert {f.name for f in found} == {"labels", "outputs"}
    assert recipe_at(none, found, 3) == some
    back = factors_of(none, some)
    assert recipe_at(some, back, 3) == none


def test_a_combination_that_cannot_be_run_is_told():
    one = Recipe.from_dict(SMALL | {"normalization": "batch", "batch_size": 50})
    two = Recipe.from_dict(SMALL | {"batch_size": 1})
    with pytest.raises(RecipeError, match=r"normalization=batch, batch_size=1: .*cannot be run"):
        recipe_at(two, factors_of(one, two), 1)


def test_recipes_run_into_a_folder_and_shares_are_of_its_records(explained, digits):
    found, folder = explained
    with Store.open(folder) as store:
        study = store.studies()[0].study
        costs = {name: np.array([r.epochs[0].train_cost for r in rows]) for name, rows in store.records(study).items()}
    a, b = costs["init=normal, optimizer.lr=0.01"], costs["init=xavier_uniform, optimizer.lr=0.001"]
    init, lr = costs["init=normal, optimizer.lr=0.001"], costs["init=xavier_uniform, optimizer.lr=0.01"]
    assert found.attribution.difference.mean == pytest.approx((a - b).mean(), rel=1e-12)
    phi = ((init - b) + (a - lr)) / 2
    share = found.share("init")
    assert share.value.mean == pytest.approx(phi.mean(), rel=1e-12)
    cov = np.cov(phi, a - b) / 6
    expected = ratio_interval(
        (phi.mean(), (a - b).mean()), (cov[0, 0], cov[1, 1]), cov[0, 1], freedom=5, confidence=0.975
    )
    assert (share.share.low, share.share.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert fanin.run([study], data=digits, out=folder, jobs=0).ran == 0


def test_the_words_say_what_makes_the_difference(explained):
    found, folder = explained
    share = found.attribution.shares[0].share
    assert found.text.startswith(f"{100 * share.value:.0f} % [")
    assert "the weight initialisation" in found.text
    assert str(folder) in str(found)
    assert "4 combinations x 6 paired seeds" in str(found)
    assert "<table>" in found._repr_html_()
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [len(cell["values"]) for cell in data["cells"]] == [6] * 4


def test_arms_lend_their_names_and_one_factor_is_all(digits, tmp_path):
    arms = [
        Arm(name=n, recipe=Recipe.from_dict(SMALL | {"init": i})) for n, i in (("big", "normal"), ("own", "default"))
    ]
    found = fanin.explain(*arms, data=digits, seeds=6, epochs=1, out=tmp_path, jobs=0)
    assert found.text.startswith("All of the difference in first-epoch training cost (")
    assert "of big and" in found.text
    assert found.share("init").share.value == 1


def test_the_divergence_itself_can_be_explained(digits, tmp_path):
    wild = Recipe.from_dict(SMALL | {"epochs": 1, "optimizer": {"name": "sgd", "lr": 1e30}, "init": "normal"})
    tame = Recipe.from_dict(SMALL | {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}})
    with pytest.raises(FaninError, match='metric="diverged"'):
        fanin.explain(wild, tame, data=digits, seeds=6, out=tmp_path, jobs=0)
    found = fanin.explain(wild, tame, data=digits, seeds=6, out=tmp_path, jobs=0, metric="diverged")
    assert found.attribution.shares[0].factor == "optimizer.lr"
    assert found.share("optimizer.lr").share.value == 1
    assert found.share("init").share.value == 0


X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def make(scale: float, lr: float = 0.1, noise: str = "own") -> dict[str, object]:
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.mul_(scale)
    return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=lr), "batch_size": 32}


def test_functions_with_named_factors(random_state):
    before = random_state()
    found = fanin.explain(make, factors={"scale": (40.0, 1.0), "lr": (0.01, 0.011)}, data=(X, Y), seeds=6)
    assert random_state() == before
    assert found.attribution.shares[0].factor == "scale"
    assert found.attribution.shares[0].share.low > 0.9
    assert "% [" in found.text
    assert "is scale" in found.text


def test_a_cell_is_the_training_by_hand():
    found = fanin.explain(make, factors={"scale": (40.0, 1.0), "lr": (0.1, 0.2)}, data=(X, Y), seeds=2, epoch=2)
    torch.manual_seed(1)
    parts = make(40.0, 0.2)
    training = fanin.training.Training.of(parts["model"], (X, Y), optimizer=parts["optimizer"], batch_size=32)
    losses = fanin.training.train(parts["model"], training.stream(1), training.loss, parts["optimizer"], steps=4).losses
    assert found.values[1][1] == pytest.approx(sum(losses[2:]) / 2, rel=1e-9)


@pytest.mark.parametrize("metric", ["train_loss", "test_loss", "test_accuracy", "diverged"])
def test_other_metrics_of_functions(metric):
    found = fanin.explain(
        make, factors={"scale": (40.0, 1.0)}, data=(X, Y), eval_data=(X, Y), seeds=2, epochs=1, metric=metric
    )
    assert len(found.values) == 2
    assert all(np.isfinite(v).all() for v in found.values.values())


def test_five_factors_run_some_orders():
    def sums(**levels):
        model = nn.Linear(4, 2)
        with torch.no_grad():
            model.weight.mul_(1 + sum(levels.values()))
        return model

    factors = {f"f{i}": (float(i), 0.0) for i in range(5)}
    found = fanin.explain(sums, factors=factors, data=(X, Y), seeds=2, permutations=4, epochs=1)
    assert len(found.values) < 32
    assert found.attribution.orders == 4
    assert sum(s.share.value for s in found.attribution.shares) == pytest.approx(1)
    assert "over 4 orders of change" in str(found)
    assert found.share("f0").value.mean == 0


def test_no_difference_is_not_divided():
    found = fanin.explain(
        make, factors={"noise": ("a", "b")} | {"lr": (0.1, 0.1), "scale": (1.0, 1.0)}, data=(X, Y), seeds=6
    )
    assert found.text.startswith("No evidence of a difference")
    with pytest.raises(KeyError):
        found.share("nothing")


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((A, A), {}, "they are the same"),
        ((A,), {}, "expected a second recipe"),
        ((A, B), {"metric": "accurate"}, "metric: expected one of"),
        ((A, B), {"epoch": 3}, "2 and 2 epochs; got 3"),
        ((A, B), {"epoch": 0}, "epoch: expected 1"),
        ((A, B), {"seeds": 1}, "at least 2"),
        ((make,), {}, "a function and its factors"),
        ((make,), {"factors": {"lr": 3}}, "A's level, B's level"),
        ((make,), {"factors": {"speed": (1, 2)}, "data": (X, Y)}, "unexpected keyword argument 'speed'"),
        ((make,), {"factors": {"lr": (1.0, 2.0)}, "jobs": 2}, "jobs: only for recipes"),
        ((lambda lr: nn.Linear(4, 2),), {"factors": {"lr": (1.0, 2.0)}}, "data: expected"),
        ((lambda lr: lr,), {"factors": {"lr": (1.0, 2.0)}, "data": (X, Y)}, "make: expected a network"),
        ((make,), {"factors": {"lr": (1.0, 2.0)}, "metric": "test_loss", "data": (X, Y)}, "eval_data"),
        ((make,), {"factors": dict.fromkeys("abcdefghijklm", (1, 2))}, "at most 12 factors"),
        ((make,), {"factors": dict.fromkeys("abcde", (1, 2)), "permutations": 2}, "at least 4 orders"),
    ],
)
def test_what_cannot_be_explained_is_told(arguments, options, words):
    with pytest.raises(FaninError, match=words):
        fanin.explain(*arguments, **options)


def test_metrics_in_words():
    assert Asked("train_cost", 1).words == "first-epoch training cost"
    assert Asked("test_accuracy", None).words == "last-epoch test accuracy"
    assert Asked("test_loss", 7).words == "test loss of epoch 7"
