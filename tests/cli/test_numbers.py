"""Numbers on the command line: whole ones are not rounded, and counts have a bound."""

from __future__ import annotations

import pytest

from fanin.cli import main
from fanin.cli.numbers import check_range
from fanin.errors import FaninError, RecipeError
from fanin.recipe import Recipe


def told(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, capsys.readouterr()


@pytest.mark.parametrize("key", ["--seeds", "--jobs"])
@pytest.mark.parametrize("value", ["2.5", "2.0", "1e3", "two", ""])
def test_a_number_that_is_not_whole_is_refused_and_not_rounded(capsys, monkeypatch, tmp_path, key, value):
    monkeypatch.chdir(tmp_path)
    code, said = told(capsys, "run", "lab9/nn", "--data", "digits", "--dry-run", key, value)
    assert code == 2
    assert said.out == ""
    assert f"Invalid value for {key}: expected a whole number; got {value!r}" in said.err


WHOLE = [
    *(("propagate", option) for option in ("--seeds", "--examples", "--features", "--outputs")),
    *(("diagnose", "m:x", "--data", "digits", option) for option in ("--steps", "--epochs", "--batch-size", "--seed")),
    *(("lr-find", "m:x", "--data", "digits", option) for option in ("--steps", "--seeds", "--batch-size")),
    *(("prove", "m:x", "lr=1", option) for option in ("--steps", "--epochs", "--batch-size", "--seeds")),
    *(("explain", "lab9/nn", "a", "b", option) for option in ("--epoch", "--epochs", "--seeds", "--jobs")),
    ("explain", "lab9/nn", "a", "b", "--permutations"),
    *(("pretrain", option) for option in ("--k", "--batch-size", "--seed")),
    *(("sample", ".", option) for option in ("--n", "--steps", "--seed", "--layer")),
    *(("predict", ".", option) for option in ("--seed", "--index")),
    ("export", ".", "--seed"),
]


@pytest.mark.parametrize("command", WHOLE, ids=" ".join)
@pytest.mark.parametrize(
    ("value", "words"), [("2.5", "; got '2.5'"), ("9" * 5000, "got '9999"), (str(2**63), "at most 9")]
)
def test_so_it_is_in_every_command(capsys, command, value, words):
    code, said = told(capsys, *command, value)
    assert code == 2
    assert said.out == ""
    assert f"Invalid value for {command[-1]}: expected a whole number" in said.err
    assert words in said.err
    assert len(said.err) < 300


def test_a_range_is_told_with_the_side_that_is_missed():
    check_range("--n", None, 1)
    check_range("--n", 1, 1, 5)
    check_range("--n", 5, 1, 5)
    with pytest.raises(FaninError, match="--n: expected at least 1; got 0"):
        check_range("--n", 0, 1, 5)
    with pytest.raises(FaninError, match="--n: expected at most 5,000; got 5001"):
        check_range("--n", 5001, 1, 5000)


def test_a_whole_number_is_taken(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, said = told(capsys, "run", "lab9/nn", "--data", "digits", "--dry-run", "--seeds", "17", "--jobs", "2")
    assert code == 0
    assert "arms x 17 seeds" in said.out


@pytest.mark.parametrize("digits", [10, 400, 4000])
def test_a_count_beyond_all_sense_is_refused_before_anything_is_reckoned(capsys, monkeypatch, tmp_path, digits):
    monkeypatch.chdir(tmp_path)
    code, said = told(capsys, "run", "lab9/nn", "--data", "digits", "--set", f"epochs={'9' * digits}")
    assert code == 2
    assert "epochs: expected less than or equal to 2147483647; got 999" in said.err
    assert list(tmp_path.iterdir()) == []


def test_the_largest_count_is_a_recipe_and_the_next_is_none():
    assert Recipe(epochs=2**31 - 1).epochs == 2**31 - 1
    with pytest.raises(RecipeError, match="epochs: expected less than or equal to 2147483647; got 2147483648"):
        Recipe.from_dict({"epochs": 2**31})


def test_help_says_when_the_time_limit_is_looked_at(capsys):
    code, said = told(capsys, "run", "--help")
    assert code == 0
    assert "With --jobs 0 it is looked at after each epoch only" in " ".join(said.out.replace("│", "").split())
