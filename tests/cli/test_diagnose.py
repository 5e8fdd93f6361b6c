"""`fanin diagnose` and `fanin lr-find` as functions of the command line: exit codes, JSON, the page, messages."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from cyclopts import App

from fanin.cli.diagnose import FOUND, diagnose, lr_find
from fanin.errors import FaninError

CODE = """
import torch
from torch import nn

def good():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

class Good(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

instance = good()

def softmaxed():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.Softmax(1))

def pictures():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))

def needs(width):
    return nn.Linear(width, 1)

def line():
    x = torch.linspace(-1, 1, 64)[:, None]
    return x, 2 * x + 1

def four():
    x, y = line()
    return x, y, x[:8], y[:8]

def linear():
    return nn.Linear(1, 1)

def cubed(outputs, targets):
    return ((outputs - targets).abs() ** 3).mean()

def fast(parameters, lr=0.1):
    return torch.optim.SGD(parameters, lr=lr)

number = 3
"""


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A folder with a user's own code, which is the current one."""
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("mine", None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(before)
    sys.modules.pop("mine", None)


def command(function, *arguments):
    """As typed in a terminal."""
    app = App(result_action="return_value")
    app.default(function)
    return app(list(map(str, arguments)), exit_on_error=False, print_error=False)


@pytest.mark.parametrize("model", ["mine:good", "mine:Good", "mine:instance"])
def test_function_class_and_instance_are_models(user, capsys, model):
    assert command(diagnose, model, "--data", "digits", "--steps", 0, "--fail-on-finding") == 0
    out, err = capsys.readouterr()
    assert out.startswith("Nothing found")
    assert "loss: nn.CrossEntropyLoss" in out
    assert err == ""


def test_findings_are_printed_and_fail_where_that_is_asked_for(user, capsys):
    page = user / "page.html"
    arguments = ("mine:softmaxed", "--data", "digits", "--loss", "cross_entropy", "--steps", 0, "--html", page)
    assert command(diagnose, *arguments, "--fail-on-finding") == FOUND == 3
    out, err = capsys.readouterr()
    assert "1. Output activation" in out
    assert "\x1b" not in out
    assert f"Page: {page}" in err
    assert "Output activation" in page.read_text(encoding="utf-8")
    assert command(diagnose, *arguments) == 0


def test_json_stands_alone(user, capsys):
    command(diagnose, "mine:good", "--data", "digits", "--steps", 0, "--json", "--optimizer", "sgd", "--lr", 0.05)
    out, err = capsys.readouterr()
    plain = json.loads(out)
    assert err == ""
    assert plain["healthy"] is True
    assert plain["facts"]["optimiser"] == "SGD"
    assert plain["facts"]["data"] == "1437 examples, batches of 32"


def test_pictures_are_taken_where_rows_do_not_fit_and_that_is_said(user, capsys):
    assert command(diagnose, "mine:pictures", "--data", "digits", "--steps", 0) == 0
    out, err = capsys.readouterr()
    assert "inputs: pictures of 1 x 8 x 8, since the model does not take rows of 64" in err
    assert "Nothing found" in out


@pytest.mark.parametrize("data", ["mine:line", "mine:four"])
def test_data_loss_and_optimiser_may_be_code(user, capsys, data):
    arguments = ("mine:linear", "--data", data, "--loss", "mine:cubed", "--optimizer", "mine:fast", "--batch-size", 16)
    assert command(diagnose, *arguments, "--steps", 0, "--json", "--lr", 0.5) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["facts"]["loss"] == "cubed"
    assert plain["facts"]["optimiser"] == "mine:fast"
    assert plain["facts"]["data"] == "64 examples, batches of 16"


def test_lr_find_prints_a_rate_and_writes_json(user, capsys):
    arguments = ("mine:linear", "--data", "mine:line", "--optimizer", "mine:fast", "--seeds", 2, "--steps", 20)
    assert command(lr_find, *arguments) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("lr = ")
    assert "over seeds" in out
    assert "loss " in out
    assert command(lr_find, *arguments, "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["low"] <= plain["suggestion"] <= plain["high"]
    assert len(plain["rates"]) == 20


USAGE = [
    (["nowhere:model"], "no module named 'nowhere'"),
    (["min:good"], "did you mean 'mine'?"),
    (["mine:god"], "mine has no 'god'; did you mean 'good'?"),
    (["mine"], "MODEL: expected MODULE:ATTR"),
    (["mine:number"], "expected an nn.Module, its class, or a function that makes one; got int"),
    (["mine:needs"], "called without arguments it raised TypeError"),
    (["mine:good", "--loss", "cross_entropi"], "did you mean 'cross_entropy'?"),
    (["mine:good", "--loss", "mine:number"], "expected a function of (outputs, targets); got int"),
    (["mine:good", "--optimizer", "adan"], "did you mean 'adam'?"),
    (["mine:good", "--lr", "-1"], "--lr: expected a positive number; got -1"),
    (["mine:good", "--lr", "inf"], "--lr: expected a positive number; got inf"),
    (["mine:good", "--optimizer", "sgd,lr=0.1", "--lr", "0.2"], "--optimizer sgd,lr=0.1 and --lr: choose one rate"),
    (["mine:good", "--optimizer", "sgd,lrr=0.1"], "got 'lrr'; did you mean 'lr'?"),
    (["mine:good", "--optimizer", "sgd,lr="], "--optimizer sgd,lr=: lr: expected a number"),
    (["mine:good", "--seed", "-1"], "--seed: expected at least 0; got -1"),
    (["mine:good", "--batch-size", "0"], "--batch-size: expected at least 1; got 0"),
    (["mine:good", "--steps", "-1"], "--steps: expected at least 0; got -1"),
    (["mine:good", "--epochs", "0"], "--epochs: expected at least 1; got 0"),
    (["mine:good", "--html", "."], "--html .: expected the path of a file to write"),
    (["mine:linear"], "mat1 and mat2 shapes cannot be multiplied"),
]


@pytest.mark.parametrize(("arguments", "words"), USAGE, ids=[" ".join(a) for a, _ in USAGE])
def test_wrong_use_is_told(user, arguments, words):
    with pytest.raises(FaninError) as error:
        command(diagnose, *arguments, "--data", "digits")
    assert words in str(error.value)


def test_a_page_that_cannot_be_written_is_told(user):
    (user / "file").write_text("")
    with pytest.raises(FaninError, match="cannot be written"):
        command(diagnose, "mine:good", "--data", "digits", "--steps", 0, "--html", user / "file" / "page.html")


def test_code_that_breaks_is_told_with_its_error(user):
    (user / "broken.py").write_text("1 / 0")
    with pytest.raises(FaninError, match="importing broken raised ZeroDivisionError"):
        command(diagnose, "broken:model", "--data", "digits")


def test_an_optimiser_by_name_takes_options():
    from fanin.cli.training import optimizer_of

    made = optimizer_of("sgd,momentum=0.5", 0.25)([torch.ones(1)])
    assert isinstance(made, torch.optim.SGD)
    assert (made.param_groups[0]["lr"], made.param_groups[0]["momentum"]) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0"], "--seeds: expected at least 1; got 0"),
        (["--steps", "9"], "--steps: expected at least 10; got 9"),
        (["--low", "1", "--high", "0.1"], "--low and --high: expected 0 < low < high; got 1 and 0.1"),
        (["--high", "inf"], "--low and --high: expected 0 < low < high; got 1e-07 and inf"),
    ],
)
def test_wrong_ranges_are_told_in_the_words_of_the_command_line(user, arguments, words):
    with pytest.raises(FaninError) as error:
        command(lr_find, "mine:good", "--data", "digits", *arguments)
    assert words in str(error.value)
