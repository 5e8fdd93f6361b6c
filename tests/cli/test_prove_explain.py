"""`fanin prove` and `fanin explain` as functions of the command line: data in, words or JSON out, faults told."""

from __future__ import annotations

import json
import sys

import pytest
from cyclopts import App

from fanin.cli.explain import explain
from fanin.cli.prove import loss_of, optimizer_of, prove
from fanin.errors import FaninError

MODEL = """
from torch import nn

def make():
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

def pictures():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))

broken = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a module of the user's in it."""
    (tmp_path / "own_networks.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    return tmp_path


@pytest.fixture
def app():
    made = App(result_action="return_value")
    made.command(prove, name="prove")
    made.command(explain, name="explain")
    return lambda line: made(line, exit_on_error=False, print_error=False)


def test_prove_says_whether_it_helps(folder, app, capsys):
    code = app("prove own_networks:make lr=0.01 optimizer=sgd,lr=1e-5 --data digits --seeds 6 --steps 15")
    out = capsys.readouterr().out
    assert code == 0
    assert out.startswith("lr=0.01 helps: difference −")
    assert "optimizer=sgd,lr=1e-5 hurts" in out
    assert "2 variants together" in out
    assert "training data" not in out  # the data set has a test set


def test_prove_as_json(folder, app, capsys):
    app("prove own_networks:make init=kaiming_normal --data digits --seeds 2 --steps 1 --loss cross_entropy --json")
    found = json.loads(capsys.readouterr().out)
    assert found["verdicts"]["init=kaiming_normal"]["word"] == "too few seeds"
    assert found["loss"] == "cross_entropy"


def test_a_network_of_pictures_gets_pictures(folder, app, capsys):
    assert app("prove own_networks:pictures lr=0.01 --data digits --seeds 2 --steps 2") == 0
    said = capsys.readouterr()
    assert said.out.startswith("lr=0.01 too few seeds")
    assert "pictures of 1 x 8 x 8" in said.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("prove own_network:make lr=0.1", "did you mean 'own_networks'"),
        ("prove own_networks:mak lr=0.1", "did you mean 'make'"),
        ("prove own_networks lr=0.1", "package.module:name"),
        ("prove own_networks:broken lr=0.1", "or a function that makes one; got int"),
        ("prove own_networks:make learning=0.1", "remedy: expected one of init"),
        ("prove own_networks:make lr=0.1 --loss mean", "--loss: expected one of cross_entropy"),
        ("prove own_networks:make lr=0.1 --optimizer addam", "did you mean 'adam'"),
        ("prove own_networks:make lr=0.1 --batch-size 0", "--batch-size: expected at least 1; got 0"),
        ("prove own_networks:make lr=0.1 --seeds -2", "--seeds: expected at least 1; got -2"),
        ("prove own_networks:make lr=0.1 --epochs 1 --steps 3", "--epochs and --steps: choose one"),
        ("explain lab9/quirks softmax SELU", "has no arm 'softmax'"),
        ("explain lab9/quirks SELU lab9/nn::SELU", "lab9/nn has no arm 'SELU'"),
    ],
)
def test_faults_are_told(folder, app, line, words):
    with pytest.raises(FaninError, match=words):
        app(f"{line} --data digits")


def test_a_module_that_fails_is_told(folder, app):
    (folder / "own_broken.py").write_text("import nothing_of_the_kind")
    with pytest.raises(FaninError, match="install what it needs"):
        app("prove own_broken:make lr=0.1 --data digits")
    (folder / "own_failing.py").write_text("1 / 0")
    with pytest.raises(FaninError, match="importing own_failing raised ZeroDivisionError"):
        app("prove own_failing:make lr=0.1 --data digits")


def test_losses_and_optimizers_by_name():
    import torch

    assert loss_of(None) is None
    assert optimizer_of(None) is None
    assert loss_of("mae") is loss_of("l1")
    assert loss_of("torch.nn.functional:l1_loss") is torch.nn.functional.l1_loss
    made = optimizer_of("sgd,lr=0.25,momentum=0.5")([torch.ones(1)])
    assert (made.param_groups[0]["lr"], made.param_groups[0]["momentum"]) == (0.25, 0.5)


def test_explain_finds_arms_in_studies_files_and_folders(folder, app, capsys):
    arms = '\n[[arms]]\nname = "{}"\ninit = "{}"\n'
    head = "[recipe]\nhidden = [8]\nepochs = 1\n"
    (folder / "two.toml").write_text(head + arms.format("wide", "normal") + arms.format("own", "default"))
    (folder / "one.toml").write_text(head + arms.format("other", "zeros"))
    assert app("explain two.toml wide own --data digits --seeds 6 --jobs 0 --out runs/a") == 0
    assert capsys.readouterr().out.startswith("All of the difference in first-epoch training cost")
    app("explain runs/a init=normal init=default --seeds 6 --jobs 0 --json")  # what is there is not run again
    assert json.loads(capsys.readouterr().out)["factors"][0]["name"] == "init"
    app("explain two.toml wide one.toml::other --data digits --seeds 2 --jobs 0 --out runs/b --last-epoch")
    assert "last-epoch training cost" in capsys.readouterr().out
