"""run: records are those of the engine, whatever the packing; resuming, growing, failing, dying."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fanin.datasets import Dataset, Split, load
from fanin.driver import Watcher, run
from fanin.driver.run import check, resolve_device
from fanin.engine.export import load_weights
from fanin.errors import FaninError, RecipeError
from fanin.store import Store
from fanin.study import Study

SMALL = {
    "name": "small",
    "seeds": 3,
    "recipe": {"hidden": [16], "epochs": 2, "batch_size": 50},
    "arms": [
        {"name": "he", "init": "he_normal"},
        {"name": "zeros", "init": "zeros"},
        {"name": "dropout", "dropout": 0.3, "optimizer": {"name": "adam", "lr": 0.01}},
        {"name": "bn", "normalization": "batch"},
    ],
}


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def study():
    return Study.from_dict(SMALL)


class Log(Watcher):
    """Writes down what a Watcher is told."""

    def __init__(self):
        self.records, self.studies, self.notices, self.work, self.done = [], [], [], 0.0, 0.0
        self.plans = []

    def planned(self, work, trials, known):
        self.work = work
        self.plans.append((trials, known))

    def advanced(self, work):
        self.done += work

    def recorded(self, trial, record):
        self.records.append(record)

    def completed(self, study):
        self.studies.append(study.name)

    def noticed(self, message):
        self.notices.append(message)


def results(folder, study):
    """Everything that must not depend on packing: no seconds, no environment."""
    with Store.open(folder) as store:
        return {
            (arm, r.seed): (r.status, r.divergence, r.signal, [dataclasses.replace(e, seconds=0) for e in r.epochs])
            for arm, records in store.records(study).items()
            for r in records
        }


@pytest.fixture(scope="module")
def reference(tmp_path_factory, digits):
    """The small study, one worker process."""
    folder = tmp_path_factory.mktemp("reference")
    study = Study.from_dict(SMALL)
    done = run([study], out=folder, data=digits, jobs=1)
    assert (done.ran, done.failed, done.diverged) == (12, 0, 0)
    return results(folder, study)


@pytest.mark.parametrize("jobs", [0, 2])
def test_results_do_not_depend_on_workers(tmp_path, digits, study, reference, jobs):
    log = Log()
    run([study], out=tmp_path, data=digits, jobs=jobs, watcher=log)
    assert results(tmp_path, study) == reference
    assert log.studies == ["small"]
    assert log.plans == [(12, 0)]
    assert log.done == pytest.approx(log.work)


def test_results_do_not_depend_on_order_or_company(tmp_path, digits, study, reference):
    alone = dataclasses.replace(study, arms=study.arms[2:3], seeds=2)
    backwards = dataclasses.replace(study, arms=study.arms[::-1])
    run([alone], out=tmp_path / "alone", data=digits, jobs=0)
    run([backwards], out=tmp_path / "backwards", data=digits, jobs=2)
    assert results(tmp_path / "backwards", backwards) == reference
    for key, value in results(tmp_path / "alone", alone).items():
        assert value == reference[key]


def test_running_again_runs_nothing(tmp_path, digits, study):
    run([study], out=tmp_path, data=digits, jobs=0)
    log = Log()
    again = run([study], out=tmp_path, data=digits, jobs=2, watcher=log)
    assert again.ran == 0
    assert log.plans == [(0, 12)]
    assert log.studies == ["small"]


def test_more_seeds_and_arms_run_only_what_is_missing(tmp_path, digits, study, reference):
    first = dataclasses.replace(study, arms=study.arms[:2])
    run([first], out=tmp_path, data=digits, jobs=0, seeds=2)
    log = Log()
    run([study], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert log.plans == [(8, 4)]
    assert results(tmp_path, study) == reference


def test_studies_share_trials(tmp_path, digits, study):
    other = dataclasses.replace(study, name="other", arms=study.arms[:1])
    log = Log()
    run([study, other], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert len(log.records) == 12
    assert sorted(log.studies) == ["other", "small"]


def test_divergence_is_a_result(tmp_path, digits):
    study = Study.from_dict(
        {
            "name": "s",
            "seeds": 2,
            "recipe": {"hidden": [8], "epochs": 2},
            "arms": [{"name": "calm"}, {"name": "wild", "optimizer": {"name": "sgd", "lr": 1e30}}],
        }
    )
    done = run([study], out=tmp_path, data=digits, jobs=0)
    assert (done.failed, done.diverged) == (0, 2)
    with Store.open(tmp_path) as store:
        wild = store.records(study)["wild"]
    assert all(r.status == "diverged" and r.divergence.epoch == 1 for r in wild)
    assert run([study], out=tmp_path, data=digits, jobs=0).ran == 0


def test_weights_of_the_first_seed_come_back_as_plain_pytorch(tmp_path, digits, study):
    import torch

    run([study], out=tmp_path, data=digits, jobs=0)
    files = {path.stem: path for path in (tmp_path / "weights").iterdir()}
    with Store.open(tmp_path) as store:
        records = store.records(study)
    assert set(files) == {arm[0].trial_id for arm in records.values()}
    for arm in records.values():
        network, metadata = load_weights(files[arm[0].trial_id])
        assert metadata["seed"] == "0"
        inputs = torch.from_numpy(digits.test.inputs).float() * digits.scale
        right = (network(inputs).argmax(1).numpy() == digits.test.labels).mean()
        assert right == pytest.approx(arm[0].final.test_accuracy, abs=1 / 360 + 1e-9)


@pytest.mark.parametrize(("keep", "count"), [("all", 12), ("none", 0)])
def test_keep_weights(tmp_path, digits, study, keep, count):
    run([study], out=tmp_path, data=digits, jobs=0, keep_weights=keep)
    assert len(list((tmp_path / "weights").glob("*"))) == count


def test_what_the_data_cannot_serve_is_told_before_anything_runs(tmp_path, digits):
    study = Study.from_dict({"name": "s", "arms": [{"name": "a", "batch_size": 9999}, {"name": "b", "outputs": 3}]})
    with pytest.raises(RecipeError) as caught:
        run([study], out=tmp_path / "none", data=digits)
    assert "s, arm 'a': batch_size: expected at most 1437" in str(caught.value)
    assert "s, arm 'b': outputs: expected at least 10" in str(caught.value)
    assert not (tmp_path / "none").exists()


def test_studies_need_names_of_their_own(digits, study):
    with pytest.raises(RecipeError, match="used more than once"):
        check([study, study], digits)


def test_devices(monkeypatch):
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(FaninError, match="expected auto, cpu or cuda"):
        resolve_device("tpu")


def test_arguments_are_checked(tmp_path, digits, study):
    with pytest.raises(FaninError, match="jobs: expected 0"):
        run([study], out=tmp_path, data=digits, jobs=-1)
    with pytest.raises(FaninError, match="keep_weights"):
        run([study], out=tmp_path, data=digits, keep_weights="some")


class Killer(Log):
    """Kills the worker that is training, as soon as it has shown life, up to `times`."""

    def __init__(self, times):
        super().__init__()
        self.left = times

    def advanced(self, work):
        super().advanced(work)
        if work > 0 and self.left:
            self.left -= 1
            for pid in children():
                os.kill(pid, signal.SIGKILL)


def children():
    """Process ids of this process's workers."""
    listing = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in listing.stdout.splitlines() if "fanin.driver.worker" in line]


LONG = {"name": "long", "seeds": 1, "recipe": {"hidden": [64], "epochs": 6}, "arms": [{"name": "a"}]}


def test_a_killed_worker_is_replaced_and_its_trial_run_again(tmp_path, digits):
    study = Study.from_dict(LONG)
    killer = Killer(times=1)
    done = run([study], out=tmp_path / "killed", data=digits, jobs=1, watcher=killer)
    assert (done.ran, done.failed) == (1, 0)
    assert any("killed by signal 9" in note and "trying again" in note for note in killer.notices)
    assert killer.done == pytest.approx(killer.work)
    run([study], out=tmp_path / "calm", data=digits, jobs=1)
    assert results(tmp_path / "killed", study) == results(tmp_path / "calm", study)


def test_a_trial_whose_worker_always_dies_is_reported_and_tried_again_next_time(tmp_path, digits):
    study = Study.from_dict(LONG)
    killer = Killer(times=99)
    done = run([study], out=tmp_path, data=digits, jobs=1, watcher=killer)
    assert (done.ran, done.failed) == (1, 1)
    with Store.open(tmp_path) as store:
        (record,) = store.records(study)["a"]
    assert record.status == "failed"
    assert "killed by signal 9" in record.error
    assert "3 times" in record.error
    assert run([study], out=tmp_path, data=digits, jobs=0).failed == 0


def test_an_error_inside_a_trial_fails_it_alone(tmp_path, digits, study):
    (tmp_path / "weights").write_text("a file where the folder of weights should be")
    done = run([study], out=tmp_path, data=digits, jobs=1)
    assert done.failed > 0
    with Store.open(tmp_path) as store:
        errors = {r.error for arm in store.records(study).values() for r in arm if r.status == "failed"}
    assert all("FileExistsError" in error or "NotADirectoryError" in error for error in errors)


def test_the_driver_does_not_load_torch():
    code = (
        "import sys\nfrom fanin.driver import run\nfrom fanin.study import find\nimport tempfile\n"
        "s = find('lab9/softmax')\nrun(s, out=tempfile.mkdtemp(), data='digits', seeds=1, jobs=1)\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'\n"
    )
    from importlib.metadata import version

    if not version("torch").endswith("+cpu"):
        pytest.skip("a torch with CUDA is asked for its devices")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_script_without_a_main_guard_can_run_a_study(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import fanin\nprint('started')\n"
        "study = fanin.Study.from_dict({'name': 's', 'seeds': 1, 'recipe': {'hidden': [4], 'epochs': 1}})\n"
        f"fanin.run([study], out={str(tmp_path / 'out')!r}, data='digits', jobs=2)\n"
    )
    out = subprocess.run([sys.executable, str(script)], check=True, timeout=120, capture_output=True, text=True)
    assert out.stdout.count("started") == 1


def test_workers_end_with_their_driver(tmp_path):
    code = (
        "import fanin\n"
        "study = fanin.Study.from_dict({'name': 's', 'seeds': 2, 'recipe': {'hidden': '256x4', 'epochs': 5000}})\n"
        f"fanin.run([study], out={str(tmp_path)!r}, data='digits', jobs=2)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code])
    workers = wait_for(lambda: two_workers_of(driver.pid))
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(alive(pid) for pid in workers))


def two_workers_of(pid):
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    found = [int(word) for word in listing.stdout.split()]
    return found if len(found) == 2 else None


def alive(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def test_data_in_memory_of_any_kind(tmp_path):
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(60, 7)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64)
    split = Split(inputs, labels)
    data = Dataset(
        name="toy", train=split, test=split, classes=("no", "yes"), scale=1.0, image_shape=None, source="here"
    )
    recipe = {"hidden": [8], "batch_size": 7, "epochs": 30, "optimizer": {"name": "adam", "lr": 0.05}}
    study = Study.from_dict({"name": "toy", "seeds": 2, "recipe": recipe})
    run([study], out=tmp_path, data=data, jobs=0)
    with Store.open(tmp_path) as store:
        assert all(r.final.test_accuracy > 0.9 for r in store.records(study)["default"])
