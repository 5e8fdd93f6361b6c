"""Seconds per trial-epoch on this CPU: fanin, the usual ways to train the same network, and the bound."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import ways
from bound import bound
from crew import Crew, Sample, usable_cores
from fanin.datasets import load, save_shared
from fanin.engine import matmul
from ways import BATCH, DEEP, Way

DEFINITION = (
    "Machine-seconds per trial-epoch: wall seconds during which all cores of this machine work on one way, "
    "divided by the epochs of separate trainings that the whole machine finished in them. Wall time runs from "
    "the common start of all processes to the end of the last; imports, loading, initialisation and warm-up "
    "lie before it."
)
LEARNT = 0.5  # mean training loss of the epoch under which a way has really trained (untrained: ln 10 = 2.3)
LEARNT_QUICKLY = 1.6  # the same for the few steps of --quick
UNDISTURBED = 0.97  # share of the wall time in which a process ran


@dataclass
class Series:
    """The samples of one way in one layout (processes x threads)."""

    title: str
    way: Way
    crew: Crew
    samples: list[Sample] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """Machine-seconds per trial-epoch, by round."""
        return [sample.seconds for sample in self.samples]

    def measure(self, round_: int) -> None:
        """One more sample; every process trains a trial of its own."""
        seeds = [round_ * len(self.crew) + i for i in range(len(self.crew))]
        self.samples.append(self.crew.measure([replace(self.way, seed=seed) for seed in seeds]))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON if asked for."""
    args = _parser().parse_args(argv)
    dataset = load(args.data, data_dir=args.data_dir)
    epoch = len(dataset.train.labels) // BATCH
    steps, rounds = (min(epoch, 100), 1) if args.quick else (epoch, args.rounds)
    probe = matmul.choose()
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory() as folder:
        save_shared(dataset, Path(folder))
        cores = len(usable_cores())
        crews = [Crew(cores, 1, Path(folder))] + ([Crew(1, cores, Path(folder))] if cores > 1 else [])
        series = _series(steps, probe.path, crews)
        _measure(series, rounds)
        for crew in crews:
            crew.close()
    _check_learnt(series, LEARNT_QUICKLY if args.quick else LEARNT)
    console = Console()
    console.width = max(console.width, 96)
    console.print(_table(series, steps, rounds))
    console.print(f"{cores} cores, {matmul.cpu_model()}, matmul path {probe.path}; load before: {load_before}")
    disturbed = _disturbed(series)
    if disturbed:
        console.print(f"{disturbed} samples had to share a core with other programs: measure again when it is quiet")
    if args.json:
        report = _report(series) | {
            "settings": {
                "data": dataset.name,
                "steps": steps,
                "rounds": rounds,
                "batch": BATCH,
                "quick": args.quick,
            },
            "hardware": _hardware() | {"cores": cores, "load_before": load_before},
            "matmul": asdict(probe),
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist", help="data set, as in `fanin run --data` (default: mnist)")
    parser.add_argument("--data-dir", type=Path, help="folder that holds MNIST (else FANIN_DATA, else fanin's search)")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each way; medians are shown (default: 5)")
    parser.add_argument("--json", type=Path, help="write figures, raw samples, machine and versions to this file")
    parser.add_argument("--quick", action="store_true", help="one round of 100 steps: a smoke test, not a measurement")
    return parser


def _series(steps: int, path: str, crews: Sequence[Crew]) -> list[Series]:
    """Every way in every layout worth a try, in the order in which a round measures them."""
    entries: list[tuple[str, Any, dict[str, Any]]] = [
        ("fanin", ways.fanin, {"alone": True}),
        ("fanin + evaluation", ways.fanin_whole, {"alone": True}),
        ("PyTorch, fanin's switches", ways.fused, {}),
        ("PyTorch, defaults", ways.eager, {}),
        ("scikit-learn", ways.sklearn, {}),
        ("the notes' DataLoader", ways.notes, {}),
        ("bound: products alone", bound, {"alone": True}),
        ("fanin, deep", ways.fanin, {"alone": True, "recipe": DEEP}),
        ("bound, deep", bound, {"alone": True, "recipe": DEEP}),
    ]
    return [
        Series(title, Way(train, steps, path, recipe=more.get("recipe", ways.NN)), crew)
        for title, train, more in entries
        for crew in (crews[:1] if more.get("alone") else crews)
    ]


def _measure(series: list[Series], rounds: int) -> None:
    """Rounds over all series, so that whatever else the machine does meets every one of them alike."""
    for round_ in range(rounds):
        for one in series:
            one.measure(round_)
            if sys.stderr.isatty():
                print(
                    f"round {round_ + 1}: {one.title} ({one.crew.layout}) {one.seconds[-1]:.3f} s",
                    file=sys.stderr,
                )


def _disturbed(series: Sequence[Series]) -> int:
    """Samples whose single-threaded processes were kept waiting; more threads wait for each other anyway."""
    samples = [sample for one in series if one.crew.threads == 1 for sample in one.samples]
    return sum(sample.ran < UNDISTURBED for sample in samples)


def _check_learnt(series: Sequence[Series], limit: float) -> None:
    for one in series:
        losses = [sample.loss for sample in one.samples if sample.loss is not None]
        if not all(loss < limit for loss in losses):
            raise SystemExit(f"{one.title} did not train: mean losses {losses}, expected less than {limit}")


def _table(series: Sequence[Series], steps: int, rounds: int) -> Table:
    table = Table(
        title=f"Machine-seconds per trial-epoch of {steps} steps; median of {rounds} rounds",
        caption="layout: processes x threads. 1 x C is how a script runs as it comes; C x 1 is one process per core",
    )
    table.add_column("way", no_wrap=True)
    for column in ("layout", "seconds", "min-max", "x fanin", "of bound", "loss"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in _rows(series):
        table.add_row(
            row["way"],
            row["layout"],
            f"{row['seconds']:.3f}",
            f"{row['min']:.3f}-{row['max']:.3f}",
            f"{row['ratio_to_fanin']:.2f}",
            f"{row['share_of_bound']:.0%}",
            "" if row["loss"] is None else f"{row['loss']:.3f}",
            end_section=row["way"].startswith("bound"),
        )
    return table


def _rows(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Figures of every way in every layout, against fanin and the bound of the same recipe."""
    seconds = {(one.way.train, one.way.recipe.key): median(one.seconds) for one in series}
    rows = []
    for one in series:
        mine, recipe = median(one.seconds), one.way.recipe.key
        losses = [sample.loss for sample in one.samples if sample.loss is not None]
        rows.append(
            {
                "way": one.title,
                "layout": one.crew.layout,
                "seconds": mine,
                "min": min(one.seconds),
                "max": max(one.seconds),
                "ratio_to_fanin": mine / seconds[ways.fanin, recipe],
                "share_of_bound": seconds[bound, recipe] / mine,
                "loss": median(losses) if losses else None,
            }
        )
    return rows


def _report(series: Sequence[Series]) -> dict[str, Any]:
    packages = ("fanin", "torch", "numpy", "scikit-learn", "pillow")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "definition": DEFINITION,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "figures": _rows(series),
        "samples": [
            {
                "way": one.title,
                "layout": one.crew.layout,
                "samples": [asdict(sample) for sample in one.samples],
            }
            for one in series
        ],
    }


def _hardware() -> dict[str, Any]:
    return {
        "cpu": matmul.cpu_model(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "platform": platform.platform(),
    }


if __name__ == "__main__":
    sys.exit(main())
