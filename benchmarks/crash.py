"""Kill a run again and again, its driver or its workers, and see that nothing is lost, doubled or changed.

python benchmarks/crash.py --kills 200
python benchmarks/crash.py --kills 20 --executor ray
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fanin.study import Study

STUDY = Study.from_dict(
    {
        "name": "crash",
        "seeds": 4,
        "recipe": {"hidden": [32], "epochs": 8, "batch_size": 50},
        "arms": [
            {"name": "he", "init": "he_normal"},
            {"name": "bn", "normalization": "batch", "optimizer": {"name": "adam", "lr": 0.01}},
            {"name": "dropout", "dropout": 0.3},
            {"name": "deep", "hidden": [64, 64, 64]},
        ],
    }
)
TRIALS = sum(len(STUDY.trials(arm)) for arm in STUDY.arms)
# All that a record holds besides seconds, environments and the time of day.
_CONTENT = (
    "SELECT id, recipe, seed, status, error, diverged_epoch, diverged_step, diverged_layer FROM trials ORDER BY id",
    "SELECT trial, epoch, train_cost, test_loss, test_accuracy, accuracy_on_raw_pixels FROM epochs ORDER BY 1, 2",
    "SELECT * FROM layers ORDER BY trial, epoch, layer",
)
_PROGRAM = "import sys; from pathlib import Path; import fanin; fanin.run([fanin.Study.from_toml(Path(sys.argv[1]))], "


@dataclass
class Tally:
    """What has happened so far."""

    drivers: int = 0
    workers: int = 0
    rounds: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.drivers + self.workers


def content(folder: Path) -> list[list[tuple[object, ...]]]:
    """Everything in a study folder that must be the same after any crash."""
    with contextlib.closing(sqlite3.connect(folder / "fanin.sqlite")) as db:
        return [db.execute(query).fetchall() for query in _CONTENT]


def finished(folder: Path) -> set[str]:
    """Trials that have a result."""
    if not (folder / "fanin.sqlite").is_file():
        return set()
    with contextlib.closing(sqlite3.connect(folder / "fanin.sqlite", timeout=30)) as db:
        try:
            return {row[0] for row in db.execute("SELECT id FROM trials WHERE status IN ('done', 'diverged')")}
        except sqlite3.OperationalError:  # killed before the schema was there
            return set()


def unsound(folder: Path) -> str:
    """What SQLite finds wrong with the file, or nothing."""
    if not (folder / "fanin.sqlite").is_file():
        return ""
    with contextlib.closing(sqlite3.connect(folder / "fanin.sqlite", timeout=30)) as db:
        said = db.execute("PRAGMA integrity_check").fetchall() + db.execute("PRAGMA foreign_key_check").fetchall()
    return "" if said == [("ok",)] else str(said)


def start(folder: Path, executor: str, jobs: int) -> subprocess.Popen[bytes]:
    """A driver on the study, in a process group of its own."""
    folder.mkdir(exist_ok=True)
    toml = folder.with_suffix(".toml")
    toml.write_text(STUDY.to_toml())
    call = f"out={str(folder)!r}, data='digits', jobs={jobs}, executor={executor!r})"
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM + call, str(toml)], stderr=subprocess.DEVNULL, start_new_session=True
    )


def descendants(pid: int) -> list[int]:
    """Worker processes below a driver: those that have torch in memory."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    below, found = [pid], []
    while below:
        children = parents.get(below.pop(), [])
        below += children
        found += [child for child in children if _has_torch(child)]
    return found


def _has_torch(pid: int) -> bool:
    try:
        return b"libtorch" in Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return False


def kill(process: subprocess.Popen[bytes], whom: str, tally: Tally) -> None:
    """SIGKILL the driver, with its cluster if it has one, or one of its workers."""
    if whom == "driver":
        tally.drivers += 1
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # a cluster that was started for it
    elif workers := descendants(process.pid):
        with contextlib.suppress(OSError):
            os.kill(random.choice(workers), signal.SIGKILL)
            tally.workers += 1


def disturbed(folder: Path, executor: str, jobs: int, tally: Tally, most: int) -> None:
    """One run to its end, with a kill at random moments, at most so many."""
    seen: set[str] = set()
    for moment, workers in _moments(executor):
        process = start(folder, executor, jobs)
        calm = tally.kills >= most
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=None if calm else moment)
        for _ in range(workers):
            if process.poll() is None and tally.kills < most:
                kill(process, "worker", tally)
                time.sleep(random.uniform(0.3, 1.5))
        if process.poll() is None:
            kill(process, "driver", tally)
        now = finished(folder)
        if wrong := unsound(folder):
            tally.faults.append(f"integrity: {wrong}")
        if lost := seen - now:
            tally.faults.append(f"lost: {lost}")
        seen = now
        if process.returncode == 0 and len(now) == TRIALS:
            return


def _moments(executor: str) -> Iterator[tuple[float, int]]:
    """When to strike after a start, and at how many workers before the driver; ever later, so that every run ends."""
    started, attempt = (6.0 if executor in ("ray", "dask") else 0.0), 0
    while True:
        attempt += 1
        yield random.uniform(0.05, 3.0 + attempt) + started, random.choice((0, 1, 2, 4))


def crash(kills: int, *, executor: str = "local", jobs: int = 2, seed: int = 0) -> Tally:
    """Runs with kills, each compared with an undisturbed one when it has come to its end."""
    random.seed(seed)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="fanin-crash-") as root:
        calm = Path(root) / "calm"
        start(calm, "local", 1).wait()
        wanted = content(calm)
        while tally.kills < kills:
            tally.rounds += 1
            folder = Path(root) / f"round{tally.rounds}"
            disturbed(folder, executor, jobs, tally, kills)
            if content(folder) != wanted:
                tally.faults.append(f"round {tally.rounds}: the records are not those of an undisturbed run")
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--executor", default="local")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.perf_counter()
    tally = crash(options.kills, executor=options.executor, jobs=options.jobs, seed=options.seed)
    seconds = time.perf_counter() - begun
    print(f"{tally.drivers} drivers and {tally.workers} workers killed in {tally.rounds} runs, {seconds:.0f} s")
    print("\n".join(tally.faults) or "nothing lost, nothing doubled, every file sound, all records as undisturbed")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
