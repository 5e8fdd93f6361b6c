"""run: records are those of the engine, whatever the packing; resuming, growing, failing, dying."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fanin.datasets import Dataset, Split, load
from fanin.driver import Watcher, run
from fanin.driver.run import check, resolve_device
from fanin.engine.export import load_weights
from fanin.errors import FaninError, RecipeError
from fanin.store import Store
from fanin.study import Study
from tests.driver.processes import alive, stat_of, wait_for, workers_of

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


def test_shapes_that_do_not_stack_exactly_are_trained_alone(tmp_path, digits, study, reference, monkeypatch):
    monkeypatch.setattr("fanin.driver.worker.Worker._exact", lambda *_: False)
    log = Log()
    run([study], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert results(tmp_path, study) == reference
    assert {r.environment["stack"] for r in log.records} == {1}
    assert log.done == pytest.approx(log.work)


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
        check([study, study], digits, "cpu")


def test_devices(monkeypatch):
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(FaninError, match="expected auto, cpu or cuda"):
        resolve_device("tpu")
    with pytest.raises(FaninError, match="mps is not supported"):
        resolve_device("mps")


def test_tf32_needs_a_card(digits, study):
    change = dataclasses.replace
    arms = tuple(change(arm, recipe=change(arm.recipe, precision="tf32")) for arm in study.arms)
    tf32 = change(study, arms=arms)
    with pytest.raises(RecipeError, match="tf32 needs a CUDA card"):
        check([tf32], digits, "cpu")
    check([tf32], digits, "cuda")


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


def cpu_seconds(pid):
    return sum(map(int, stat_of(pid)[11:13])) / os.sysconf("SC_CLK_TCK")


def children():
    return workers_of(os.getpid())


# long enough that a busy driver still meets its worker at work
LONG = {"name": "long", "seeds": 1, "recipe": {"hidden": [64], "epochs": 80}, "arms": [{"name": "a"}]}


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


@needs_proc
def test_a_killed_worker_is_replaced_and_its_trial_run_again(tmp_path, digits):
    study = Study.from_dict(LONG)
    killer = Killer(times=1)
    done = run([study], out=tmp_path / "killed", data=digits, jobs=1, watcher=killer)
    assert (done.ran, done.failed) == (1, 0)
    assert any("killed by signal 9" in note and "trying again" in note for note in killer.notices)
    assert killer.done == pytest.approx(killer.work)
    run([study], out=tmp_path / "calm", data=digits, jobs=1)
    assert results(tmp_path / "killed", study) == results(tmp_path / "calm", study)


@needs_proc
def test_a_stack_whose_worker_is_killed_goes_on_in_halves(tmp_path, digits, study, reference):
    killer = Killer(times=2)
    done = run([study], out=tmp_path, data=digits, jobs=1, watcher=killer)
    assert (done.ran, done.failed) == (12, 0)
    assert any("killed by signal 9" in note and "trying again in halves" in note for note in killer.notices)
    assert results(tmp_path, study) == reference
    assert killer.done == pytest.approx(killer.work)


@needs_proc
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


@pytest.mark.parametrize("jobs", [0, 1])
def test_weights_that_cannot_be_kept_cost_no_result(tmp_path, digits, study, reference, jobs):
    (tmp_path / "weights").write_text("a file where the folder of weights should be")
    log = Log()
    done = run([study], out=tmp_path, data=digits, jobs=jobs, watcher=log)
    assert (done.ran, done.failed, done.unsaved) == (12, 0, 4)
    assert results(tmp_path, study) == reference
    assert any("trained weights cannot be written" in notice for notice in log.notices)
    (tmp_path / "weights").unlink()
    again = run([study], out=tmp_path, data=digits, jobs=jobs)
    assert (again.ran, again.unsaved) == (4, 0)  # the first seeds, whose weights are missing
    assert len(list((tmp_path / "weights").iterdir())) == 4
    assert results(tmp_path, study) == reference


def test_a_member_that_fails_fails_alone(tmp_path, digits, study, monkeypatch):
    from fanin.driver import worker

    train = worker.train

    def picky(trials, *rest, **more):
        if any(trial.seed == 1 for trial in trials):
            raise MemoryError("too much")
        return train(trials, *rest, **more)

    monkeypatch.setattr(worker, "train", picky)
    log = Log()
    done = run([study], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert done.failed == 4
    with Store.open(tmp_path) as store:
        found = {(r.seed, r.status) for arm in store.records(study).values() for r in arm}
    assert found == {(0, "done"), (1, "failed"), (2, "done")}
    assert any("trying each alone" in notice for notice in log.notices)
    assert log.done == pytest.approx(log.work)


def test_a_study_goes_on_with_the_matmul_path_it_began_with(tmp_path, digits, study, monkeypatch):
    from fanin.engine import matmul

    def preferring(path):
        return lambda: matmul.MatmulProbe(path, {}, {})

    monkeypatch.setattr(matmul, "choose", preferring("onednn"))
    run([study], out=tmp_path, data=digits, jobs=0, seeds=1)
    monkeypatch.setattr(matmul, "choose", preferring("blas"))
    run([study], out=tmp_path, data=digits, jobs=0, seeds=2)
    with Store.open(tmp_path) as store:
        paths = {r.environment["matmul"] for arm in store.records(study).values() for r in arm}
    assert paths == {"onednn"}


@needs_proc
def test_an_idle_workers_death_is_none_of_the_runs_business(tmp_path, digits):
    class IdleKiller(Log):
        """Kills the worker that has nothing left to do, once the other one is at the last trial."""

        def recorded(self, trial, record):
            super().recorded(trial, record)
            if len(self.records) == 1:
                pids = children()
                busy = max(pids, key=cpu_seconds)
                for pid in pids:
                    if pid != busy:
                        os.kill(pid, signal.SIGKILL)

    quick = {"name": "quick", "recipe": {"hidden": [4], "epochs": 1}, "seeds": 1}
    slow = {"name": "slow", "recipe": {"hidden": "256x3", "epochs": 60}, "seeds": 1}
    killer = IdleKiller()
    done = run([Study.from_dict(quick), Study.from_dict(slow)], out=tmp_path, data=digits, jobs=2, watcher=killer)
    assert (done.ran, done.failed) == (2, 0)


def test_a_worker_killed_in_the_middle_of_a_word():
    from multiprocessing import Pipe

    from fanin.driver.messages import Died
    from fanin.driver.pool import Handle, Pool

    ours, theirs = Pipe()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    os.write(theirs.fileno(), (1000).to_bytes(4, "big") + b"half an answer")
    theirs.close()
    with Pool(None, 0) as pool:
        pool._take_on(Handle(process, ours))
        process.kill()
        ((handle, answer),) = pool.answers()
        assert answer == Died("its worker was killed by signal 9 (out of memory? see the system's log)")
        pool.drop(handle)
        assert list(pool.answers(0)) == []


def test_a_module_in_the_users_folder_does_not_break_workers(tmp_path, digits, study, monkeypatch):
    (tmp_path / "random.py").write_text("raise ImportError('the student wrote this')")
    monkeypatch.chdir(tmp_path)
    assert run([study], out=tmp_path / "out", data=digits, jobs=1, seeds=1).failed == 0


def test_data_in_memory_are_checked(tmp_path, study):
    inputs = np.ones((20, 3), dtype=np.float32)
    labels = np.arange(20) % 2
    bad_inputs, bad_labels = inputs.copy(), labels.copy()
    bad_inputs[3, 1] = np.nan
    bad_labels[5] = 7
    for x, y, message in [
        (bad_inputs, labels, "NaN|not finite|finite"),
        (inputs, bad_labels, "expected 0 to 1, given 7"),
    ]:
        split = Split(x, y)
        data = Dataset(
            name="t", train=split, test=split, classes=("a", "b"), scale=1.0, image_shape=None, source="here"
        )
        with pytest.raises(FaninError, match=message):
            run([study], out=tmp_path / "none", data=data, jobs=0)
    assert not (tmp_path / "none").exists()


def test_bad_numbers_of_seeds_are_refused_in_words(tmp_path, digits, study):
    with pytest.raises(RecipeError, match="seeds: expected greater than or equal to 1; got 0"):
        run([study], out=tmp_path, data=digits, seeds=0)


def test_the_driver_does_not_load_torch():
    code = (
        "import sys\nfrom fanin.driver import run\nfrom fanin.bundle import find\nimport tempfile\n"
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


@needs_proc
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
    found = workers_of(pid)
    return found if len(found) == 2 else None


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
