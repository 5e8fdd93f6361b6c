"""Studies with networks of one's own: the same records by every executor, kept weights, and code only where allowed."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fanin.cli.explain import explain
from fanin.cli.run import run as fanin_run
from fanin.datasets import Dataset, Split
from fanin.driver import Watcher, run
from fanin.driver.executors import standing
from fanin.driver.messages import Finished, Task
from fanin.driver.plan import plan
from fanin.engine.export import load_weights
from fanin.errors import RecipeError, StoreError
from fanin.overrides import override
from fanin.recipe import Recipe, Trial
from fanin.store import Store
from fanin.study import Study

NETWORKS = """
from torch import nn

def mlp(width=8):
    from own_parts import hidden  # when it is called, not when it is imported
    return nn.Sequential(hidden(width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(16, 16)
        self.b = nn.Linear(16, 16)
        self.b.weight = self.a.weight
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        return self.last(self.b(self.a(x.flatten(1)).tanh()).tanh())
"""
PARTS = "from torch import nn\n\ndef hidden(width):\n    return nn.Linear(16, width)\n"
STUDY = """
seeds = 2
[recipe]
epochs = 2
batch_size = 10
[[arms]]
name = "engine"
hidden = [8]
[[arms]]
name = "own"
model = "own_models:mlp"
[[arms]]
name = "wide"
model = { name = "own_models:mlp", width = 12 }
init = "orthogonal"
schedule = "cosine"
[[arms]]
name = "tied"
model = "own_models:Tied"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with own_models.py and study.toml."""
    (tmp_path / "own_models.py").write_text(NETWORKS)
    (tmp_path / "own_parts.py").write_text(PARTS)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    forget(monkeypatch)
    return tmp_path


def forget(monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(Path.cwd())])
    for name in ("own_models", "own_parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture(scope="module")
def data():
    """60 small pictures of three classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    inputs = rng.random((60, 16), np.float32) + np.eye(3, 16, dtype=np.float32)[labels]
    parts = Split(inputs[:45], labels[:45]), Split(inputs[45:], labels[45:])
    return Dataset("small", *parts, classes=("a", "b", "c"), scale=1.0, image_shape=(4, 4), source="drawn")


class Log(Watcher):
    """Writes down what it is told."""

    def __init__(self):
        self.notices, self.done, self.work = [], 0.0, 0.0

    def planned(self, work, trials, known):
        self.work = work

    def advanced(self, work):
        self.done += work

    def noticed(self, message):
        self.notices.append(message)


def results(folder, study):
    with Store.open(folder) as store:
        return {
            (arm, r.seed): (r.status, r.error, repr(r.signal), [dataclasses.replace(e, seconds=0) for e in r.epochs])
            for arm, records in store.records(study).items()
            for r in records
        }


def test_processes_and_this_process_have_the_same_records_and_weights(folder, data, monkeypatch):
    study, logs = Study.from_toml(folder / "study.toml"), [Log(), Log()]
    here = run([study], out=folder / "here", data=data, jobs=0, watcher=logs[0])
    there = run([study], out=folder / "there", data=data, jobs=1, watcher=logs[1])
    assert (here.ran, here.failed, there.ran, there.failed) == (8, 0, 8, 0)
    found = results(folder / "here", study)
    assert found == results(folder / "there", study)
    assert found["own", 0] != found["own", 1]
    assert all(log.done == pytest.approx(log.work) for log in logs)
    again = run([study], out=folder / "here", data=data, jobs=0)
    assert again.ran == 0
    for arm in study.arms:
        name = f"weights/{Trial(arm.recipe, 0).id(data.fingerprint)}.safetensors"
        mine, theirs = (load_file(folder / place / name) for place in ("here", "there"))
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_kept_weights_are_the_networks_state_dict(folder, data):
    from importlib import import_module

    study = Study.from_toml(folder / "study.toml")
    run([study], out=folder / "out", data=data, jobs=0)
    path = folder / "out" / "weights" / f"{Trial(study.arm('tied').recipe, 0).id(data.fingerprint)}.safetensors"
    network = import_module("own_models").Tied()
    network.load_state_dict(load_file(path))
    with torch.no_grad():
        outputs = network.eval()(torch.from_numpy(data.test.inputs))
    accuracy = float((outputs.argmax(1).numpy() == data.test.labels).mean())
    assert accuracy == results(folder / "out", study)["tied", 0][3][-1].test_accuracy
    with pytest.raises(StoreError, match="state_dict of own_models:Tied, a network of one's own"):
        load_weights(path)


def test_a_trial_does_not_depend_on_what_else_is_run(folder, data):
    study = Study.from_toml(folder / "study.toml")
    run([study], out=folder / "all", data=data, jobs=0)
    alone = study.changed(arms=(study.arm("wide"),))
    run([alone], out=folder / "alone", data=data, jobs=0)
    found = results(folder / "all", study)
    assert results(folder / "alone", alone) == {key: value for key, value in found.items() if key[0] == "wide"}


def test_networks_of_ones_own_go_alone(data):
    def sizes(**fields):
        trials = [(Trial(Recipe.from_dict({"batch_size": 10} | fields), seed), f"{seed}") for seed in range(4)]
        return [len(c.trials) for c in plan(trials, features=16, classes=3, workers=1, device="cuda")]

    assert sizes(model="a:b") == [1, 1, 1, 1]
    assert sizes() == [4]
    assert sizes(optimizer="sgd", schedule="cosine") == [4]


def test_a_worker_elsewhere_looks_in_the_drivers_folder(folder, data, tmp_path_factory, monkeypatch):
    trial = Trial(Recipe.from_dict({"model": "own_models:mlp", "batch_size": 10, "epochs": 1}), 0)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    told = standing.train(data, "cpu", Task([trial], ["a"], "blas", frozenset(), folder=folder), lambda _: None)
    assert isinstance(told, Finished)
    forget(monkeypatch)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    lost = standing.train(data, "cpu", Task([trial], ["a"], "blas", frozenset()), lambda _: None)
    assert "no module named 'own_models'" in lost.reason


def test_a_network_that_fails_is_reported_and_the_others_go_on(folder, data):
    study = Study.from_dict(
        {
            "name": "some",
            "seeds": 1,
            "recipe": {"epochs": 1, "batch_size": 10},
            "arms": [{"name": "bad", "model": {"name": "own_models:mlp", "width": "x"}}, {"name": "engine"}],
        }
    )
    done = run([study], out=folder / "out", data=data, jobs=0)
    assert (done.ran, done.failed) == (2, 1)
    status, error, *_ = results(folder / "out", study)["bad", 0]
    assert status == "failed"
    assert error.startswith("model own_models:mlp (width x): it raised TypeError")


def test_changed_code_is_worth_a_word(folder, data, monkeypatch):
    study, log = Study.from_toml(folder / "study.toml"), Log()
    run([study], out=folder / "out", data=data, jobs=0)
    run([study], out=folder / "out", data=data, jobs=0, watcher=log)
    assert not any("changed" in notice for notice in log.notices)
    (folder / "own_models.py").write_text(NETWORKS + "# an end\n")
    run([study], out=folder / "out", data=data, jobs=0, watcher=log)
    assert sum("the file of own_models:mlp has changed since" in notice for notice in log.notices) == 1


# whose word it takes to run code

NAMED = r"model: own_models:mlp is Python code.*say --allow-code"


def test_a_file_alone_has_no_code_run(folder, data):
    (folder / "own_models.py").write_text("from pathlib import Path\nPath('ran').touch()\n" + NETWORKS)
    study = Study.from_toml(folder / "study.toml")
    with pytest.raises(RecipeError, match=NAMED):
        run([study], out=folder / "out", data=data, jobs=0, allow_code=False)
    for more in ({}, {"dry_run": True}, {"set_": ["model.width=9"]}, {"vary": ["lr=0.1,0.2"]}):
        with pytest.raises(RecipeError, match=NAMED):
            fanin_run("study.toml", data="digits", jobs=0, **more)
    assert not (folder / "ran").exists()
    assert {path.name for path in folder.iterdir()} == {"own_models.py", "own_parts.py", "study.toml"}
    run([study.changed(seeds=1)], out=folder / "out", data=data, jobs=0)  # Python's own word
    assert (folder / "ran").exists()


def test_the_command_line_may_allow_it(folder, data, monkeypatch, capsys):
    np.savez("small.npz", **arrays(data))
    assert fanin_run("study.toml", data="small.npz", jobs=0, allow_code=True, seeds=1) == 0
    told = capsys.readouterr()
    assert "4 trials run" in told.err
    assert "wide" in told.out


def test_the_command_line_may_name_it_itself(folder, data, capsys):
    np.savez("small.npz", **arrays(data))
    (folder / "plain.toml").write_text("seeds = 1\n[recipe]\nepochs = 1\nbatch_size = 10\n")
    vary = ["model=own_models:mlp,{name = 'own_models:mlp', width = 4}"]
    assert fanin_run("plain.toml", data="small.npz", jobs=0, vary=vary) == 0
    assert "2 trials run" in capsys.readouterr().err


def arrays(data):
    return {
        "x_train": data.train.inputs,
        "y_train": data.train.labels,
        "x_test": data.test.inputs,
        "y_test": data.test.labels,
    }


def test_explain_does_not_take_a_folders_word(folder, data):
    study = Study.from_toml(folder / "study.toml")
    run([study], out=folder / "out", data=data, jobs=0)
    with pytest.raises(RecipeError, match="own_models:mlp is Python code"):
        explain(str(folder / "out"), "own", "wide", data="digits")
    (folder / "alone.toml").write_text('[recipe]\nmodel = "own_models:mlp"\n')
    with pytest.raises(RecipeError, match="own_models:mlp is Python code"):
        explain(str(folder / "out"), "engine", "alone.toml::default", data="digits")


def test_explain_does_not_run_the_data_that_a_folder_names(folder, data):
    study = Study.from_toml(folder / "study.toml")
    engine = study.changed(arms=(study.arm("engine"), dataclasses.replace(study.arm("engine"), name="same")))
    run([engine], out=folder / "out", data=data, data_spec="own_models:made", jobs=0)
    from fanin.errors import DataError

    with pytest.raises(DataError, match="names Python code, which is run only where you name it yourself"):
        explain(str(folder / "out"), "engine", "same")


def test_explain_attributes_a_difference_between_networks_of_ones_own(folder, data):
    from fanin.proof.explain import explain as explained

    own = Recipe.from_dict({"model": "own_models:mlp", "epochs": 1, "batch_size": 10, "optimizer": {"name": "sgd"}})
    changed = Recipe.from_dict(own.to_dict() | {"init": "zeros", "optimizer": {"name": "sgd", "lr": 0.3}})
    answer = explained(own, changed, data=data, seeds=6, out=folder / "out", jobs=0)
    assert {"init", "optimizer.lr"} <= {factor.name for factor in answer.factors}


def test_what_the_document_shows_runs(folder):
    import re

    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(python|toml)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    (folder / "models.py").write_text(blocks["python"])
    (folder / "cnn.toml").write_text(blocks["toml"])
    shorter = override(Study.from_toml(folder / "cnn.toml"), ["epochs=2"]).changed(seeds=1)
    done = run([shorter], out=folder / "out", data="digits", jobs=0)
    assert (done.ran, done.failed, done.diverged) == (4, 0, 0)
    assert all(found[3][-1].test_accuracy > 0.5 for found in results(folder / "out", shorter).values())
