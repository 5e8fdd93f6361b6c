"""The command line as a user meets it: exit codes, messages, JSON, resuming after Ctrl-C."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from fanin.cli import main
from fanin.store import Store

TINY = """
name = "tiny"
seeds = 6
[recipe]
hidden = [8]
epochs = 2
batch_size = 50
[[arms]]
name = "he"
init = "he_normal"
[[arms]]
name = "zeros"
init = "zeros"
"""


def fanin(*arguments):
    """(exit code, standard output, standard error) of a command run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    return caught.value.code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished run of the tiny study: its folder."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.toml").write_text(TINY)
    code, out, err = fanin("run", folder / "tiny.toml", "--data", "digits", "--jobs", 1, "--out", folder / "out")
    assert code == 0, err
    assert "he" in out
    assert "report.html" in err
    return folder


HELP = ["run", "list", "results", "report", "predict", "export", "doctor"]


@pytest.mark.parametrize("command", HELP)
def test_help_shows_two_examples(command):
    code, out, _ = fanin(command, "--help")
    assert code == 0
    assert len(re.findall(rf"^  fanin {command}", out, re.MULTILINE)) == 2


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list", "optimizers"], ["--version"]])
def test_help_and_lists_load_neither_torch_nor_scipy(arguments):
    code = (
        "import sys\nfrom fanin.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as e: assert not e.code, e.code\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'altair', 'PIL'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    "what",
    ["studies", "initializers", "calibrations", "pretrainings", "activations", "optimizers", "precisions", "datasets"],
)
def test_list(what):
    code, out, _ = fanin("list", what)
    assert code == 0
    expected = {
        "studies": "lab9/nn",
        "initializers": "xavier_uniform",
        "calibrations": "lsuv",
        "pretrainings": "dbn",
        "activations": "relu",
        "optimizers": "adam",
    }
    expected["precisions"] = "bf16"
    assert expected.get(what, "digits") in out


USAGE = [
    (["run"], "expected at least one study"),
    (["run", "lab9/nm"], "did you mean 'lab9/nn'"),
    (["run", "lab9/nn", "--set", "lrr=1"], "lrr: unknown key"),
    (["run", "lab9/nn", "--set", "lr=-1"], "optimizer.lr: expected greater than 0; got -1"),
    (["run", "lab9/dropout", "--set", "hidden=0"], "hidden.0: expected greater than or equal to 1; got 0"),
    (["run", "lab9/nn", "--set", "init=xavir"], "did you mean 'xavier_normal'"),
    (["run", "lab9/nn", "--vary", "init"], "expected key=value"),
    (["run", "lab9/nn", "--seeds", "0"], "--seeds: expected at least 1; got 0"),
    (["run", "lab9/nn", "--seeds", "many"], "--seeds"),
    (["run", "lab9/nn", "--set", "lr=0.1,0.01"], "use --vary lr=0.1,0.01"),
    (["run", "lab9/nn", "--bogus"], "--bogus"),
    (["run", "lab9/nn", "--bogus"], "Try `fanin run --help`"),
    (["nonsense"], "Try `fanin --help`"),
    (["run", "lab9/nn", "--data", "digits", "--device", "tpu"], "device: expected auto, cpu or cuda; got 'tpu'"),
    (["run", "lab9/nn", "--data", "digits", "--device", "mps"], "device: mps is not supported"),
    (["run", "lab9/nn", "--data", "digits", "--set", "precision=tf32"], "tf32 needs a CUDA card"),
    (["run", "lab9/nn", "--data", "digits", "--set", "precision=fp16"], "expected one of fp32, tf32, bf16"),
    (["run", "lab9/nn", "--data", "digits", "--jobs", "-2"], "jobs: expected 0"),
    (["run", "lab9/nn", "--data", "nowhere.csv"], "nowhere.csv"),
    (["run", "lab9/nn", "--data", "digits", "--set", "batch_size=5000"], "batch_size: expected at most 1437"),
    (["run", "missing.toml"], "missing.toml: cannot be read"),
    (["results", "."], "no results here"),
    (["report", "."], "no results here"),
    (["predict", "."], "no results here"),
    (["export", "."], "no results here"),
    (["nonsense"], "nonsense"),
    (["run", "lab9/nn", "--set", "learning_rate=0.1"], "a recipe calls it lr; expected --set lr=0.1"),
    (["run", "lab9/nn", "--vary", "max_epochs=1,2"], "a recipe calls it epochs; expected --vary epochs=1,2"),
    (["run", "lab9/nn", "--vary", "init="], "--vary: expected key=value"),
    (["run", "lab9/nn", "--dry-run", "--jobs", "-2"], "jobs: expected 0"),
    (["run", "lab9/nn", "--time-limit", ""], "time limit: expected a duration"),
    (["run", "lab9/nn", "--time-limit", "-5m"], "expected a duration such as 90s, 30m, 2h or 1h30m; got '-5m'"),
    (["list", "studies", "more"], "expected no more arguments; got 'more'"),
    (["init", "show", "zeros", "--shape", "99999999x99999999"], "--shape: expected at most 100,000,000 weights"),
    (["explain", "lab9/nn", "a", "b", "--epoch", "1", "--last-epoch"], "--epoch and --last-epoch: choose one"),
    (["explain", "lab9/nn", "a", "b", "--permutations", "0"], "--permutations: expected at least 1; got 0"),
    (["explain", "lab9/nn", "a", "b"], "its arms are 'two hidden layers', 'no hidden layer'"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=[" ".join(a) for a, _ in USAGE])
def test_wrong_input_exits_2_with_a_message_and_leaves_nothing(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = fanin(*arguments)
    assert code == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder(tmp_path, ran):
    (tmp_path / "file").write_text("")
    code, _, err = fanin("run", ran / "tiny.toml", "--data", "digits", "--out", tmp_path / "file" / "out")
    assert code == 2
    assert "cannot be written" in err
    assert "--out" in err


def test_a_study_file_with_several_problems_names_them_all(tmp_path):
    (tmp_path / "bad.toml").write_text('seed = 3\n[recipe]\nhiden = [3]\ninit = "xavir"\n')
    code, _, err = fanin("run", tmp_path / "bad.toml")
    assert code == 2
    assert [word in err for word in ("bad.toml: recipe.init", "bad.toml: recipe.hiden", "bad.toml: seed")] == [True] * 3


def test_dry_run_trains_nothing(tmp_path, ran):
    code, out, _ = fanin("run", ran / "tiny.toml", "--data", "digits", "--dry-run", "--out", tmp_path / "new")
    assert code == 0
    assert "tiny: 2 arms x 6 seeds, 2 epochs each\n  he     init=kaiming_normal\n  zeros  init=zeros\n" in out
    assert f"12 trials on digits, cpu: 0 have their result already in {tmp_path / 'new'}, 12 would be run" in out
    assert not (tmp_path / "new").exists()
    code, out, _ = fanin("run", ran / "tiny.toml", "--data", "digits", "--dry-run", "--out", ran / "out", "--seeds", 7)
    assert f"14 trials on digits, cpu: 12 have their result already in {ran / 'out'}, 2 would be run" in out
    (tmp_path / "twin.toml").write_text(TINY.replace('"tiny"', '"twin"'))
    code, out, _ = fanin("run", ran / "tiny.toml", tmp_path / "twin.toml", "--data", "digits", "--dry-run")
    assert "12 trials on digits, cpu (12 more are the same under another name)" in out


def test_json_of_results_has_the_documented_form(ran):
    code, out, _ = fanin("results", ran / "out", "--json")
    assert code == 0
    (study,) = json.loads(out)
    assert {"study", "data", "device", "arms", "seconds"} <= set(study)
    assert (study["study"], study["data"], study["device"]) == ("tiny", "digits", "cpu")
    he, zeros = study["arms"]
    assert {
        "arm",
        "n",
        "success_rate",
        "accuracy",
        "accuracy_on_raw_pixels",
        "train_cost",
        "published",
        "reproduced",
    } <= set(he)
    assert (he["arm"], he["n"], he["published"], he["reproduced"]) == ("he", 6, None, None)
    assert set(he["accuracy"]) == {"mean", "low", "high"}
    assert [len(curve) for curve in he["train_cost"]] == [2] * 6
    assert he["accuracy"]["low"] < he["accuracy"]["mean"] < he["accuracy"]["high"]
    assert zeros["success_rate"] == 0.0
    with Store.open(ran / "out") as store:
        (stored,) = store.studies()
        records = store.records(stored.study)["he"]
    assert he["train_cost"] == [[e.train_cost for e in r.epochs] for r in records]
    assert he["accuracy"]["mean"] == pytest.approx(sum(r.final.test_accuracy for r in records) / 6)


def test_json_of_run_is_all_there_is_on_standard_output(ran):
    code, out, _ = fanin("run", ran / "tiny.toml", "--data", "digits", "--json", "--out", ran / "out")
    assert code == 0
    assert json.loads(out) == json.loads(fanin("results", ran / "out", "--json")[1])


def test_csv_has_a_line_for_each_trial(ran):
    code, out, _ = fanin("results", ran / "out", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [(row["arm"], row["seed"]) for row in rows] == [(arm, str(s)) for arm in ("he", "zeros") for s in range(6)]
    assert fanin("results", ran / "out", "--csv", "--json")[0] == 2


def test_table_and_report(ran, tmp_path):
    code, out, _ = fanin("results", ran / "out")
    assert code == 0
    assert "zeros" in out
    code, out, _ = fanin("report", ran / "out", "--out", tmp_path / "page.html")
    assert code == 0
    assert out.strip() == str(tmp_path / "page.html")
    assert "<html" in (tmp_path / "page.html").read_text()
    (tmp_path / "file").write_text("")
    code, _, err = fanin("report", ran / "out", "--out", tmp_path / "file" / "page.html")
    assert code == 2
    assert "cannot be written" in err


def test_predict(ran):
    code, out, _ = fanin("predict", ran / "out", "--arm", "he", "--index", 3)
    assert code == 0
    assert "test picture 3 of digits" in out
    assert re.search(r"^label +\d$", out, re.MULTILINE)
    assert re.search(r"^prediction +\d", out, re.MULTILINE)
    assert "arm he, seed 0" in out
    assert fanin("predict", ran / "out", "random")[0] == 0


def test_predict_agrees_with_the_record(ran):
    from fanin.datasets import load

    digits = load("digits")
    right = 0
    for index in range(20):
        out = fanin("predict", ran / "out", "--index", index)[1]
        label, prediction = (re.search(rf"^{word} +(\d)", out, re.MULTILINE)[1] for word in ("label", "prediction"))
        assert label == str(digits.test.labels[index])
        assert ("WRONG" in out) == (label != prediction)
        right += label == prediction
    assert right > 2


def test_predict_transparent_and_deep_pictures(ran, tmp_path):
    import numpy as np
    from PIL import Image

    from fanin.datasets import load

    row = load("digits").test.inputs[5].reshape(8, 8)
    black_on_nothing = np.zeros((8, 8, 4), np.uint8)
    black_on_nothing[..., 3] = row * 15.9
    Image.fromarray(black_on_nothing).save(tmp_path / "alpha.png")
    Image.fromarray((row * 15.9 * 256).astype(np.uint16)).save(tmp_path / "deep.png")
    expected = re.search(r"^prediction +(\d)", fanin("predict", ran / "out", "--index", 5)[1], re.MULTILINE)[1]
    for name in ("alpha.png", "deep.png"):
        out = fanin("predict", ran / "out", "--image", tmp_path / name)[1]
        assert re.search(r"^prediction +(\d)", out, re.MULTILINE)[1] == expected


def test_predict_a_picture(ran, tmp_path):
    import numpy as np
    from PIL import Image

    from fanin.datasets import load

    digits = load("digits")
    row = digits.test.inputs[5].reshape(8, 8)
    picture = Image.fromarray((255 - row * 15.9).astype(np.uint8)).resize((64, 64), Image.Resampling.NEAREST)
    picture.save(tmp_path / "digit.png")
    code, out, _ = fanin("predict", ran / "out", "--image", tmp_path / "digit.png")
    assert code == 0
    assert "resized from 64 x 64 to 8 x 8" in out
    expected = re.search(r"^prediction +(\d)", fanin("predict", ran / "out", "--index", 5)[1], re.MULTILINE)[1]
    assert re.search(r"^prediction +(\d)", out, re.MULTILINE)[1] == expected


def test_predict_as_json(ran, tmp_path):
    import numpy as np
    import torch
    from PIL import Image

    import fanin as library

    code, out, _ = fanin("predict", ran / "out", "--arm", "he", "--index", 3, "--json")
    assert code == 0
    found = json.loads(out)
    digits = library.load("digits")
    with Store.open(ran / "out") as store:
        study = store.studies()[0].study
    trial = study.trials(study.arm("he"))[0].id(digits.fingerprint)
    he, _ = library.load_weights(ran / "out" / "weights" / f"{trial}.safetensors")
    with torch.no_grad():
        logits = he(torch.tensor(digits.test.inputs[3:4] / 16.0, dtype=torch.float32))
    expected = torch.softmax(logits, 1)[0]
    assert [found["probabilities"][str(c)] for c in range(10)] == pytest.approx(expected.tolist(), abs=1e-6)
    assert next(iter(found["probabilities"])) == found["prediction"] == str(int(expected.argmax()))
    assert (found["label"], found["index"], found["seed"]) == (str(digits.test.labels[3]), 3, 0)
    assert found["right"] == (found["label"] == found["prediction"])
    assert (found["study"], found["arm"], found["input"]) == ("tiny", "he", "test picture 3 of digits")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    found = json.loads(fanin("predict", ran / "out", "--image", tmp_path / "black.png", "--json")[1])
    assert (found["label"], found["right"], found["index"]) == (None, None, None)


PREDICT = [
    (["--index", "2.5"], "--index: expected a whole number; got '2.5'"),
    (["--seed", "1.5"], "--seed: expected a whole number; got '1.5'"),
    (["--arm", "hee"], "did you mean 'he'"),
    (["--study", "tyny"], "did you mean 'tiny'"),
    (["--index", "400"], "--index: expected 0 to 359; got 400"),
    (["--index", "-1"], "--index: expected 0 to 359; got -1"),
    (["--image", "none.png"], "none.png: cannot be read as a picture"),
    (["--image", "x.png", "--index", "1"], "choose one"),
    (["anything"], "expected random"),
]


@pytest.mark.parametrize(("arguments", "message"), PREDICT, ids=[" ".join(a) for a, _ in PREDICT])
def test_wrong_predictions(ran, arguments, message):
    code, _, err = fanin("predict", ran / "out", *arguments)
    assert code == 2
    assert message in err


def test_failed_trials_exit_1_and_the_same_command_tries_them_again(tmp_path, ran, monkeypatch):
    from fanin.driver import worker

    def broken(*_, **__):
        raise MemoryError("no room")

    command = ("run", ran / "tiny.toml", "--data", "digits", "--jobs", 0, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "train", broken)
        code, _, err = fanin(*command)
    assert code == 1
    assert "12 FAILED" in err
    assert "MemoryError: no room" in err
    assert fanin(*command)[0] == 0


def test_weights_that_cannot_be_kept_exit_1(tmp_path, ran):
    out = tmp_path / "out"
    out.mkdir()
    (out / "weights").write_text("in the way")
    code, _, err = fanin("run", ran / "tiny.toml", "--data", "digits", "--jobs", 0, "--out", out)
    assert code == 1
    assert "the weights of 2 could not be kept" in err


def test_variants_stand_beside_the_original(tmp_path, ran):
    command = ("run", ran / "tiny.toml", "--data", "digits", "--jobs", 0, "--seeds", 1, "--out", tmp_path / "out")
    assert fanin(*command)[0] == 0
    assert fanin(*command, "--vary", "lr=0.1,0.01")[0] == 0
    studies = json.loads(fanin("results", tmp_path / "out", "--json")[1])
    assert [study["study"] for study in studies] == ["tiny", "tiny [lr=0.1,0.01]"]


def test_another_run_in_the_same_folder_is_refused(tmp_path, ran):
    with Store.create(tmp_path / "out"):
        code, _, err = fanin("run", ran / "tiny.toml", "--data", "digits", "--out", tmp_path / "out")
    assert code == 2
    assert "another fanin run is writing here" in err


def test_a_reader_that_goes_away_does_not_stop_the_run(tmp_path, ran):
    command = (
        f"{sys.executable} -m fanin run {ran / 'tiny.toml'} --data digits --jobs 0 --out {tmp_path / 'out'} | true"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=True)
    assert "Traceback" not in done.stderr
    assert finished(tmp_path / "out") == 12
    assert (tmp_path / "out" / "report.html").exists()


def test_help_answers_quickly():
    best = min(timed_help() for _ in range(3))
    assert best < 0.4 * 3, "three times the promise, since this machine may be busy"


def timed_help():
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fanin", "run", "--help"], check=True, capture_output=True)
    return time.perf_counter() - begun


def test_digits_instead_of_mnist_is_said_loudly(tmp_path, ran, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FANIN_DATA", raising=False)
    for variable in ("PATH", "HOME", "XDG_CACHE_HOME"):  # no npm, no folders to look in
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr("fanin.datasets.mnist.MIRRORS", ())
    code, out, err = fanin("run", ran / "tiny.toml", "--dry-run", "--out", tmp_path / "out")
    assert code == 0
    assert "on digits" in out
    assert "warning" in err
    assert "MNIST" in err
    code, _, err = fanin("run", ran / "tiny.toml", "--data", "mnist", "--out", tmp_path / "out")
    assert code == 2
    assert "npm" in err


def test_doctor(monkeypatch, tmp_path):
    monkeypatch.delenv("FANIN_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, out, _ = fanin("doctor")
    assert code == 0
    for word in ("torch", "products", "GFLOP/s", "mnist      not on this machine", "a worker process started"):
        assert word in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_keeps_results_and_the_same_command_goes_on(tmp_path, number):
    (tmp_path / "slow.toml").write_text(TINY.replace("epochs = 2", "epochs = 60"))
    command = [sys.executable, "-m", "fanin", "run", "slow.toml", "--data", "digits", "--jobs", "1", "--out", "out"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background inherits no Ctrl-C
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    signal.signal(signal.SIGINT, before)
    wait_for(lambda: finished(tmp_path / "out") >= 1)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; finished trials are kept in out" in err
    assert "slow.toml --data digits --jobs 1 --out out" in err
    assert "Traceback" not in err
    kept = finished(tmp_path / "out")
    assert 1 <= kept < 12
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120)
    assert f"{12 - kept} trials to run, {kept} have their result already" in done.stderr
    assert finished(tmp_path / "out") == 12


def finished(folder):
    try:
        with Store.open(folder) as store:
            return sum(len(arm) for s in store.studies() for arm in store.records(s.study).values())
    except Exception:
        return 0


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
