"""Seconds per trial-epoch on this CPU, and of complete arms: fanin, the usual ways to train the same, the bound."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from crew import KERAS_BACKEND, usable_cores
from fanin.datasets import load, save_shared
from fanin.engine import matmul
from figures import arm_rows, arm_table, best_rows, best_table, epoch_rows, epoch_table
from lineup import ARMS, EPOCHS, installed, left_out
from series import Series, check_learnt, disturbed, measure_arms, measure_epochs
from way import BATCH

DEFINITION = (
    "Machine-seconds per trial-epoch: wall seconds during which all cores of this machine work on one way, "
    "divided by the epochs of separate trainings that the whole machine finished in them. Wall time runs from "
    "the common start of all processes to the end of the last; imports, loading, initialisation and warm-up "
    "lie before it. A complete arm: wall seconds from bytes in memory, with everything imported, to the trained "
    "weights of one trial per core, in fresh processes; initialisation, compilation and warm-up lie within it."
)
LEARNT = 0.5  # mean training loss of the epoch under which a way has really trained (untrained: ln 10 = 2.3)
LEARNT_QUICKLY = 1.6  # the same for the few steps of --quick
ARM_EPOCHS = 15
WIDTH = 100  # columns that the tables need
PACKAGES = ("fanin", "torch", "numpy", "scikit-learn", "pillow", "jax", "keras", "lightning", "skorch")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON if asked for."""
    args = _parser().parse_args(argv)
    dataset = load(args.data, data_dir=args.data_dir)
    epoch = len(dataset.train.labels) // BATCH
    settings = {
        "data": dataset.name,
        "steps": min(epoch, 100) if args.quick else epoch,
        "rounds": 1 if args.quick else args.rounds,
        "batch": BATCH,
        "arm_rounds": min(args.arm_rounds, 1) if args.quick else args.arm_rounds,
        "arm_epochs": 2 if args.quick else ARM_EPOCHS,
        "quick": args.quick,
    }
    probe = matmul.choose()
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory() as folder:
        save_shared(dataset, Path(folder))
        epochs, arms = _measure(settings, probe.path, Path(folder))
    check_learnt([*epochs, *arms], LEARNT_QUICKLY if args.quick else LEARNT)
    hardware = _hardware() | {"load_before": load_before}
    _show(epochs, arms, settings, hardware, probe.path)
    if args.json:
        report = _report(epochs, arms) | {"settings": settings, "hardware": hardware, "matmul": asdict(probe)}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist", help="data set, as in `fanin run --data` (default: mnist)")
    parser.add_argument("--data-dir", type=Path, help="folder that holds MNIST (else FANIN_DATA, else fanin's search)")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each way; medians are shown (default: 5)")
    parser.add_argument("--arm-rounds", type=int, default=2, help="samples of each complete arm (default: 2; 0: none)")
    parser.add_argument("--json", type=Path, help="write figures, raw samples, machine and versions to this file")
    parser.add_argument("--quick", action="store_true", help="one round of 100 steps: a smoke test, not a measurement")
    return parser


def _measure(settings: dict[str, Any], path: str, folder: Path) -> tuple[list[Series], list[Series]]:
    """The epochs, then the arms; arms have rounds of their own, for they take long and scatter less."""
    told: dict[str, Any] = {"steps": settings["steps"], "path": path, "folder": folder}
    epochs = measure_epochs(installed(EPOCHS), settings["rounds"], **told)
    arms: list[Series] = []
    if settings["arm_rounds"] > 0:
        arms = measure_arms(installed(ARMS), settings["arm_rounds"], epochs=settings["arm_epochs"], **told)
    return epochs, arms


def _show(
    epochs: Sequence[Series], arms: Sequence[Series], settings: dict[str, Any], hardware: dict[str, Any], path: str
) -> None:
    console = Console()
    console.width = max(console.width, WIDTH)
    rows = epoch_rows(epochs)
    console.print(epoch_table(rows, settings["steps"], settings["rounds"]))
    console.print(best_table(rows))
    if arms:
        console.print(arm_table(arm_rows(arms), settings["arm_epochs"], settings["steps"], settings["arm_rounds"]))
    if note := left_out(EPOCHS):
        console.print(note, markup=False)  # it has brackets
    console.print(
        f"{hardware['cores']} cores, {hardware['cpu']}, matmul path {path}; load before: {hardware['load_before']}"
    )
    if count := disturbed([*epochs, *arms]):
        console.print(f"{count} samples had to share a core with other programs: measure again when it is quiet")


def _report(epochs: Sequence[Series], arms: Sequence[Series]) -> dict[str, Any]:
    rows = epoch_rows(epochs)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "definition": DEFINITION,
        "versions": {"python": platform.python_version()} | _versions(),
        "keras_backend": KERAS_BACKEND,
        "left_out": left_out(EPOCHS),
        "figures": rows,
        "best": best_rows(rows),
        "arms": arm_rows(arms) if arms else [],
        "samples": [_samples(one) for one in epochs],
        "arm_samples": [_samples(one) for one in arms],
    }


def _samples(one: Series) -> dict[str, Any]:
    return {"way": one.entry.title, "layout": one.layout, "samples": [asdict(sample) for sample in one.samples]}


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # `left_out` says so
            found[name] = None
    return found


def _hardware() -> dict[str, Any]:
    return {
        "cpu": matmul.cpu_model(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "platform": platform.platform(),
        "cores": len(usable_cores()),
    }


if __name__ == "__main__":
    sys.exit(main())
