"""benchmarks/diagnosis.py: counts what a diagnosis said, whichever way it went."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fanin

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "diagnosis.py"


@pytest.fixture(scope="module")
def program():
    """The benchmark as a module."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("diagnosis_benchmark", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path
    del sys.modules[spec.name]


@pytest.fixture(autouse=True)
def _own_random_state():
    with torch.random.fork_rng(devices=[]):
        yield


def a_diagnosis(*causes: str) -> SimpleNamespace:
    return SimpleNamespace(findings=[SimpleNamespace(cause=cause) for cause in causes])


def a_case(*expected: str) -> SimpleNamespace:
    arguments = {"model": nn.Linear(1, 1)}
    return SimpleNamespace(
        name="a case", half="report", expected=expected, setup=lambda: SimpleNamespace(arguments=lambda: arguments)
    )


@pytest.mark.parametrize(
    ("expected", "found", "verdict"),
    [
        (("loss", "layers"), ("layers",), "first"),
        (("loss",), ("symmetry", "capacity", "loss"), "in top three"),
        (("loss",), ("symmetry", "capacity", "layers", "loss"), "other cause"),
        (("loss",), (), "missed"),
        ((), (), "silent"),
        ((), ("loss",), "false alarm"),
    ],
)
def test_verdicts(program, expected, found, verdict):
    outcome = program.look(a_case(*expected), lambda **_: a_diagnosis(*found), steps=3)
    assert (outcome.verdict, outcome.found, outcome.error) == (verdict, found, None)


@pytest.mark.parametrize(("expected", "verdict"), [(("loss",), "missed"), ((), "false alarm")])
def test_a_diagnosis_that_raises_is_no_diagnosis(program, expected, verdict):
    def raises(**_):
        raise ZeroDivisionError("by zero")

    outcome = program.look(a_case(*expected), raises, steps=3)
    assert (outcome.verdict, outcome.error) == (verdict, "ZeroDivisionError: by zero")


def test_rates_by_hand(program):
    def outcome(expected, found):
        return program.Outcome("name", "report", expected, found, 1.0)

    fault = ("loss",)
    found = [("loss",), ("layers", "loss"), ("layers",), ()]
    outcomes = [outcome(fault, f) for f in found] + [outcome((), ()), outcome((), ("loss",)), outcome((), ())]
    rates = {question: (r.successes, r.n) for question, r in program.rates_of(outcomes).items()}
    assert list(rates.values()) == [(3, 4), (2, 4), (1, 4), (1, 3)]
    assert list(program.rates_of(outcomes[4:])) == ["false alarm on a healthy program"]


def test_the_program_prints_and_writes(program, monkeypatch, tmp_path, capsys):
    asked = []

    def diagnose(model, data, *, loss, optimizer, eval_data, epochs, steps, seed):
        asked.append((steps, seed))
        return a_diagnosis("output-activation")

    monkeypatch.setattr(fanin, "diagnose", diagnose, raising=False)
    threads = torch.get_num_threads()
    file = tmp_path / "result.json"
    names = ["softmax_then_cross_entropy", "digits_relu_adam"]
    assert program.main(["--cases", *names, "--steps", "7", "--json", str(file)]) == 0
    torch.set_num_threads(threads)
    assert asked == [(7, 0)] * 2
    result = json.loads(file.read_text())
    verdicts = {case["name"]: case["verdict"] for case in result["cases"]}
    assert verdicts == {names[0]: "first", names[1]: "false alarm"}
    assert "1 of 1" in capsys.readouterr().out


def test_unknown_cases_are_named(program):
    with pytest.raises(SystemExit, match="nothing_of_the_kind"):
        program.chosen("all", ["nothing_of_the_kind"])
