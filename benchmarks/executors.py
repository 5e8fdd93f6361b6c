"""What a cluster on this machine keeps of the local executor's throughput: the same study on each, in turn.

python benchmarks/executors.py                      # MNIST, cohorts of some 7 s; about ten minutes on two cores
python benchmarks/executors.py --json executors.json

Every run is a process of its own. *trials a minute* counts from the moment when a quarter of the trials have their
records to the last record, so that neither starting nor ending counts; *whole* is `fanin.run`'s wall time with both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fanin import Study
from fanin.driver import Watcher, run
from fanin.recipe import Trial
from fanin.record import Record
from machine import in_words, machine, save

EXECUTORS = ("local", "ray", "dask")


class Clock(Watcher):
    """When each record was written, and how long its trial was trained."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.trained: list[float] = []

    def recorded(self, trial: Trial, record: Record) -> None:
        self.at.append(time.perf_counter())
        self.trained.append(record.seconds)


def once(executor: str, data: str, trials: int, epochs: int) -> dict[str, float]:
    """One run in this process."""
    study = Study.from_dict(
        {
            "name": "throughput",
            "seeds": trials,
            "recipe": {"hidden": [256, 256], "epochs": epochs, "optimizer": {"name": "adam", "lr": 0.001}},
            "arms": [{"name": "lab 9's network"}],
        }
    )
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="fanin-executors-") as folder:
        begun = time.perf_counter()
        done = run([study], out=folder, data=data, executor=executor, watcher=clock)
        whole = time.perf_counter() - begun
    assert done.ran == trials
    assert not done.failed
    warm = trials // 4  # the workers' first cohorts, before which some wait for others to start
    return {
        "trials a minute": 60 * (trials - warm) / (clock.at[-1] - clock.at[warm - 1]),
        "whole": whole,
        "training": statistics.mean(clock.trained),
    }


def rounds(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Samples of each executor, all of them once in every round."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in options.executors}
    for _ in range(options.rounds):
        for name in options.executors:
            command = [sys.executable, __file__, "--once", name, "--data", options.data]
            command += ["--trials", str(options.trials), "--epochs", str(options.epochs)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            samples[name].append(json.loads(said.splitlines()[-1]))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return samples


def table(samples: dict[str, list[dict[str, float]]]) -> str:
    """Medians, and each executor's share of the first one's throughput by round: median, smallest and largest."""
    reference = [sample["trials a minute"] for sample in next(iter(samples.values()))]
    lines = ["executor  trials a minute   share of it [least, most]   whole s   seconds of training a trial"]
    for name, found in samples.items():
        shares = [sample["trials a minute"] / other for sample, other in zip(found, reference, strict=True)]
        median = {key: statistics.median(sample[key] for sample in found) for key in found[0]}
        lines.append(
            f"{name:<9} {median['trials a minute']:>15.2f}   {statistics.median(shares):>10.3f} "
            f"[{min(shares):.3f}, {max(shares):.3f}] {median['whole']:>9.1f} {median['training']:>22.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executors", nargs="+", default=list(EXECUTORS), help="the first is what others are held to")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once(options.once, options.data, options.trials, options.epochs)))
        return
    found: dict[str, Any] = machine()
    print(in_words(found), flush=True)
    samples = rounds(options)
    print(table(samples))
    if options.json:
        save(options.json, {"machine": found, "samples": samples})


if __name__ == "__main__":
    main()
