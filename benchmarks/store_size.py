"""How a study folder grows: seconds, bytes and memory of many trials in the store, and of every report on them.

python benchmarks/store_size.py --trials 1000000
python benchmarks/store_size.py --trials 1000000 --read runs/many    # reports on a folder that is there already
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fanin.recipe import Trial
from fanin.record import Epoch, LayerSignal, Record
from fanin.store import FILE, Store
from fanin.study import Study

DATA = {"name": "digits", "fingerprint": "f" * 16, "spec": "digits", "train": 1437, "test": 360, "classes": list("01")}
COMMANDS = ("results", "report", "results --csv", "results --json")
ENVIRONMENT = {"fanin": "0.1", "torch": "2", "cpu": "x", "isa": "AVX2", "matmul": "blas", "device": "cpu", "stack": 8}


def study_of(trials: int) -> Study:
    """About so many trials, a hundred seeds to an arm."""
    arms = [{"name": f"lr {i}", "optimizer": {"name": "sgd", "lr": (i + 1) * 1e-6}} for i in range(-(-trials // 100))]
    return Study.from_dict({"name": "many", "seeds": 100, "recipe": {"hidden": [32]}, "arms": arms})


def record(trial: Trial, trial_id: str, epochs: int, layers: int) -> Record:
    """A record as training leaves it, its numbers at random."""
    draw = random.random
    return Record(
        trial_id=trial_id,
        seed=trial.seed,
        status="done",
        epochs=tuple(Epoch(e, draw(), draw(), draw(), draw(), draw()) for e in range(1, epochs + 1)),
        signal=tuple(
            LayerSignal(e, layer, draw(), draw(), draw(), draw(), None)
            for e in range(epochs + 1)
            for layer in range(1, layers + 1)
        ),
        seconds=draw(),
        environment=ENVIRONMENT,
        trainable_depth=None,
    )


def timed(name: str, run: Callable[[], Any], found: dict[str, float]) -> Any:
    """What `run` returns; the processor's seconds go into `found`: the clock's tell what else the machine does."""
    begun, clock = time.process_time(), time.perf_counter()
    out = run()
    found[name] = time.process_time() - begun
    seconds = time.perf_counter() - clock
    print(f"{name:<44} {found[name]:9.2f} s of a core {seconds:9.2f} s {_memory():7.0f} MB at most so far", flush=True)
    return out


def _memory() -> float:
    return _megabytes(resource.getrusage(resource.RUSAGE_SELF))


def _megabytes(use: resource.struct_rusage) -> float:
    return use.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def fill(store: Store, pairs: list[tuple[Trial, str]], epochs: int, layers: int) -> None:
    """One transaction per trial, as the driver writes them."""
    for trial, trial_id in pairs:
        store.add(trial, DATA["fingerprint"], record(trial, trial_id, epochs, layers))


def measure(folder: Path, trials: int, epochs: int, layers: int) -> dict[str, float]:
    """Seconds of each thing that a large folder is asked for, trials per second, and bytes per trial."""
    found: dict[str, float] = {}
    study = timed("build the study", lambda: study_of(trials), found)
    pairs = timed(
        "trials and their ids",
        lambda: [(t, t.id(DATA["fingerprint"])) for a in study.arms for t in study.trials(a)],
        found,
    )
    with Store.create(folder) as store:
        timed("enter the study", lambda: store.put_study(study, DATA), found)
        timed(
            "make the records (not the store's time)",
            lambda: [record(*p, epochs, layers) for p in pairs[:10000]],
            found,
        )
        timed("make and add the records", lambda: fill(store, pairs, epochs, layers), found)
        making = found.pop("make the records (not the store's time)") * len(pairs) / min(len(pairs), 10000)
        found["trials added per second of a core"] = len(pairs) / (found["make and add the records"] - making)
        timed("which have a result", lambda: store.finished(i for _, i in pairs), found)
        timed("their statuses", lambda: store.statuses(study), found)
    timed("open, and close again", lambda: Store.create(folder).close(), found)
    size = (folder / FILE).stat().st_size
    found |= {"bytes": size, "bytes per trial": size / len(pairs)}
    return found


def report(folder: Path) -> dict[str, float]:
    """Seconds and memory of the commands that read a folder, each in a process of its own."""
    found: dict[str, float] = {}
    for words in COMMANDS:
        name, _, option = words.partition(" ")
        command = [sys.executable, "-m", "fanin", name, str(folder), *option.split()]
        with (folder / "said").open("wb") as said:
            clock = time.perf_counter()
            process = subprocess.Popen(command, stdout=said)
            _, status, use = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            clock = time.perf_counter() - clock
        assert process.returncode == 0, words
        page = folder / ("report.html" if name == "report" else "said")
        seconds, size = use.ru_utime + use.ru_stime, page.stat().st_size / 1e6
        print(
            f"fanin {words:<38} {seconds:9.2f} s of a core {clock:9.2f} s {_megabytes(use):7.0f} MB "
            f"{size:9.2f} MB written",
            flush=True,
        )
        found |= {f"{words}: seconds": seconds, f"{words}: memory, MB": _megabytes(use), f"{words}: written, MB": size}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to put it; by default a temporary folder")
    parser.add_argument("--read", type=Path, help="a study folder to report on, instead of making one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.read:
        found = report(options.read)
    else:
        # in a process of its own: what the system counts as a command's memory begins with that of who starts it
        alone = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        with tempfile.TemporaryDirectory(prefix="fanin-size-", dir=options.folder) as folder, alone:
            filled = alone.submit(measure, Path(folder), options.trials, options.epochs, options.layers)
            found = filled.result() | report(Path(folder))
        for name in ("trials added per second of a core", "bytes per trial", "bytes"):
            print(f"{name:<44} {found[name]:14,.0f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
