"""Executors: one loop for all of them; what is lost is tried again, halved, alone; nothing writes to the data."""

from __future__ import annotations

import dataclasses
import importlib
import os
import platform
import re
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest

from fanin.datasets import load
from fanin.driver import TimeUp, Watcher, run
from fanin.driver import run as drive
from fanin.driver.deadline import Deadline, seconds_of
from fanin.driver.executors import make_executor
from fanin.driver.executors.protocol import WorkersError
from fanin.driver.executors.reach import of_this_version, require_answer
from fanin.driver.messages import Died, EpochDone, Failed, Finished, Noticed, Ready, Restarted, Task
from fanin.driver.weights import sweep, write
from fanin.errors import FaninError
from fanin.record import Epoch, Record
from fanin.store import Store
from fanin.study import Study

ENVIRONMENT = {"torch": "1", "isa": "AVX2", "device": "cpu", "cpu": "x", "matmul": "blas", "fanin": "1", "numpy": "2"}
STUDY = Study.from_dict(
    {
        "name": "s",
        "seeds": 8,
        "recipe": {"hidden": [], "epochs": 4},
        "arms": [{"name": "a"}, {"name": "b", "init": "zeros"}],
    }
)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


class Log(Watcher):
    def __init__(self):
        self.ids, self.notices, self.work, self.done = [], [], 0.0, 0.0

    def planned(self, work, trials, known):
        self.work = work

    def advanced(self, work):
        self.done += work

    def recorded(self, trial, record):
        self.ids.append(record.trial_id)

    def noticed(self, message):
        self.notices.append(message)


class Scripted:
    """An executor that trains nothing: `end(task)` says what becomes of each cohort, in turn."""

    def __init__(self, end, workers=2, environment=ENVIRONMENT, ends=()):
        self.ends = list(ends)  # said without a cohort, or raised, before all others or when nothing may be waited for
        self.end, self.workers, self.environment = end, workers, environment
        self.given, self.sizes, self.ready, self.left = [], [], False, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.left = True

    def start(self, cohorts):
        self.cohorts = cohorts

    def free(self):
        return self.ready and len(self.given) < self.workers

    def submit(self, cohort, task):
        assert self.free()
        assert cohort.ids == task.ids
        self.sizes.append(len(task.ids))
        self.given.append((cohort, task))

    def wait(self, hear, seconds):
        if self.ends and isinstance(self.ends[0], Exception) and seconds == 0:
            raise self.ends[0]
        if self.ends and not isinstance(self.ends[0], Exception):
            hear(None, self.ends.pop(0))
        if not self.ready:
            self.ready = True
            hear(None, Ready(self.environment))
        elif self.given and seconds != 0:
            cohort, task = self.given.pop(0)
            for event in self.end(task):
                hear(cohort, event)


def records(task, environment=ENVIRONMENT):
    made = (Epoch(e, 0.1, 1.0, 1.0, 0.5, 0.5) for e in range(1, 5))
    epochs = tuple(made)
    pairs = zip(task.trials, task.ids, strict=True)
    return Finished([Record(i, t.seed, "done", epochs, environment=environment) for t, i in pairs])


@pytest.fixture
def scripted(monkeypatch, tmp_path, digits):
    """Run STUDY with a script: the executor, what was noticed, what `run` returned."""

    def go(end, folder="out", **options):
        given = {name: options.pop(name) for name in ("workers", "environment", "ends") if name in options}
        executor, log = Scripted(end, **given), Log()
        monkeypatch.setattr(sys.modules["fanin.driver.run"], "make_executor", lambda *_, **__: executor)
        done = drive([STUDY], out=tmp_path / folder, data=digits, watcher=log, keep_weights="none", **options)
        return executor, log, done

    return go


def test_every_trial_is_recorded_once_and_the_executor_is_left(scripted):
    executor, log, done = scripted(lambda task: [EpochDone(1), records(task)])
    assert (done.ran, done.failed) == (16, 0)
    assert len(set(log.ids)) == len(log.ids) == 16
    assert executor.left
    assert executor.cohorts == len(executor.sizes)
    assert log.done == pytest.approx(log.work)


def test_a_stack_that_dies_is_halved_until_it_fits(scripted):
    executor, log, done = scripted(
        lambda task: [EpochDone(1), records(task) if len(task.ids) <= 2 else Died("killed by signal 9")]
    )
    assert (done.ran, done.failed) == (16, 0)
    assert sorted(executor.sizes) == [2] * 8 + [4] * 4 + [8] * 2
    assert executor.sizes[:2] == [8, 8]  # two workers share the sixteen
    assert sum("trying again in halves" in notice for notice in log.notices) == 6
    assert log.done == pytest.approx(log.work)


def test_a_trial_that_always_dies_is_reported_and_its_neighbours_are_kept(scripted, tmp_path):
    bad = STUDY.trials(STUDY.arms[0])[3]

    def end(task):
        return [Died("killed by signal 9") if bad in task.trials else records(task)]

    executor, log, done = scripted(end)
    assert (done.ran, done.failed) == (16, 1)
    assert sum(size == 1 for size in executor.sizes) == 1 + 3  # its neighbour once, itself three times
    assert any("failed: killed by signal 9, 3 times" in notice for notice in log.notices)
    with Store.open(tmp_path / "out") as store:
        (failed,) = [r for r in store.records(STUDY)["a"] if r.status == "failed"]
    assert failed.seed == 3


def test_a_cohort_that_an_executor_began_anew_counts_once(scripted):
    _, log, done = scripted(
        lambda task: [
            EpochDone(3),
            Restarted("lost"),
            EpochDone(1),
            EpochDone(1),
            records(task),
            EpochDone(5),
            Failed("?"),
        ]
    )
    assert (done.ran, done.failed) == (16, 0)  # what comes after a cohort's end is not heard
    assert log.done == pytest.approx(log.work)
    assert all("lost; trying again" in notice for notice in log.notices)


def test_the_time_limit_keeps_what_is_finished_and_the_same_call_goes_on(scripted, tmp_path):
    def slowly(task):
        time.sleep(0.15)
        return [records(task)]

    with pytest.raises(TimeUp, match=r"time limit of 0\.4 s is reached"):
        scripted(slowly, workers=16, time_limit=0.4)
    with Store.open(tmp_path / "out") as store:
        kept = len(store.statuses(STUDY))
    assert 1 <= kept < 16
    _, _, done = scripted(lambda task: [records(task)], time_limit=60)
    assert done.ran == 16 - kept


def test_the_time_limit_ends_a_cohort_in_this_process(tmp_path, digits):
    study = Study.from_dict({"name": "long", "seeds": 1, "recipe": {"hidden": [256], "epochs": 5000}})
    begun = time.process_time()  # the machine may be busy with other things
    with pytest.raises(TimeUp):
        run([study], out=tmp_path, data=digits, jobs=0, time_limit=1.5)
    assert time.process_time() - begun < 10  # of minutes


def test_durations():
    assert [seconds_of(text) for text in ("90s", "30m", "2h", "1h30m", "1.5h", "1d")] == [
        90,
        1800,
        7200,
        5400,
        5400,
        86400,
    ]
    for text in ("", "2", "h", "2x", "-2h", "2h junk", "0s", "2 h"):
        with pytest.raises(FaninError, match="expected a duration such as 90s"):
            seconds_of(text)
    assert Deadline(None).left() is None
    assert Deadline(100).left() == pytest.approx(90, abs=1)
    assert Deadline(7200).left() == pytest.approx(7185, abs=1)
    with pytest.raises(FaninError, match="more than 0"):
        Deadline(0)


def test_another_machine_is_named_once(scripted, tmp_path):
    scripted(lambda task: [records(task)])
    other = ENVIRONMENT | {"isa": "AVX512", "torch": "2", "stack": 8, "python": "4"}
    _, same, _ = scripted(lambda task: [records(task)])
    assert same.notices == []
    with Store.create(tmp_path / "out") as store:
        store._db.execute("DELETE FROM trials WHERE id = (SELECT min(id) FROM trials)")
    _, log, done = scripted(lambda task: [records(task, other)], environment=other)
    assert done.ran == 1
    (notice,) = log.notices
    assert "warning: earlier trials" in notice
    assert "torch 1, now 2; isa AVX2, now AVX512" in notice
    assert "stack" not in notice


@pytest.mark.parametrize(
    "answer",
    [
        lambda task: Finished([]),
        lambda task: Finished([dataclasses.replace(r, trial_id="another") for r in records(task).records]),
        lambda task: Finished(records(task).records * 2),
    ],
)
def test_a_worker_that_answers_for_other_trials_is_not_believed(scripted, tmp_path, answer):
    _, log, done = scripted(lambda task: [answer(task)])
    assert (done.ran, done.failed) == (16, 16)
    assert any("failed: its worker answered with other trials" in notice for notice in log.notices)
    with Store.open(tmp_path / "out") as store:
        assert set(store.statuses(STUDY).values()) == {"failed"}
    assert log.done == pytest.approx(log.work)


def test_what_an_executor_notices_without_a_cohort_is_told(scripted):
    _, log, done = scripted(lambda task: [records(task)], ends=[Noticed("fewer workers")])
    assert "fewer workers" in log.notices
    assert done.ran == 16


def test_ctrl_c_stays_ctrl_c_though_all_workers_end_with_it(scripted):
    """A batch system ends the driver and its workers at once."""

    def end(task):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scripted(end, ends=[WorkersError("workers cannot start")])


def test_another_version_of_fanin_on_the_cluster_is_refused():
    """A trial's identity says what fanin computes from it: another version may compute something else."""
    task = Task(STUDY.trials(STUDY.arms[0])[:2], ["a", "b"], "blas", frozenset())
    same, other = ({"fanin": v} for v in (version("fanin"), "0.0.1"))
    for event in (Ready(same), records(task, same), records(task, None), EpochDone(1), Died("x")):
        assert of_this_version(event) is event
    with pytest.raises(WorkersError, match=r"the cluster has fanin 0\.0\.1, and this machine"):
        of_this_version(Ready(other))
    failed = of_this_version(Finished([*records(task, same).records, *records(task, other).records]))
    assert isinstance(failed, Failed)
    assert "install the same version on all machines" in failed.reason


@pytest.mark.parametrize("name", ["ray", "dask"])
def test_a_machine_that_is_lost_before_its_first_word_is_not_the_end(name, monkeypatch):
    """Ray repeats nothing, nor does a Dask cluster of ours: the driver asks again, and not for ever."""
    module = importlib.import_module(f"fanin.driver.executors.{name}")
    kind = {"ray": "RayExecutor", "dask": "DaskExecutor"}[name]
    sent, ends = [], []
    executor = object.__new__(getattr(module, kind))
    executor._running, executor._attempts, executor._ready, executor._stillborn = {}, {}, False, 0
    monkeypatch.setattr(executor, "_send", lambda cohort, task: sent.append((cohort, task)))
    if name == "ray":
        monkeypatch.setattr(executor, "_next", lambda stream: ends.pop(0))
    else:
        monkeypatch.setattr(module, "_end", lambda future: ends.pop(0))

    def next_end(event):
        executor._running["key"] = None if name == "ray" else (None, None)
        ends.append(event)
        heard = []
        more = ("key",) if name == "ray" else ("done", "key")
        executor._pass_on(*more, lambda cohort, event: heard.append(event))
        return heard

    assert [next_end(Died("lost")) for _ in range(2)] == [[], []]
    assert sent == [(None, None)] * 2
    with pytest.raises(WorkersError, match=r"workers cannot start on the .* cluster: lost"):
        next_end(Died("lost"))
    with pytest.raises(WorkersError, match="no module"):
        next_end(Failed("no module"))
    ready = Ready({"fanin": version("fanin")})
    assert next_end(ready) == [ready]


@pytest.mark.parametrize("error", [RuntimeError("ConnectionPool is closed"), OSError("Timed out")])
def test_a_dask_scheduler_that_is_gone_is_told_in_words(error):
    from fanin.driver.executors.dask import DaskExecutor

    class Client:
        """A client whose scheduler was killed."""

        def nthreads(self):
            raise error

        def submit(self, *_, **__):
            raise error

    executor = object.__new__(DaskExecutor)
    executor._client, executor._counted, executor._sent, executor._most = Client(), (0, -1e9), 0, None
    executor._data, executor._device, executor._run_id = SimpleNamespace(status="finished"), "cpu", "run"
    for ask in (lambda: executor.workers, lambda: executor.submit(None, None)):
        with pytest.raises(WorkersError, match=r"the Dask cluster does not answer any more .*the same command goes on"):
            ask()


def test_a_ray_cluster_that_has_not_what_is_needed_is_told():
    """Ray itself would let the tasks wait for ever, and say nothing."""
    from fanin.driver.executors.ray import RayExecutor

    def look(device, resources, *, ours):
        executor = object.__new__(RayExecutor)
        executor._ray, executor._device = SimpleNamespace(cluster_resources=lambda: resources), device
        executor._ours, executor._address, executor._notice, executor._running = ours, "local", "", {}
        executor._look_for_room()
        heard = []
        for _ in range(2):
            executor.wait(lambda *event: heard.append(event), 0)
        return heard

    assert look("cpu", {"CPU": 1.0}, ours=True) == []
    assert look("cuda", {"CPU": 4.0, "GPU": 2.0}, ours=True) == []
    waits = [(None, Noticed("the Ray cluster has no GPU now; the run waits for one"))]
    assert look("cuda", {"CPU": 4.0}, ours=False) == waits
    with pytest.raises(WorkersError, match="device: Ray finds no GPU on this machine"):
        look("cuda", {"CPU": 4.0}, ours=True)


def test_a_network_that_calls_exit_fails_and_does_not_end_the_run(monkeypatch):
    """In this process it would end the caller, with code 0; in a thread of Ray's it would be waited for."""
    from fanin.driver.worker import Worker

    worker = object.__new__(Worker)
    for error, words in [
        (SystemExit(0), r"SystemExit: 0 \(test_executors.py, line \d+\)"),
        (ValueError("two\nlines"), r"ValueError: two; lines \(test_executors.py, line \d+\)"),
    ]:

        def train(*_, error=error):
            raise error

        monkeypatch.setattr(worker, "train", train)
        answer = worker.answer(None, print)
        assert re.fullmatch(words, answer.reason)
    for error in (TimeUp("x"), KeyboardInterrupt()):
        monkeypatch.setattr(worker, "train", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            worker.answer(None, print)


def test_a_worker_in_the_callers_process_leaves_its_environment_alone(monkeypatch):
    from fanin import driver
    from fanin.driver import worker

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "3")
    monkeypatch.setattr(driver, "worker", worker)  # put back afterwards
    monkeypatch.delitem(sys.modules, "fanin.driver.worker")
    importlib.import_module("fanin.driver.worker")
    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "3"


def test_a_mixed_cluster_is_noticed(scripted):
    seen = []

    def end(task):
        seen.append(task)
        return [records(task, ENVIRONMENT | {"isa": "AVX512"} if len(seen) == 2 else ENVIRONMENT)]

    _, log, done = scripted(end, workers=4)
    assert len(log.notices) == 1
    assert "isa AVX2, now AVX512" in log.notices[0]
    with Store.open(done.folder) as store:
        kept = [record for found in store.records(STUDY).values() for record in found]
    assert {r.trial_id for r in kept if r.environment["isa"] == "AVX512"} == set(seen[1].ids)
    assert len(kept) == 16


def test_names_and_addresses(tmp_path, digits, monkeypatch):
    for options, message in [
        ({"executor": "rey"}, "did you mean 'ray'"),
        ({"address": "auto"}, "only ray and dask have one"),
        ({"executor": "ray", "jobs": 0}, "jobs: expected"),
    ]:
        with pytest.raises(FaninError, match=message):
            run([STUDY], out=tmp_path / "none", data=digits, **options)
    assert not (tmp_path / "none").exists()
    for name, library in (("ray", "ray"), ("dask", "distributed")):
        monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
        with pytest.raises(FaninError, match=rf"pip install 'fanin\[{name}\]'"):
            make_executor(name, digits, device="cpu", jobs=1, address=None)


def test_a_dead_address_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for scheme in ("", "tcp://", "ray://"):
            require_answer(f"{scheme}127.0.0.1:{port}")
    begun = time.monotonic()
    with pytest.raises(FaninError, match="nothing answers at ray://127"):
        require_answer(f"ray://127.0.0.1:{port}")
    assert time.monotonic() - begun < 10
    for wrong in ("localhost", "tcp://", "host:port", "host:99999"):
        with pytest.raises(FaninError, match="expected auto, local, or HOST:PORT"):
            require_answer(wrong)


VARIED = {
    "name": "varied",
    "seeds": 2,
    "recipe": {"hidden": [16], "epochs": 1},
    "arms": [
        {"name": "relu"},
        {"name": "bn", "normalization": "batch", "dropout": 0.2, "optimizer": "adam"},
        {"name": "bf16", "precision": "bf16", "train_metrics": True},
        {"name": "few", "labels": 200},
        {"name": "lbfgs", "optimizer": "lbfgs"},
        {"name": "wide", "hidden": [256, 256]},
    ],
}


def test_nothing_writes_to_the_data(tmp_path, digits):
    """On an object store a write would change the data for everybody: here they are mapped read-only, and it kills."""
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, array in (
        ("x_train", digits.train.inputs),
        ("y_train", digits.train.labels),
        ("x_test", digits.test.inputs),
        ("y_test", digits.test.labels),
    ):
        np.save(folder / f"{name}.npy", array)
    done = run([Study.from_dict(VARIED)], out=tmp_path / "out", data=str(folder), jobs=1, keep_weights="none")
    assert (done.ran, done.failed) == (12, 0)


def test_a_write_to_mapped_data_would_kill(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 4), np.float32))
    code = (
        "import warnings, numpy, torch; warnings.simplefilter('ignore')\n"
        f"torch.from_numpy(numpy.load({str(tmp_path / 'x.npy')!r}, mmap_mode='r').view(numpy.ndarray)).add_(1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode < 0


def test_what_a_killed_driver_left_of_weights_is_swept(tmp_path):
    write(tmp_path, "abc", b"whole")
    (tmp_path / "weights" / ".abc.safetensors.x1.part").write_bytes(b"ha")
    sweep(tmp_path)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["abc.safetensors"]
    sweep(tmp_path / "nothing here")


def test_records_are_the_same_whatever_the_clock(tmp_path, digits, monkeypatch):
    """A wall clock that jumps changes no duration: those are taken from a clock that only goes forward."""
    wall = time.time
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: wall() + next(jumps) % 2 * -86400)
    study = dataclasses.replace(STUDY, seeds=1)
    run([study], out=tmp_path, data=digits, jobs=0, time_limit=600)
    with Store.open(tmp_path) as store:
        found = [r for arm in store.records(study).values() for r in arm]
    assert len(found) == 2
    assert all(0 <= r.seconds < 600 and all(0 <= e.seconds < 600 for e in r.epochs) for r in found)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are glibc's")
def test_dasks_workers_keep_freed_memory():
    """As Dask starts them, tensors of 800 kB are mapped anew every time; after one call hardly a page faults."""
    program = """
import resource
import numpy as np
from fanin.driver.executors.dask import _keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        np.ones(200_000, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
_keep_freed_memory()
np.ones(200_000, np.float32)
print(first, faults())
"""
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    before, after = map(int, said.stdout.split())
    assert before > 100 * 800_000 / 4096 / 20  # pages, or larger ones
    assert after < before / 10
