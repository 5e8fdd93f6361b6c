"""`fanin pretrain` and `fanin sample` as a user meets them: going on, divergence, pages, messages for wrong input."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fanin.cli.pretrain import _sizes
from fanin.datasets import load
from fanin.pretraining import DBN, RBM
from fanin.pretraining.autoencoder import greedy
from fanin.pretraining.boltzmann.rows import Batches
from fanin.pretraining.portrait import lower_layers
from fanin.pretraining.saving import load_stack, save_stack
from fanin.report.pretraining.table import number

from .test_cli import fanin

SMALL = ("pretrain", "--data", "digits", "--layers", "12,8", "--epochs", "2,3", "--batch-size", "200", "--seed", "4")
TRAINED = ("sample", "--n", "6", "--steps", "3")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a network of two layers, and what the command printed."""
    folder = tmp_path_factory.mktemp("stack") / "out"
    code, out, err = fanin(*SMALL, "--ais", "20x12", "--out", folder)
    assert code == 0, err
    return folder, out, err


def rows():
    data = load("digits")
    return torch.from_numpy(data.train.inputs).float() * data.scale


def test_the_stack_is_the_one_that_fit_trains(trained):
    folder, _, _ = trained
    model, notes = load_stack(folder / "stack.safetensors")
    expected = DBN((12, 8), lr=0.05, epochs=(2, 3), batch_size=200, seed=4, centered=True).fit(rows())
    assert torch.equal(model.transform(rows()), expected.transform(rows()))
    figures = ("layer", "epoch", "reconstruction_error", "pseudo_likelihood")
    assert [[e[k] for k in figures] for e in notes["history"]] == [[e[k] for k in figures] for e in expected.history_]


def test_lines_table_history_and_page_say_the_same(trained):
    folder, out, err = trained
    history = json.loads((folder / "history.json").read_text())
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert [(e["layer"], e["epoch"]) for e in history["history"]] == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    for entry in history["history"]:
        assert number(entry["reconstruction_error"]) in err
        for key in ("reconstruction_error", "pseudo_likelihood", "free_energy_gap"):
            assert f'<td class="n">{entry[key]:.7g}</td>' in page
    assert "dbn 64-12-8 on digits, 1,437 rows" in out
    low, high = sorted((history["likelihood"]["low"], history["likelihood"]["high"]))
    words = f"{low:.2f} to {high:.2f} nats per row".replace("-", "\N{MINUS SIGN}")
    assert words in " ".join(out.split())
    assert words in page
    assert f"Page: {folder / 'report.html'}" in err
    assert "\x1b" not in out + err


def test_free_energy_gaps_are_those_of_the_machine(trained):
    folder, _, _ = trained
    model, notes = load_stack(folder / "stack.safetensors")
    data = load("digits")
    held_out = torch.from_numpy(data.test.inputs).float() * data.scale
    watched = rows()[torch.linspace(0, len(rows()) - 1, 500).long()]
    first = model.machines_[0]
    gap = float(first.free_energy(held_out).mean() - first.free_energy(watched).mean())
    assert notes["history"][1]["free_energy_gap"] == pytest.approx(gap, abs=1e-4)
    assert notes["history"][0]["free_energy_gap"] != pytest.approx(gap, abs=1e-4)


def test_the_same_command_again_trains_nothing_and_loses_nothing(trained):
    folder, _, _ = trained
    before = (folder / "stack.safetensors").read_bytes(), json.loads((folder / "history.json").read_text())
    code, _, err = fanin(*SMALL, "--out", folder)
    assert code == 0
    assert "nothing to train" in err
    assert (folder / "stack.safetensors").read_bytes() == before[0]
    after = json.loads((folder / "history.json").read_text())
    assert after == before[1]
    assert after["likelihood"] is not None


def interrupted(monkeypatch, kind, after):
    """KeyboardInterrupt amid an epoch when so many have ended; kind: what walks over an epoch's batches."""
    module, name = (kind, "epoch") if kind is Batches else (greedy, "batches")
    real, calls = getattr(module, name), []

    def steps(*arguments, **options):
        calls.append(1)
        for place, step in enumerate(real(*arguments, **options)):
            if len(calls) > after and place == 2:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(module, name, steps)


@pytest.mark.parametrize(("method", "kind"), [("dbn", Batches), ("denoising", greedy)])
def test_an_interrupted_command_goes_on_after_the_last_layer(method, kind, tmp_path, monkeypatch):
    command = [*SMALL, "--method", method, "--out"]
    monkeypatch.setattr(sys, "argv", ["fanin", "pretrain", "--the", "same"])
    with monkeypatch.context() as patch:
        interrupted(patch, kind, 3)  # the second layer has had one epoch
        code, out, err = fanin(*command, tmp_path / "a")
    assert (code, out) == (130, "")
    assert "To go on:\n" in err
    assert "pretrain --the same" in err
    _, notes = load_stack(tmp_path / "a" / "stack.safetensors")
    assert [e["layer"] for e in notes["history"]] == [1, 1]
    code, _, err = fanin(*command, tmp_path / "a")
    assert code == 0
    assert "3 epochs to train, 2 epochs kept from before" in err
    assert fanin(*command, tmp_path / "b")[0] == 0
    (a, first), (b, second) = (load_stack(tmp_path / name / "stack.safetensors") for name in "ab")
    assert torch.equal(a.transform(rows()), b.transform(rows()))
    assert [e["reconstruction_error"] for e in first["history"]] == [
        e["reconstruction_error"] for e in second["history"]
    ]


def test_interrupted_before_anything_is_there(tmp_path, monkeypatch):
    interrupted(monkeypatch, Batches, 0)
    code, _, err = fanin(*SMALL, "--out", tmp_path / "a")
    assert code == 130
    assert "no layer was complete" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["dbn", "autoencoder"])
def test_divergence_is_recorded_and_exits_1(method, tmp_path):
    code, out, _ = fanin(*SMALL, "--method", method, "--lr", "0.05,3e38", "--out", tmp_path)
    assert code == 1
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["divergence"]["layer"] == 2
    at = f"layer 2, epoch {history['divergence']['epoch']}, step {history['divergence']['step']}"
    assert at in " ".join(out.split())
    assert at in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert {e["layer"] for e in load_stack(tmp_path / "stack.safetensors")[1]["history"]} >= {1}


def test_divergence_in_the_first_epoch_leaves_a_report(tmp_path):
    code, _, _ = fanin(*SMALL, "--visible", "bernoulli", "--lr", "3e38", "--out", tmp_path)
    assert code == 1
    assert json.loads((tmp_path / "history.json").read_text())["divergence"]["layer"] == 1
    assert "Diverged: layer 1" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("count", "given", "sizes"),
    [
        (60_000, (None, None), (100, 10)),
        (1437, (None, None), (14, 30)),  # digits: 102 updates an epoch
        (300, (None, None), (10, 60)),
        (7, (None, None), (7, 60)),
        (1437, (200, None), (200, 60)),
        (60_000, (10, None), (10, 10)),
        (1437, (None, [3, 4]), (14, 3)),
        (100, (500, None), (500, 60)),  # too large: the folder says so
    ],
)
def test_batches_and_epochs_are_as_the_data_need_them(count, given, sizes):
    found = _sizes({"batch_size": given[0], "epochs": given[1], "layers": [5, 4]}, count)
    assert (found["batch_size"], found["epochs"][0]) == sizes
    assert len(found["epochs"]) == 2


def test_digits_are_learnt_with_the_defaults(tmp_path):
    """Few rows: batches of 100, and ten epochs, would leave the first layer where data's means alone have put it."""
    command = ("pretrain", "--data", "digits", "--layers", "12", "--lr", "0.1")
    reached = {}
    for name, more in {"usual": (), "few": ("--batch-size", "100", "--epochs", "10")}.items():
        code, _, err = fanin(*command, *more, "--out", tmp_path / name)
        assert code == 0, err
        history = json.loads((tmp_path / name / "history.json").read_text())["history"]
        reached[name] = history[-1]["pseudo_likelihood"]
        assert len(history) == (30 if name == "usual" else 10)
    biases = torch.logit(rows().mean(0), eps=1e-3)
    chance = float(torch.nn.functional.logsigmoid((2 * rows() - 1) * biases).sum(1).mean())  # of independent pixels
    assert reached["few"] < chance + 1 < reached["usual"] - 1


def test_autoencoders_of_real_data_are_trained_and_shown(tmp_path):
    arrays = {"X": np.random.default_rng(1).normal(size=(300, 5)).astype(np.float32), "y": np.arange(300) % 3}
    np.savez(tmp_path / "real.npz", **arrays)
    command = ("pretrain", "--data", tmp_path / "real.npz", "--layers", "4", "--epochs", "1", "--out", tmp_path / "o")
    code, _, err = fanin(*command)
    assert code == 2
    assert "expected values from 0 to 1 with --visible bernoulli" in err
    code, _, err = fanin(*command, "--visible", "gaussian")
    assert code == 0, err
    assert "Filters" not in (tmp_path / "o" / "report.html").read_text()
    code, _, err = fanin("sample", tmp_path / "o")
    assert code == 2
    assert "expected a stack trained on pictures; got one of rows of 5 numbers" in err


USAGE = [
    (["--layers", "12,x"], "--layers: expected widths from the data up, such as 500,500,2000 or 512x3; got '12,x'"),
    (["--layers", "0"], "--layers"),
    (["--layers", ""], "--layers"),
    (["--lr", "0"], "--lr: expected a positive number"),
    (["--lr", "nan"], "--lr: expected a positive number"),
    (["--lr", "1,2,3"], "--lr: expected one number, or one for each of 2 layers; got 3"),
    (["--epochs", "1.5"], "--epochs: expected a positive number"),
    (["--batch-size", "0"], "--batch-size: expected at least 1; got 0"),
    (["--batch-size", "5000"], "expected at least --batch-size 5000 training rows; got 1437"),
    (["--k", "0"], "--k: expected at least 1; got 0"),
    (["--ais", "5"], "--ais: expected TEMPERATURESxCHAINS"),
    (["--ais", "5x1"], "--ais: expected TEMPERATURESxCHAINS"),
    (["--method", "autoencoder", "--ais", "5x5"], "--ais: expected with --method dbn alone"),
    (["--method", "denoising", "--negative", "pcd"], "--negative pcd: expected with --method dbn alone"),
    (["--method", "denoising", "--no-centered", ""], "--no-centered: expected with --method dbn alone"),
    (["--visible", "gaussian", "--binarize", "sample"], "--binarize sample: expected with --visible bernoulli"),
    (["--visible", "gaussian"], "--data digits: Gaussian visible units expect features that vary"),
    (["--data", "nowhere.csv"], "nowhere.csv"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=[" ".join(a)[:40] for a, _ in USAGE])
def test_wrong_input_exits_2_with_a_message(arguments, message, tmp_path):
    given = dict(zip(SMALL[1::2], SMALL[2::2], strict=True)) | dict(zip(arguments[::2], arguments[1::2], strict=True))
    words = [word for pair in given.items() for word in pair if word]
    code, out, err = fanin("pretrain", *words, "--out", tmp_path / "out")
    assert code == 2
    assert message in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_another_stack_in_the_folder_is_not_touched(trained):
    folder, _, _ = trained
    before = (folder / "stack.safetensors").read_bytes()
    code, _, err = fanin(*SMALL[:-1], "5", "--out", folder)
    assert code == 2
    assert "trained with other settings (seed 4 there, 5 here)" in err
    assert (folder / "stack.safetensors").read_bytes() == before
    code, _, err = fanin(*SMALL, "--out", folder / "history.json")
    assert code == 2
    assert "history.json: is a file; expected a folder, new or of an earlier run" in err


def test_samples_depend_on_seed_and_layer_alone(trained, tmp_path):
    folder, _, _ = trained
    shown = {}
    for name, more in {"a": [], "again": [], "seed": ["--seed", "9"], "layer": ["--layer", "1"]}.items():
        code, out, err = fanin(*TRAINED, folder, *more, "--out", tmp_path / f"{name}.png")
        assert code == 0, err
        assert out.splitlines()[0].startswith("6 chains after 3 steps, ")
        shown[name] = np.asarray(Image.open(tmp_path / f"{name}.png"))
    assert shown["a"].shape == (4 * (2 * 8 + 1), 4 * (3 * 8 + 2))  # 6 pictures of 8 x 8, gaps of 1, each pixel 4 x 4
    assert np.array_equal(shown["a"], shown["again"])
    assert not np.array_equal(shown["a"], shown["seed"])
    assert not np.array_equal(shown["a"], shown["layer"])


def test_samples_of_a_lone_machine_follow_its_distribution(tmp_path):
    """Independent units: whatever the chain does, E[v | h] is sigmoid of the visible biases."""
    biases = torch.linspace(-3, 3, 9)
    machine = RBM(2).load_state_dict(
        {"components": torch.zeros(2, 9), "intercept_hidden": torch.zeros(2), "intercept_visible": biases}
    )
    save_stack(tmp_path / "rbm.safetensors", machine)
    code, out, err = fanin(
        "sample", tmp_path / "rbm.safetensors", "--n", "1", "--steps", "5", "--out", tmp_path / "s.png"
    )
    assert code == 0, err
    assert "1 chain after 5 steps, 1 layer" in out
    grey = np.asarray(Image.open(tmp_path / "s.png").convert("L"))[::4, ::4] / 255
    assert grey == pytest.approx(torch.sigmoid(biases).reshape(3, 3).numpy(), abs=0.005)


def test_autoencoders_show_what_they_make_of_rows(tmp_path):
    code, _, err = fanin(*SMALL, "--method", "autoencoder", "--out", tmp_path)
    assert code == 0, err
    code, out, err = fanin("sample", tmp_path, "--n", "5", "--layer", "1")
    assert code == 0, err
    assert "5 held-out rows, and below what 1 layer make of them" in out


def test_what_cannot_be_sampled(trained, tmp_path):
    folder, _, _ = trained
    for arguments, message in (
        ([folder, "--layer", "3"], "--layer: expected 1 to 2, the layers that are trained; got 3"),
        ([folder, "--n", "0"], "--n: expected at least 1; got 0"),
        ([folder, "--out", tmp_path], "expected the path of a file to write"),
        ([tmp_path], "no trained stack here"),
    ):
        code, out, err = fanin("sample", *arguments)
        assert (code, out) == (2, "")
        assert message in err


def test_lower_layers_are_those_of_a_shallower_network(trained):
    model, _ = load_stack(trained[0] / "stack.safetensors")
    x = rows()[:5]
    assert torch.equal(lower_layers(model, 1).transform(x), model.machines_[0].transform(x))
    with pytest.raises(ValueError, match="layers: expected 1 to 2"):
        lower_layers(model, 3)


@pytest.mark.parametrize("command", ["pretrain", "sample"])
def test_help_has_examples(command):
    code, out, _ = fanin(command, "--help")
    assert code == 0
    assert out.count(f"\n  fanin {command} ") == 2
