"""Check-points of a study: a run that was killed goes on inside its trials, with the same results, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from zlib import crc32

import pytest
from safetensors.numpy import load_file

from fanin.cli import main
from fanin.datasets import load
from fanin.driver import TimeUp, Watcher, checkpoints, run
from fanin.driver.executors.inline import InlineExecutor
from fanin.driver.plan import plan
from fanin.engine import checkpoint
from fanin.engine.checkpoint import FILE, trials_of
from fanin.recipe import Recipe, Trial
from fanin.store import Store
from fanin.study import Study
from tests.driver.processes import alive, wait_for, workers_of

STUDY = Study.from_dict(
    {
        "name": "s",
        "seeds": 2,
        "recipe": {"hidden": [16], "epochs": 6, "batch_size": 50, "dropout": 0.2},
        "arms": [{"name": "adam"}, {"name": "sgd", "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}],
    }
)
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


class Log(Watcher):
    """Writes down what it is told; `stop` epochs' work after the start it raises."""

    def __init__(self, stop=None, error=KeyboardInterrupt):
        self.notices, self.records, self.work, self.done = [], [], 0.0, 0.0
        self.stop, self.error, self.words = stop, error, 0

    def planned(self, work, trials, known):
        self.work = work

    def advanced(self, work):
        self.done += work
        self.words += 1
        if self.words == self.stop:
            raise self.error

    def recorded(self, trial, record):
        self.records.append(record)

    def noticed(self, message):
        self.notices.append(message)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, digits):
    """What nobody disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    run([STUDY], out=folder, data=digits, jobs=0)
    return results(folder)


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch):
    """A check-point and a word after every epoch."""
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr("fanin.driver.worker._SECONDS_BETWEEN_WORDS", 0.0)


def results(folder, study=STUDY):
    """Everything but seconds and what it ran on; the bits of kept weights."""
    with Store.open(folder) as store:
        found = {
            (arm, r.seed): repr(
                (r.status, r.divergence, r.signal, [dataclasses.replace(e, seconds=0) for e in r.epochs])
            )
            for arm, records in store.records(study).items()
            for r in records
        }
    weights = {path.name: load_file(path) for path in (folder / "weights").glob("*")}
    return found, {(name, key): t.tobytes() for name, tensors in weights.items() for key, t in tensors.items()}


def stopped(folder, digits, *, words, study=STUDY, error=KeyboardInterrupt, **options):
    """Run in this process until the watcher has heard of so many epochs."""
    with pytest.raises(error):
        run([study], out=folder, data=digits, jobs=0, watcher=Log(words, error), **options)


def kept(folder):
    """The check-points of a study folder, with their epochs."""
    states = sorted((folder / "checkpoints").glob(f"*/{FILE}"))
    return {path.parent.name: json.loads(path.read_text())["content"]["epoch"] for path in states}


def test_an_interrupted_run_goes_on_inside_its_trials(tmp_path, digits, reference):
    stopped(tmp_path, digits, words=4)
    assert list(kept(tmp_path).values()) == [3]
    log = Log()
    done = run([STUDY], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert (done.ran, done.failed) == (4, 0)
    assert results(tmp_path) == reference
    assert [notice for notice in log.notices if "goes on after epoch 3, from its check-point" in notice]
    assert log.done == pytest.approx(log.work)
    assert not (tmp_path / "checkpoints").exists()


def test_a_changed_current_folder_takes_nothing_elsewhere(tmp_path, digits, reference, monkeypatch):
    """A watcher or a user's network may change it, and `out` is often relative."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    class Wanderer(Log):
        def advanced(self, work):
            super().advanced(work)
            monkeypatch.chdir(elsewhere)

    for stop in (4, None):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
            done = run([STUDY], out="out", data=digits, jobs=0, watcher=Wanderer(stop))
        assert list(kept(tmp_path / "out").values()) == ([3] if stop else [])
    assert done.folder == tmp_path / "out"
    assert results(tmp_path / "out") == reference
    assert list(elsewhere.iterdir()) == []


def test_the_results_differ_if_a_check_point_does(tmp_path, digits, reference):
    """That the comparison above can fail: the state is loaded, and counts."""
    from fanin.engine.checkpoint import read, write

    stopped(tmp_path, digits, words=4)
    (folder,) = (tmp_path / "checkpoints" / name for name in kept(tmp_path))
    found = read(folder)
    found.state["network"][0] += 1e-6
    write(folder, found)
    run([STUDY], out=tmp_path, data=digits, jobs=0)
    assert results(tmp_path) != reference


def test_interrupted_at_every_epoch(tmp_path, digits, reference):
    """One epoch further each time: twelve of two cohorts."""
    interruptions = 0
    while interruptions < 30:
        try:
            # the first word tells of what was done before, the second of one more epoch, which is then kept
            run([STUDY], out=tmp_path, data=digits, jobs=0, watcher=Log(3))
        except KeyboardInterrupt:
            interruptions += 1
        else:
            break
    assert 8 <= interruptions <= 12
    assert results(tmp_path) == reference


def test_a_time_limit_writes_nothing_more(tmp_path, digits, reference, monkeypatch):
    stopped(tmp_path, digits, words=3, error=TimeUp)
    before = kept(tmp_path)
    assert list(before.values()) == [2]  # the third epoch is done and not kept
    run([STUDY], out=tmp_path, data=digits, jobs=0)
    assert results(tmp_path) == reference


def test_short_trials_leave_nothing(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 60.0)
    stopped(tmp_path, digits, words=5)
    assert kept(tmp_path) == {}
    log = Log()
    run([STUDY], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert log.notices == []


def test_stacks_are_put_together_as_they_were(tmp_path, digits, reference, monkeypatch):
    """One process left a stack of two, where two workers would take each alone."""
    stopped(tmp_path, digits, words=4)
    ((name, _),) = kept(tmp_path).items()
    trials = trials_of(tmp_path / "checkpoints" / name)
    assert len(trials) == 2
    log = Log()
    monkeypatch.setattr(InlineExecutor, "workers", 2)
    run([STUDY], out=tmp_path, data=digits, jobs=0, watcher=log)
    stacks = {record.trial_id: record.environment["stack"] for record in log.records}
    assert {stacks[trial] for trial in trials} == {2}
    assert sorted(stacks.values()) == [1, 1, 2, 2]
    assert results(tmp_path) == reference


def test_members_that_do_not_stack_exactly_keep_what_they_finished(tmp_path, digits, reference, monkeypatch):
    """Trained one after the other, and recorded together: the first is at its end, the second on the way."""
    monkeypatch.setattr("fanin.driver.worker.Worker._exact", lambda *_: False)
    stopped(tmp_path, digits, words=6 + 3)
    assert sorted(kept(tmp_path).values()) == [2, 6]
    log = Log()
    run([STUDY], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert results(tmp_path) == reference
    assert sum("goes on after epoch" in notice for notice in log.notices) == 2
    assert not (tmp_path / "checkpoints").exists()


def test_another_studys_check_points_stay(tmp_path, digits, reference):
    other = Study.from_dict({"name": "other", "seeds": 1, "recipe": {"hidden": [4], "epochs": 3}})
    stopped(tmp_path, digits, words=4)
    before = kept(tmp_path)
    run([other], out=tmp_path, data=digits, jobs=0)
    assert kept(tmp_path) == before
    run([STUDY], out=tmp_path, data=digits, jobs=0)
    assert results(tmp_path)[0] == reference[0]


def test_check_points_of_trials_with_a_result_are_swept(tmp_path, digits):
    stopped(tmp_path, digits, words=4)
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "copy")
    run([STUDY], out=tmp_path, data=digits, jobs=0)
    shutil.copytree(tmp_path / "copy", tmp_path / "checkpoints")
    log = Log()
    run([STUDY.changed(seeds=3)], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert log.notices == []
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("file", [FILE, "3.safetensors"])
def test_a_damaged_check_point_is_told_and_costs_no_result(tmp_path, digits, reference, file):
    stopped(tmp_path, digits, words=4)
    (path,) = (tmp_path / "checkpoints").glob(f"*/{file}")
    path.write_bytes(path.read_bytes()[:-20])
    log = Log()
    run([STUDY], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert results(tmp_path) == reference
    assert [notice for notice in log.notices if "damaged" in notice and "anew" in notice]
    assert not (tmp_path / "checkpoints").exists()


def test_a_folder_that_vanishes_costs_the_check_points_only(tmp_path, digits, reference, monkeypatch):
    def vanished(*_):
        raise FileNotFoundError(2, "No such file or directory", "checkpoints")

    monkeypatch.setattr(checkpoint, "write", vanished)
    log = Log()
    done = run([STUDY], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert done.failed == 0
    assert results(tmp_path) == reference
    assert all("no check-points are written: [Errno 2]" in notice for notice in log.notices)
    assert len(log.notices) == 2  # once a stack


def test_a_check_point_without_a_checksum_is_not_used(tmp_path):
    checkpoint.write(tmp_path, checkpoint.Kept(["a"], 1, {}, {}))
    body = json.loads((tmp_path / FILE).read_text())["content"]
    assert checkpoint.read(tmp_path).epoch == 1
    del body["tensors_checksum"]
    (tmp_path / FILE).write_text(json.dumps({"checksum": crc32(json.dumps(body).encode()), "content": body}))
    with pytest.raises(checkpoint.UnusableError, match="damaged"):
        checkpoint.read(tmp_path)


def test_another_machine_starts_anew_and_says_so(tmp_path, digits, reference, monkeypatch):
    from fanin.driver import worker

    stopped(tmp_path, digits, words=4)
    here = worker.environment
    monkeypatch.setattr(worker, "environment", lambda *args, **fields: here(*args, **fields) | {"isa": "other"})
    log = Log()
    run([STUDY], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert [n for n in log.notices if "it was left on something else: isa " in n and n.endswith(", now other")]
    assert results(tmp_path) == reference


def test_a_folder_that_cannot_be_made_costs_no_result(tmp_path, digits, reference):
    (tmp_path / "checkpoints").write_text("a file")
    log = Log()
    run([STUDY], out=tmp_path, data=digits, jobs=0, watcher=log)
    assert results(tmp_path) == reference
    assert len(log.notices) == 1
    assert log.notices[0].startswith("trials that train for long have no check-points: ")


def test_results_do_not_mind_check_points(tmp_path, digits, capsys):
    stopped(tmp_path, digits, words=9)  # one cohort is recorded, one is on the way
    assert kept(tmp_path)
    before = tree(tmp_path)
    printed = shown(tmp_path, capsys)
    assert tree(tmp_path) == before
    shutil.rmtree(tmp_path / "checkpoints")
    assert shown(tmp_path, capsys) == printed
    assert "adam" in printed


def shown(folder, capsys):
    """What `fanin results` prints."""
    with pytest.raises(SystemExit) as ended:
        main(["results", str(folder)])
    assert ended.value.code == 0
    return capsys.readouterr().out


def tree(folder):
    """The check-points' files and their content."""
    return {path: path.read_bytes() for path in sorted((folder / "checkpoints").rglob("*")) if path.is_file()}


# --- who is told


def test_only_who_finds_the_token_has_the_folder_before_it(tmp_path):
    def stack(place):
        return checkpoints.of_stack(place, ["a"], share=1, runs_on={}, notice=print)

    def found(place):
        return stack(place) is not None

    before, place = stack(checkpoints.prepare(tmp_path)), checkpoints.prepare(tmp_path)
    assert found(place)
    before.offer(1, dict)  # an earlier run's worker that does not know that its driver is dead
    assert kept(tmp_path) == {}
    stack(place).offer(1, dict)
    assert list(kept(tmp_path).values()) == [1]
    assert checkpoints.sweep(place, lambda ids: {"b"} & {*ids}, print) == [["a"]]
    assert checkpoints.sweep(place, lambda ids: {"a"} & {*ids}, print) == []
    assert not found(None)
    elsewhere = tmp_path / "elsewhere"  # another machine's folder at the same path
    elsewhere.mkdir()
    assert not found(dataclasses.replace(place, folder=elsewhere))
    (elsewhere / ".run").write_text("another run's")
    assert not found(dataclasses.replace(place, folder=elsewhere))
    (elsewhere / ".run").write_bytes(b"\xff\xfe")
    assert not found(dataclasses.replace(place, folder=elsewhere))
    assert not found(checkpoints.Place(tmp_path / "none", place.token, 60.0))
    checkpoints.close(place)
    assert not found(place)
    assert list(tmp_path.iterdir()) == [elsewhere]


def test_a_worker_without_the_folder_trains_without(tmp_path, digits, reference, monkeypatch):
    monkeypatch.setattr(checkpoints, "_reached", lambda place: False)
    stopped(tmp_path, digits, words=4)
    assert kept(tmp_path) == {}
    run([STUDY], out=tmp_path, data=digits, jobs=0)
    assert results(tmp_path) == reference


# --- the plan


def test_a_stack_that_was_begun_comes_first_and_as_it_was():
    trials = [(Trial(Recipe(hidden=()), seed), f"t{seed}") for seed in range(6)]
    sizes = {"features": 64, "classes": 10, "workers": 2}
    cohorts = plan(trials, **sizes, begun=[["t4", "t1"], ["t1"], ["t5", "t9"]])
    assert [cohort.ids for cohort in cohorts] == [["t4", "t1"], ["t0", "t2"], ["t3", "t5"]]
    assert [trial.seed for trial in cohorts[0].trials] == [4, 1]


# --- the death of processes


SCRIPT = """if True:  # python -c wants no indentation at its start
    import sys
    from fanin.driver import checkpoints, run
    from fanin.study import Study
    checkpoints.SECONDS = 0.0
    study = Study.from_dict({study!r})
    run([study], out=sys.argv[1], data="digits", jobs=1)
"""


@needs_proc
def test_a_driver_that_is_killed_amid_a_trial(tmp_path, digits):
    """What lies there is whole at any moment, and the next run goes on from it; its worker ends by itself."""
    study = Study.from_dict(
        {"name": "s", "seeds": 2, "recipe": {"hidden": "64x2", "epochs": 30, "normalization": "batch"}}
    )
    code = SCRIPT.format(study=study.to_dict())
    driver = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")])
    try:
        wait_for(lambda: workers_of(driver.pid))
        workers = workers_of(driver.pid)  # before it gets busy: what follows must be quick
        wait_for(lambda: max(kept(tmp_path / "killed").values(), default=0) >= 3)
    finally:
        driver.kill()
        driver.wait()
    wait_for(lambda: not any(alive(pid) for pid in workers))
    ((_, epoch),) = kept(tmp_path / "killed").items()
    assert 3 <= epoch < 30
    log = Log()
    run([study], out=tmp_path / "killed", data=digits, jobs=0, watcher=log)
    assert [notice for notice in log.notices if f"goes on after epoch {epoch}, " in notice]
    run([study], out=tmp_path / "calm", data=digits, jobs=0)
    assert results(tmp_path / "killed", study) == results(tmp_path / "calm", study)
    assert not (tmp_path / "killed" / "checkpoints").exists()


@needs_proc
def test_a_stack_whose_worker_is_killed_goes_on_as_it_was(tmp_path, digits):
    study = Study.from_dict({"name": "s", "seeds": 2, "recipe": {"hidden": [64], "epochs": 30}})

    class Killer(Log):
        def planned(self, work, trials, known):
            super().planned(work, trials, known)
            self.workers = workers_of(os.getpid())

        def advanced(self, work):
            super().advanced(work)
            if max(kept(tmp_path / "killed").values(), default=0) >= 3 and not any(
                "signal 9" in n for n in self.notices
            ):
                for pid in self.workers:
                    os.kill(pid, signal.SIGKILL)

    log = Killer()
    done = run([study], out=tmp_path / "killed", data=digits, jobs=1, watcher=log)
    assert (done.ran, done.failed) == (2, 0)
    assert [notice for notice in log.notices if notice.endswith("; trying again") and "signal 9" in notice]
    assert [notice for notice in log.notices if "goes on after epoch" in notice]
    assert log.done == pytest.approx(log.work)
    run([study], out=tmp_path / "calm", data=digits, jobs=0)
    assert results(tmp_path / "killed", study) == results(tmp_path / "calm", study)
