"""How the cost of a study grows: with trials, width, depth, data and workers; and that a worker's memory does not."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import fanin
from fanin.datasets import Split
from machine import in_words, machine, save
from memory import Watch

RECIPE = {"hidden": [32, 32], "batch_size": 32, "epochs": 20}
BY_ARM = {"seeds": 3, "epochs": 5}  # of the sweeps whose points are arms of one study


@dataclass(frozen=True)
class Point:
    """A study. wall: seconds of `fanin.run`; trial: mean seconds of a trial by its record, in training and evaluation.

    x: what the cost should grow with in a straight line. worker, driver: the largest memory (PSS) seen of a worker, and
    of the process that runs the study; anonymous: of a worker, without mapped files. In MB; None if not watched.
    """

    size: int
    x: float
    wall: float
    trial: float
    worker: float | None = None
    anonymous: float | None = None
    driver: float | None = None


@dataclass(frozen=True)
class Line:
    """The straight line through the costs, by least squares, and the share of their variance it explains."""

    fixed: float
    each: float
    r2: float

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> Line:
        """Of at least three points."""
        each, fixed = np.polyfit(x, y, 1)
        left = np.asarray(y) - (fixed + each * np.asarray(x))
        return cls(float(fixed), float(each), float(1 - left.var() / np.var(y)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON if asked for."""
    args = _parser().parse_args(argv)
    found, console, data = machine(), Console(), fanin.load("digits")
    workers = args.workers or found["cores"]
    _studied(data, 1, seeds=1)  # a start that is not counted: it fills the file cache
    report: dict[str, Any] = {"machine": found, "quick": args.quick, "workers": workers, "recipe": RECIPE}
    for name, points in _sweeps(data, workers, 3 if args.quick else None):
        cost = "trial" if name in ("width", "depth", "examples") else "wall"
        line = Line.through([p.x for p in points], [getattr(p, cost) for p in points]) if len(points) > 2 else None
        console.print(_table(name, cost, points, line))
        report[name] = {"points": [asdict(p) for p in points], "line": line and asdict(line)}
    console.print(in_words(found))
    if args.json:
        save(args.json, report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, help="most workers (default: one per core)")
    parser.add_argument("--json", type=Path, help="write every point, machine and versions to this file")
    parser.add_argument("--quick", action="store_true", help="the first three sizes of each: a smoke test")
    return parser


def _sweeps(data: fanin.Dataset, workers: int, most: int | None) -> Iterator[tuple[str, list[Point]]]:
    """Every sweep's points, smallest first; x in units that the cost should be a straight line in."""
    yield "trials", [_watched(data, workers, n, seeds=n) for n in (8, 16, 32, 64, 128, 256, 512)[:most]]
    yield "width", _by_arm(data, {n: [n, n] for n in (64, 128, 256, 512, 1024, 2048)[:most]}, batch_size=128)
    yield "depth", _by_arm(data, {n: [64] * n for n in (4, 8, 16, 32, 64, 128)[:most]})
    sizes = (2000, 4000, 8000, 16000, 32000, 64000)[:most]
    yield "examples", [_watched(_enlarged(data, n), 1, n, seeds=1) for n in sizes]
    yield "workers", [_watched(data, n, n, seeds=8 if most else 256) for n in range(1, workers + 1)]


def _studied(data: fanin.Dataset, jobs: int, **more: Any) -> tuple[float, dict[str, list[float]]]:
    """Seconds of a study, and those of its trials by arm."""
    study = fanin.Study.from_dict({"name": "scaling", "recipe": RECIPE, "arms": [{"name": "only"}], **more})
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        fanin.run([study], out=folder, data=data, device="cpu", jobs=jobs, keep_weights="none")
        wall = time.perf_counter() - begun
        with fanin.Store.open(folder) as store:
            records = store.records(study)
    for record in (record for some in records.values() for record in some):
        if record.status != "done":
            raise SystemExit(f"expected every trial done; got {record.status} ({record.error or record.divergence})")
    return wall, {arm: [record.seconds for record in some] for arm, some in records.items()}


def _watched(data: fanin.Dataset, jobs: int, size: int, *, seeds: int) -> Point:
    """A study of one arm with its memory."""
    with Watch() as watch:
        wall, trials = _studied(data, jobs, seeds=seeds)
    return Point(size, size, wall, mean(trials["only"]), watch.worker, watch.anonymous, watch.driver)


def _by_arm(data: fanin.Dataset, hidden: dict[int, list[int]], **more: Any) -> list[Point]:
    """One study with an arm for each size; x is the number of weights, which the products' cost is proportional to."""
    arms = [{"name": str(size), "hidden": layers} for size, layers in hidden.items()]
    recipe = RECIPE | {"epochs": BY_ARM["epochs"]} | more
    wall, trials = _studied(data, 1, seeds=BY_ARM["seeds"], recipe=recipe, arms=arms)
    return [Point(size, _weights(data, layers), wall, mean(trials[str(size)])) for size, layers in hidden.items()]


def _weights(data: fanin.Dataset, hidden: Sequence[int]) -> int:
    sizes = [data.features, *hidden, data.n_classes]
    return sum(a * b for a, b in pairwise(sizes))


def _enlarged(data: fanin.Dataset, examples: int) -> fanin.Dataset:
    """The same digits over and over, as training data; the test part stays."""
    rows = np.arange(examples) % len(data.train)
    train = Split(data.train.inputs[rows], data.train.labels[rows])
    return fanin.Dataset(f"digits x {examples}", train, data.test, data.classes, data.scale, None, data.source)


def _table(name: str, cost: str, points: Sequence[Point], line: Line | None) -> Table:
    watched = points[0].worker is not None
    memory = ("study, s", "worker, MB", "anonymous, MB", "driver, MB") if watched else ()
    table = Table(name, "x", "trial, s", *memory, title=f"Cost by {name}")
    if line is not None:
        table.caption = f"{cost}, s = {line.fixed:.3g} + {line.each:.3g} x, R² = {line.r2:.4f}"
    for p in points:
        row = [str(p.size), f"{p.x:.0f}", f"{p.trial:.4f}"]
        if watched:
            row += [f"{p.wall:.2f}", f"{p.worker:.0f}", f"{p.anonymous:.0f}", f"{p.driver:.0f}"]
        table.add_row(*row)
    return table


if __name__ == "__main__":
    sys.exit(main())
