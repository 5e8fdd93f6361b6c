"""Seconds before the first result: what `import fanin` and the commands take, and what a study adds to its training."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

import fanin
from machine import in_words, machine, save

FANIN = str(Path(sysconfig.get_path("scripts")) / "fanin")
PYTHON = sys.executable


@dataclass(frozen=True)
class Start:
    """Something whose start is timed; target in milliseconds, if there is one."""

    name: str
    command: tuple[str, ...]
    target: float | None = None


STARTS = (
    Start("python -c pass", (PYTHON, "-c", "pass")),
    Start("import fanin", (PYTHON, "-c", "import fanin"), 60),
    Start("fanin --help", (FANIN, "--help"), 300),
    Start("fanin --version", (FANIN, "--version"), 300),
    Start("fanin list", (FANIN, "list")),
    Start("import numpy", (PYTHON, "-c", "import numpy")),
    Start("import sklearn", (PYTHON, "-c", "import sklearn")),
    Start("import torch", (PYTHON, "-c", "import torch")),
)

STUDY = """
name = "startup"
question = "What does a study take besides its training?"
seeds = {seeds}
[recipe]
hidden = {hidden}
epochs = {epochs}
[[arms]]
name = "only"
"""


@dataclass(frozen=True)
class Took:
    """One command: seconds on the clock, and of processors, its children's included."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Overhead:
    """A study by the command line. wall: seconds of the whole command. trained: the sum of its trials' seconds.

    A trial's seconds are its training and its evaluation on the test set.
    """

    data: str
    trials: int
    epochs: int
    workers: int
    wall: float
    trained: float

    @property
    def added(self) -> float:
        """Seconds of the command beyond its workers' share of the training."""
        return self.wall - self.trained / self.workers

    @property
    def share(self) -> float:
        """The part of the workers' time that was not training."""
        return 1 - self.trained / (self.workers * self.wall)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON if asked for."""
    args = _parser().parse_args(argv)
    found, console = machine(), Console()
    samples = _started(3 if args.quick else args.rounds)
    console.print(_start_table(samples))
    workers = args.workers or found["cores"]
    little = {"trials": workers, "workers": workers, "hidden": "[16]", "epochs": 1}
    short = [_study(args, "digits", **little) for _ in range(1 if args.quick else 5)]
    much = {"trials": 12 * workers, "workers": workers, "hidden": "[256, 256]", "epochs": 1 if args.quick else 15}
    long = _study(args, args.data, **much)
    console.print(_study_table(short, long))
    console.print(in_words(found))
    if args.json:
        studies = {"short": [asdict(one) for one in short], "long": asdict(long)}
        seconds = {name: [asdict(took) for took in times] for name, times in samples.items()}
        save(args.json, {"machine": found, "quick": args.quick, "seconds": seconds, "studies": studies})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="fresh processes of each kind (default: 11)")
    parser.add_argument("--workers", type=int, help="workers of the studies (default: one per core)")
    parser.add_argument("--data", default="mnist", help="data set of the long study (default: mnist)")
    parser.add_argument("--data-dir", help="folder that holds MNIST (else FANIN_DATA, else fanin's search)")
    parser.add_argument("--json", type=Path, help="write every sample, machine and versions to this file")
    parser.add_argument("--quick", action="store_true", help="few samples and a short long study: a smoke test")
    return parser


def _started(rounds: int) -> dict[str, list[Took]]:
    """Seconds of each start, round by round; the round before them fills the file cache and is not counted."""
    samples: dict[str, list[Took]] = {start.name: [] for start in STARTS}
    for round_ in range(rounds + 1):
        for start in STARTS:
            took = _timed(start.command)
            if round_:
                samples[start.name].append(took)
    return samples


def _timed(command: Sequence[str], folder: Path | None = None) -> Took:
    ran, begun = _children(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    took = Took(time.perf_counter() - begun, _children() - ran)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return took


def _children() -> float:
    """CPU seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _study(args: argparse.Namespace, data: str, *, trials: int, workers: int, hidden: str, epochs: int) -> Overhead:
    """Run a study of one arm with `trials` seeds, in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "startup.toml").write_text(STUDY.format(seeds=trials, hidden=hidden, epochs=epochs))
        command = [FANIN, "run", "startup.toml", "--data", data, "--jobs", str(workers), "--out", "out"]
        if args.data_dir:
            command += ["--data-dir", str(Path(args.data_dir).absolute())]
        wall = _timed(command, folder).wall
        with fanin.Store.open(folder / "out") as store:
            records = [r for stored in store.studies() for arm in store.records(stored.study).values() for r in arm]
    if [record.status for record in records] != ["done"] * trials:
        raise SystemExit(f"expected {trials} trials with a result; got {[record.status for record in records]}")
    return Overhead(data, trials, epochs, workers, wall, sum(record.seconds for record in records))


def _start_table(samples: dict[str, list[Took]]) -> Table:
    table = Table("fresh process", "median, ms", "CPU, ms", "target, ms", title="Starting")
    for start in STARTS:
        wall, cpu = (1000 * median(getattr(took, name) for took in samples[start.name]) for name in ("wall", "cpu"))
        table.add_row(start.name, f"{wall:.0f}", f"{cpu:.0f}", f"< {start.target:.0f}" if start.target else "")
    return table


def _study_table(short: Sequence[Overhead], long: Overhead) -> Table:
    table = Table(
        "study", "trials x epochs", "workers", "wall, s", "added, s", "not training", title="A whole `fanin run`"
    )
    typical = sorted(short, key=lambda one: one.added)[len(short) // 2]
    for name, one in (("next to no training", typical), ("a long one", long)):
        table.add_row(
            f"{name} ({one.data})",
            f"{one.trials} x {one.epochs}",
            str(one.workers),
            f"{one.wall:.2f}",
            f"{one.added:.2f}",
            f"{100 * one.share:.1f} %",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
