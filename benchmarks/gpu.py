"""Microseconds per trial-step on a CUDA card: fanin, its peers, the bound; correctness there, and a complete study."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from card import checks, jax_peer, limits, ours, peers, study, tables
from card.clock import Row, Scale
from fanin.datasets import load, save_shared
from fanin.engine.data import Data
from machine import in_words, machine, save
from way import BATCH, cut, dataset, settle

PARTS = ("checks", "bound", "fanin", "peers", "study")  # in this order
LEARNT = 1.6  # mean loss under which a way has trained (untrained: ln 10 = 2.3)
QUICK_STEPS = 14  # of an epoch with --quick
WIDTH = 120  # columns that the tables need
NO_CARD = (
    "No card: only the checks mean anything. Times are this machine's CPU's, which runs this code as no one would."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print part by part, write the JSON if asked for; 1 if a check failed."""
    args = _parser().parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu.py: there is no CUDA card, or this torch is not built for one (--device cpu --quick tries the code)")
        return 2
    console = Console()
    console.width = max(console.width, WIDTH)
    if device.type != "cuda":
        console.print(NO_CARD)
    found = load(args.data, data_dir=args.data_dir)
    bench = Bench(args, device, console, epoch=len(found.train.labels) // BATCH)
    with tempfile.TemporaryDirectory() as folder:
        save_shared(found, Path(folder))
        settle(Path(folder), torch.get_num_threads())
        for part in PARTS:
            if part in args.only:
                getattr(bench, part)()
    bench.finish()
    if args.json:
        save(args.json, bench.report)
    return int(not all(check["passed"] for check in bench.report.get("checks", [])))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: does it run? not a measurement")
    parser.add_argument("--only", type=_parts, default=PARTS, help=f"parts, by commas, of {','.join(PARTS)}")
    parser.add_argument("--sizes", type=_sizes, default=(8, 32, 128), help="of buckets (default: 8,32,128)")
    parser.add_argument("--trials", type=int, default=256, help="of the study (default: 256)")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each way; medians are shown (default: 5)")
    parser.add_argument("--data", default="mnist", help="data set, as in `fanin run --data` (default: mnist)")
    parser.add_argument("--data-dir", type=Path, help="folder that holds MNIST (else FANIN_DATA, else fanin's search)")
    parser.add_argument("--json", type=Path, help="write figures, raw samples, card and versions to this file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, a few steps: a smoke test, not a measurement")
    return parser


def _parts(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if unknown := [part for part in found if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"expected parts of {','.join(PARTS)}; got {','.join(unknown)}")
    return found


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))


class Bench:
    """The parts, each with its table and its place in the report; an epoch has so many steps."""

    def __init__(self, args: argparse.Namespace, device: torch.device, console: Console, *, epoch: int) -> None:
        quick = args.quick
        self._device, self._console, self._quick = device, console, quick
        self._sizes = (4, 8) if quick else args.sizes
        self._scale = Scale(4, 2, 1) if quick else Scale(min(epoch, 200), args.rounds, min(epoch, 20))
        self._trials, self._epochs = (4, 2) if quick else (args.trials, 15)
        self._ours: list[Row] = []
        self._peers: list[Row] = []
        self._limits: list[limits.Limit] = []
        self.report: dict[str, Any] = {
            "machine": machine(),
            "card": card(device),
            "versions": versions(),
            "quick": quick,
            "measured": device.type == "cuda" and not quick,  # else the figures mean nothing
            "settings": {"data": args.data, "batch": BATCH, "sizes": self._sizes, **asdict(self._scale)},
        }

    def checks(self) -> None:
        """Correctness."""
        sizes = self._sizes[:1] if self._quick else (self._sizes[0], self._sizes[-1])
        cpu = Data.of(dataset(), torch.device("cpu"))
        steps = {"steps": 3} if self._quick else {}
        place = checks.Place.of(self._data(), cpu, sizes, self._device, **steps)
        found = list(checks.checks(place))
        self._console.print(tables.check_table(found))
        if not checks.kernels_can_run(self._device):
            self._console.print("the kernels were not checked: no Triton, or no card and not TRITON_INTERPRET=1")
        self.report["checks"] = [asdict(one) | {"passed": one.passed} for one in found]

    def bound(self) -> None:
        """Memory and products."""
        speed = limits.bandwidth(self._device, self._scale.rounds)
        found = limits.limits(self._data(), self._sizes, ours.PRECISIONS, speed, scale=self._scale, device=self._device)
        self._limits = list(found)
        self._console.print(tables.limit_table(self._limits, speed))
        self.report["bound"] = {"bytes_per_second": speed, "rows": [asdict(o) | {"us": o.us} for o in self._limits]}

    def fanin(self) -> None:
        """Buckets."""
        self._ours = list(ours.rows(self._data(), self._sizes, scale=self._scale, device=self._device))
        self._show("fanin", self._ours)

    def peers(self) -> None:
        """What a user would take instead."""
        told = {"scale": self._scale, "device": self._device}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torch")  # advice of the compiler's
            self._peers = [*peers.rows(self._sizes, **told), *jax_peer.rows(self._sizes, **told)]
        self._show("peers", self._peers)
        if reason := jax_peer.left_out(self._device):
            self._console.print(reason, markup=False)  # it has brackets
            self.report["left_out"] = reason

    def study(self) -> None:
        """A complete one."""
        found = study.study(self._data(), self._trials, self._epochs, scale=self._scale, device=self._device)
        self._console.print(tables.study_table(found))
        self.report["study"] = asdict(found) | {"trials_per_second": found.rate, "share_outside_steps": found.outside}

    def finish(self) -> None:
        """The targets, and where all this was."""
        found = tables.targets(self._ours, self._peers, self._limits)
        self._console.print(tables.target_table(found))
        self.report["targets"] = [asdict(one) | {"verdict": one.verdict} for one in found]
        self._console.print(in_words(self.report["machine"]))
        if self.report["card"]:
            self._console.print("card: " + ", ".join(f"{k} {v}" for k, v in self.report["card"].items()))
        if not self.report["measured"]:
            self._console.print("Not a measurement." if self._device.type == "cuda" else NO_CARD)

    def _data(self) -> Data:
        data = Data.of(dataset(), self._device)
        return cut(data, QUICK_STEPS, QUICK_STEPS * BATCH) if self._quick else data

    def _show(self, title: str, rows: Sequence[Row]) -> None:
        self._console.print(tables.way_table(title, rows, self._limits))
        for line in tables.failures(rows):
            self._console.print(line, markup=False)
        if not self._quick and (lazy := [row.way for row in rows if row.loss is not None and not row.loss < LEARNT]):
            self._console.print(f"these did not train, so that their speed means nothing: {', '.join(lazy)}")
        self.report[title] = [
            asdict(row) | {"us": row.us, "of_bound": tables.limit_of(row, self._limits)} for row in rows
        ]


def card(device: torch.device) -> dict[str, Any] | None:
    """The card and its driver; None if the CPU stands in for it."""
    if device.type != "cuda":
        return None
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "memory_gb": round(found.total_memory / 1e9, 1),
        "multiprocessors": found.multi_processor_count,
        "driver": _driver(),
    }


def _driver() -> str | None:
    """The driver's version, where its own program is there to ask."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return lines[0] if lines else None


def versions() -> dict[str, str | None]:
    """Of what takes part; None for what is not there."""
    found: dict[str, str | None] = {"cuda": torch.version.cuda}
    for name in ("torch", "triton", "jax"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


if __name__ == "__main__":
    sys.exit(main())
