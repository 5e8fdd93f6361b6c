"""`fanin export`: from a study folder to a program that tells the recorded accuracy without fanin; messages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import fanin as library
from fanin.store import Store

from .test_cli import fanin

STUDY = """
name = "mine/exported"
seeds = 2
[recipe]
hidden = [8]
epochs = 1
batch_size = 50
optimizer = { name = "adam", lr = 0.03 }
[[arms]]
name = "plain"
[[arms]]
name = "3 × calibrated"
calibration = "lsuv"
[[arms]]
name = "diverging"
optimizer = { name = "sgd", lr = 1e30 }
loss = "mse"
"""
WITHOUT_FANIN = """if True:  # python -c wants no indentation at its start
    import runpy, sys
    sys.modules["fanin"] = None  # an import of it fails
    _, program, data = sys.argv
    for more in ([], ["--train"]):
        sys.argv = [program, data, *more]
        runpy.run_path(program, run_name="__main__")
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished run of the study that has kept all weights, and the data as a file that the programs read."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "study.toml").write_text(STUDY)
    options = ("--data", "digits", "--jobs", 0, "--keep-weights", "all", "--out", folder / "out")
    code, _, err = fanin("run", folder / "study.toml", *options)
    assert code == 0, err
    data = library.load("digits")
    arrays = {"x_train": data.train.inputs, "y_train": data.train.labels}
    arrays |= {"x_test": data.test.inputs.reshape(-1, 8, 8), "y_test": data.test.labels}
    np.savez(folder / "digits.npz", **arrays)
    return folder


def accuracy(folder, arm, seed):
    with Store.open(folder / "out") as store:
        return store.records(store.studies()[0].study)[arm][seed].final.test_accuracy


def test_a_program_tells_the_recorded_accuracy(ran, tmp_path, run_strictly):
    code, out, err = fanin("export", ran / "out", "--seed", 1, "--out", tmp_path / "new" / "net.py")
    program, weights, start = (
        tmp_path / "new" / name for name in ("net.py", "net.safetensors", "net.start.safetensors")
    )
    assert (code, err) == (0, "")
    assert out.splitlines() == [str(program), str(weights), str(start)]
    recorded = f"accuracy {accuracy(ran, 'plain', 1):.4f}"
    head = program.read_text().partition("from __future__")[0]
    for words in ("study mine/exported, arm 'plain', seed 1", f"{recorded} on the test set after 1 epoch\n", "digits"):
        assert words in head
    told, *trained = run_strictly(
        "-c", WITHOUT_FANIN, str(program), str(ran / "digits.npz"), folder=tmp_path
    ).splitlines()
    assert told == recorded
    assert re.fullmatch(r"epoch 1: loss \d\.\d{4}", trained[0])
    assert float(trained[1].removeprefix("accuracy ")) > 0.5  # of ten classes


def test_names_seeds_and_data(ran, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fanin("export", ran / "out")[0] == 0
    assert fanin("export", ran / "out", "--arm", "3 × calibrated", "--seed", 1, "--study", "exported")[0] == 0
    names = {path.name for path in tmp_path.glob("*.py")}
    assert names == {"exported_plain.py", "exported_3_calibrated_seed_1.py"}
    assert "arm '3 × calibrated', seed 1" in (tmp_path / "exported_3_calibrated_seed_1.py").read_text()
    assert "; then calibrated by lsuv" in (tmp_path / "exported_3_calibrated_seed_1.py").read_text()
    assert (tmp_path / "exported_3_calibrated_seed_1.start.safetensors").exists()


def test_data_that_are_gone_leave_a_program_without_training(ran, tmp_path, monkeypatch):
    def gone(*_, otherwise):
        raise library.FaninError(f"no such file; {otherwise}")

    monkeypatch.setattr(sys.modules["fanin.cli.export"], "data_of", gone)
    code, _, err = fanin("export", ran / "out", "--arm", "3 × calibrated", "--out", tmp_path / "net.py")
    assert code == 0
    assert "written without train(): no such file; its first weights cannot be had" in err
    assert "def train(" not in (tmp_path / "net.py").read_text()


def test_a_diverged_trial_says_so(ran, tmp_path):
    assert fanin("export", ran / "out", "--arm", "diverging", "--out", tmp_path / "net.py")[0] == 0
    assert re.search(r"^result   diverged in epoch 1, step \d+$", (tmp_path / "net.py").read_text(), re.MULTILINE)


def test_from_python(ran, tmp_path):
    (path,) = [path for path in (ran / "out" / "weights").iterdir() if library.load_weights(path)[1]["seed"] == "1"][:1]
    written = library.export_script(path, tmp_path / "net.py")
    assert [path.name for path in written][:2] == ["net.py", "net.safetensors"]
    assert "study mine/exported, arm" in written[0].read_text()
    with pytest.raises(library.FaninError, match=r"no trial of study None, arm 'unknown' in .*; leave them out"):
        library.export_script(path, tmp_path / "other.py", arm="unknown")


def test_nothing_is_replaced_unasked(ran, tmp_path):
    (tmp_path / "net.start.safetensors").write_text("mine")
    command = ("export", ran / "out", "--out", tmp_path / "net.py")
    code, out, err = fanin(*command)
    assert (code, out) == (2, "")
    assert "net.start.safetensors: there already; choose another name, or replace with --force" in err
    assert [path.name for path in tmp_path.iterdir()] == ["net.start.safetensors"]
    assert fanin(*command, "--force")[0] == 0
    assert len(list(tmp_path.iterdir())) == 3


WRONG = [
    (["--arm", "plein"], "did you mean 'plain'"),
    (["--study", "mine/exportet"], "did you mean 'mine/exported'"),
    (["--seed", "2"], "no weights of seed 2 were kept; of mine/exported, arm 'plain', there are those of 0, 1"),
    (["--seed", "-1"], "no weights of seed -1"),
    (["--seed", "first"], "first"),
    (["--out", "net"], "net: expected a file name that ends in .py"),
    (["--out", "numpy.py"], "hides the module numpy"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_input(ran, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = fanin("export", ran / "out", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert list(Path().iterdir()) == []


def test_predict_takes_a_seed_too(ran):
    assert "arm plain, seed 1" in fanin("predict", ran / "out", "--index", 3, "--seed", 1)[1]
    assert "arm plain, seed 0" in fanin("predict", ran / "out", "--index", 3)[1]
    assert "no weights of seed 5" in fanin("predict", ran / "out", "--seed", 5)[2]


def test_a_network_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "exported_models.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))\n"
    )
    recipe = '[recipe]\nmodel = "exported_models:make"\nepochs = 1\n'
    (tmp_path / "own.toml").write_text(f'name = "own"\nseeds = 1\n{recipe}')
    code, _, err = fanin("run", "own.toml", "--data", "digits", "--jobs", 0, "--out", "out", "--allow-code")
    assert code == 0, err
    code, _, err = fanin("export", "out", "--out", "net.py")
    assert code == 2
    assert "the state_dict of exported_models:make, a network of one's own; make that network yourself" in err
    assert not Path("net.py").exists()
