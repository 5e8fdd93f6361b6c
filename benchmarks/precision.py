"""What bfloat16 products cost in accuracy: the same seeds with both precisions, and the paired difference."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fanin
from fanin.engine.matmul import cpu_model
from fanin.statistics import Difference, mean_interval, paired_difference
from way import BATCH, HIDDEN, LR

POINTS = 100  # of accuracy, in a whole


def main(argv: Sequence[str] | None = None) -> int:
    """Train, compare, print, and write the JSON if asked for."""
    args = _parser().parse_args(argv)
    study = _study(args.seeds, args.epochs)
    accuracies = _accuracies(study, args.data, args.data_dir)
    for name, values in accuracies.items():
        print(f"{name}: {mean_interval(values).mean:.3f} % of the test set right, by seed {_listed(values)}")
    difference = paired_difference(accuracies["bf16"], accuracies["fp32"])
    print(_sentence(difference))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(_report(args, study, accuracies, difference), indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist", help="data set, as in `fanin run --data` (default: mnist)")
    parser.add_argument("--data-dir", type=Path, help="folder that holds MNIST (else FANIN_DATA, else fanin's search)")
    parser.add_argument("--seeds", type=int, default=6, help="pairs of trainings (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=15, help="of each training (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write accuracies, difference and machine to this file")
    return parser


def _study(seeds: int, epochs: int) -> fanin.Study:
    return fanin.Study.from_dict(
        {
            "name": "benchmarks/precision",
            "question": "Do products with bfloat16 operands cost accuracy?",
            "seeds": seeds,
            "recipe": {
                "hidden": list(HIDDEN),
                "init": "xavier_uniform",
                "optimizer": {"name": "adam", "lr": LR},
                "batch_size": BATCH,
                "epochs": epochs,
            },
            "arms": [{"name": "fp32"}, {"name": "bf16", "precision": "bf16"}],
        }
    )


def _accuracies(study: fanin.Study, data: str, data_dir: Path | None) -> dict[str, list[float]]:
    """Final test accuracies in points, by arm, in the order of the seeds."""
    with tempfile.TemporaryDirectory() as folder:
        fanin.run([study], out=folder, data=data, data_dir=data_dir, device="cpu", keep_weights="none")
        with fanin.Store.open(folder) as store:
            records = store.records(study)
    lost = [
        f"{arm}, seed {r.seed}: {r.error or r.status}" for arm, found in records.items() for r in found if not r.final
    ]
    if lost:
        raise SystemExit(f"no pair without an accuracy: {'; '.join(lost)}")
    return {arm: [POINTS * r.final.test_accuracy for r in found] for arm, found in records.items()}


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _sentence(difference: Difference) -> str:
    interval = "no interval from a single pair"
    if difference.low is not None and difference.high is not None:
        interval = f"{difference.confidence:.0%} interval {difference.low:+.3f} to {difference.high:+.3f}"
    return (
        f"bf16 - fp32: {difference.mean:+.3f} points, {interval}, {difference.n} pairs, "
        f"sign test p = {difference.p:.3f}: {difference.verdict}"
    )


def _report(
    args: argparse.Namespace, study: fanin.Study, accuracies: dict[str, list[float]], difference: Difference
) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": args.data,
        "recipe": study.arms[0].recipe.to_dict(),
        "versions": {name: version(name) for name in ("fanin", "torch")},
        "cpu": cpu_model(),
        "unit": "points of test accuracy after the last epoch",
        "accuracy": accuracies,
        "bf16_minus_fp32": asdict(difference) | {"verdict": difference.verdict},
    }


if __name__ == "__main__":
    sys.exit(main())
