"""`fanin propagate` as a user meets it: settings multiplied out, JSON, the page, and messages for wrong input."""

from __future__ import annotations

import json

import pytest

from .test_cli import fanin

SMALL = ("propagate", "--hidden", "8x3", "--features", "6", "--outputs", "2", "--seeds", "2", "--examples", "12")


def test_every_combination_is_one_setting(tmp_path):
    page = tmp_path / "page.html"
    code, out, err = fanin(*SMALL, "--activation", "tanh,relu", "--init", "critical,he_normal", "--out", page)
    assert code == 0, err
    for label in ("tanh, critical", "tanh, kaiming_normal", "relu, critical", "relu, kaiming_normal"):
        assert f"\n{label}: " in out
        assert label in page.read_text(encoding="utf-8")
    assert "\x1b" not in out
    assert f"Page: {page}" in err


def test_json_has_every_number_and_stands_alone():
    code, out, err = fanin(*SMALL, "--init", '{name = "normal", std = 0.2},orthogonal', "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert [d["setting"]["init"] for d in data] == [{"name": "normal", "std": 0.2}, "orthogonal"]
    for item in data:
        assert item["widths"] == [6, 8, 8, 8, 2]
        assert item["seeds"] == [0, 1]
        assert len(item["layers"]) == 4
        assert all(len(layer["activation"]) == 2 for layer in item["layers"])
        assert item["findings"]["forward"]["measured"] > 0


def test_data_in_place_of_normal_inputs():
    code, out, err = fanin(
        "propagate", "--hidden", "8x2", "--seeds", "1", "--data", "digits", "--examples", "20", "--json"
    )
    assert code == 0, err
    (item,) = json.loads(out)
    assert (item["inputs"], item["examples"], item["widths"][0]) == ("digits", 20, 64)
    assert 0 < item["input_second_moment"] < 1
    assert len(item["starts"]) == 1


USAGE = [
    (["--hidden", "256y3"], "hidden: expected widths such as [256, 256] or '256x2'; got '256y3'"),
    (["--hidden", "[]"], "hidden"),
    (["--init", "xavier_unifrom"], "did you mean 'xavier_uniform'?"),
    (["--activation", "tahn"], "did you mean 'tanh'?"),
    (["--init", '{name = "normal", stdd = 1}'], "unknown key; normal takes mean, std; did you mean 'std'?"),
    (["--normalization", "layer"], "normalization: expected one of none, batch"),
    (["--dropout", "1.5"], "dropout: expected less than 1"),
    (["--seeds", "0"], "--seeds: expected at least 1; got 0"),
    (["--features", "1"], "--features: expected at least 2; got 1"),
    (["--seeds", "99999999999"], "--seeds: expected at most 10,000; got 99999999999"),
    (["--features", "99999999999"], "--features: expected at most 1,000,000"),
    (["--examples", "99999999999"], "--examples: expected at most 100,000"),
    (["--features", "9", "--data", "digits"], "--features and --data: choose one"),
    (["--activation", ""], "--activation: expected a name, or several with commas between; got ''"),
    (["--init", " "], "--init: expected a name, or several with commas between; got ' '"),
    (["--examples", "3"], "--examples: expected at least 8; got 3"),
    (["--init", ",".join(["zeros"] * 65)], "expected at most 64 settings; got 65"),
    (["--out", "."], "--out .: expected the path of a file"),
    (["--data", "nowhere.csv"], "nowhere.csv"),
    (["--activation", "gelu", "--init", "critical"], "critical"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=[" ".join(a)[:40] for a, _ in USAGE])
def test_wrong_input_exits_2_with_a_message(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = fanin("propagate", *([] if "--hidden" in arguments else ["--hidden", "8x2"]), *arguments)
    assert code == 2
    assert message in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_exits_2(tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = fanin(*SMALL, "--out", tmp_path / "file" / "page.html")
    assert code == 2
    assert "cannot be written" in err
    assert out == ""  # told before the work


def test_help_is_there():
    code, out, _ = fanin("propagate", "--help")
    assert code == 0
    assert "fanin propagate --hidden 256x30" in out
