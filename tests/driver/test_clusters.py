"""Ray and Dask: the same bits as in one process, also where all workers or a whole node are killed on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fanin.bundle import find
from fanin.datasets import load
from fanin.driver import run
from fanin.engine.export import load_weights
from fanin.overrides import override
from fanin.store import Store
from fanin.study import Study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc"),
]

STUDY = Study.from_dict(
    {
        "name": "varied",
        "seeds": 3,
        "recipe": {"hidden": [16], "epochs": 3, "batch_size": 50},
        "arms": [
            {"name": "he", "init": "he_normal"},
            {"name": "bn", "normalization": "batch", "dropout": 0.3, "optimizer": {"name": "adam", "lr": 0.01}},
            {"name": "bf16", "precision": "bf16"},
            {"name": "wild", "optimizer": {"name": "sgd", "lr": 1e30}},
            {"name": "wide", "hidden": [256, 256]},
        ],
    }
)

# Clusters run in processes of their own: Ray and Dask leave threads and warnings behind.
PROGRAM = """
import os, sys
from pathlib import Path
import fanin
from fanin.driver import Watcher

executor, out, *files = sys.argv[1:]
studies = [fanin.Study.from_toml(Path(file)) for file in files]

def workers():
    # processes below this one that have torch in memory
    parents = {{}}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit():
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(folder)
        except OSError:
            pass
    below = [*parents.get(os.getpid(), [])]
    for folder in below:
        below += parents.get(int(folder.name), [])
        try:
            if b"libtorch" in (folder / "maps").read_bytes():
                yield int(folder.name)
        except OSError:
            pass

class Killer(Watcher):
    left, notices = 1, []
    def advanced(self, work):
        if work > 0 and self.left:
            self.left -= 1
            for pid in list(workers()):
                os.kill(pid, 9)
            print("killed", flush=True)
    def noticed(self, message):
        self.notices.append(message)

killer = Killer()
{before}
done = fanin.run(studies, out=out, data="digits", executor=executor, jobs={jobs}, address={address}, watcher=killer)
{after}
assert "torch" not in sys.modules, "the driver loads no torch"
print(done.ran, done.failed, len(killer.notices))
"""


def require(executor):
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[executor], reason=f"the executor {executor} needs it")


def launched(executor, folder, studies, *, before="", after="", jobs="2", address="None"):
    """What a run on a cluster printed, a word each; all of its workers were killed at the first epoch."""
    files = [folder / f"{i}.toml" for i in range(len(studies))]
    for file, study in zip(files, studies, strict=True):
        file.write_text(study.to_toml())
    code = PROGRAM.format(before=before, after=after, jobs=jobs, address=address)
    command = [sys.executable, "-c", code, executor, str(folder / "out"), *map(str, files)]
    environment = os.environ | {"RAY_DEDUP_LOGS_SKIP_REGEX": ".*"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def results(folder, study):
    with Store.open(folder) as store:
        return {
            (arm, r.seed): (r.status, r.divergence, r.signal, [dataclasses.replace(e, seconds=0) for e in r.epochs])
            for arm, found in store.records(study).items()
            for r in found
        }


def weights(folder):
    """Kept parameters and metadata by trial; the bytes of a safetensors file order its metadata at random."""
    loaded = {path.stem: load_weights(path) for path in (folder / "weights").iterdir()}
    return {
        name: (metadata, {key: tensor.tolist() for key, tensor in network.state_dict().items()})
        for name, (network, metadata) in loaded.items()
    }


def calm(folder, studies):
    """The same run in this process, undisturbed."""
    trials = sum(len(study.arms) * study.seeds for study in studies)
    assert run(studies, out=folder, data=load("digits"), jobs=0).ran == trials
    return trials


def test_the_same_bits_on_dask_though_all_workers_are_killed(tmp_path):
    require("dask")
    words = launched("dask", tmp_path, [STUDY])
    assert words[:3] == ["killed", str(calm(tmp_path / "calm", [STUDY])), "0"]
    assert int(words[3]) >= 1  # the loss was noticed
    assert results(tmp_path / "out", STUDY) == results(tmp_path / "calm", STUDY)
    assert weights(tmp_path / "out") == weights(tmp_path / "calm")


def test_the_same_bits_on_ray_though_all_workers_are_killed_and_then_one_of_two_nodes(tmp_path):
    require("ray")
    studies = [STUDY, *find("lab9/init")]
    before = """
from ray.cluster_utils import Cluster
size = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args=size | {"include_dashboard": False})
node = cluster.add_node(**size)
class Remover(Killer):
    recorded_so_far = 0
    def recorded(self, trial, record):
        self.recorded_so_far += 1
        if self.recorded_so_far == 20:
            cluster.remove_node(node, allow_graceful=False)
            print("removed", flush=True)
killer = Remover()
"""
    words = launched(
        "ray", tmp_path, studies, before=before, after="cluster.shutdown()", jobs="None", address="cluster.address"
    )
    assert words[:4] == ["killed", "removed", str(calm(tmp_path / "calm", studies)), "0"]
    assert int(words[4]) >= 1
    for study in studies:
        found = results(tmp_path / "out", study)
        assert len(found) == len(study.arms) * study.seeds
        assert found == results(tmp_path / "calm", study)
    assert weights(tmp_path / "out") == weights(tmp_path / "calm")


@pytest.mark.parametrize("executor", ["ray", "dask"])
def test_interrupting_ends_the_cluster_and_the_same_command_goes_on(tmp_path, executor):
    require(executor)
    study = override(STUDY, ["epochs=60"], [])
    (tmp_path / "study.toml").write_text(study.to_toml())
    command = [sys.executable, "-m", "fanin", "run", "study.toml", "--data", "digits", "--out", "out"]
    command += ["--executor", executor, "--jobs", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < end and not _finished(tmp_path / "out"):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted; finished trials are kept in out" in err
    assert "Traceback" not in err
    assert out == ""  # neither library speaks where results go
    assert 1 <= _finished(tmp_path / "out") < 15


def _finished(folder):
    """Trials in a store that may not be there yet."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{folder / 'fanin.sqlite'}?mode=ro", uri=True)) as db:
            return db.execute("SELECT count(*) FROM trials").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
