"""Seconds per epoch of a Boltzmann machine, 784 x 500 on 60,000 rows: against scikit-learn, and against its products.

scikit-learn's BernoulliRBM and fanin's both train PCD-1 with batches of 100, on all cores. The bound is the time of the
2 k + 3 products of a step alone (data up; k times down and up; two for the gradient), by torch.mm into tensors that are
there, on one core. What runs on all cores does so in a process of its own; there torch's threads wait actively
(OMP_WAIT_POLICY), as those of scikit-learn's BLAS do, since a batch's products are so short that waking a sleeping
thread costs a good part of them, and beside such a process nothing else is measured. Ways take turns and the best
round counts, so that a busy machine does not decide; fewer rows and more rounds help on one that is never quiet
(seconds are those of 60,000 rows all the same). Data are drawn: their values do not matter.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table
from sklearn.neural_network import BernoulliRBM
from threadpoolctl import threadpool_limits

from fanin.pretraining import RBM

ROWS, FEATURES, HIDDEN, BATCH = 60000, 784, 500, 100
FASTER = 3.0  # times scikit-learn
SHARE = 0.6  # of the bound
ALL_CORES = ("theirs, all", "ours, all", "half, all")


def ours(X: torch.Tensor, threads: int, **params: object) -> float:
    """Seconds of one epoch, without what comes before and after it."""
    torch.set_num_threads(threads)
    return RBM(HIDDEN, batch_size=BATCH, epochs=1, **params).fit(X).history_[-1]["seconds"]


def half(X: torch.Tensor, threads: int) -> float:
    """The same with bfloat16 products."""
    return ours(X, threads, precision="bf16")


def theirs(X: torch.Tensor, threads: int) -> float:
    """Seconds of one epoch of scikit-learn's, its start (drawing weights) included: some milliseconds."""
    machine = BernoulliRBM(HIDDEN, learning_rate=0.01, batch_size=BATCH, n_iter=1, random_state=0)
    with threadpool_limits(threads):
        begun = time.perf_counter()
        machine.fit(X.numpy())
        return time.perf_counter() - begun


def alone(way: str, rows: int) -> float:
    """Seconds of a way on all cores, in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--rows", str(rows)]
    waiting = {} if way.startswith("theirs") else {"OMP_WAIT_POLICY": "active"}
    return float(subprocess.run(command, env=os.environ | waiting, check=True, capture_output=True, text=True).stdout)


def products(X: torch.Tensor, k: int, dtype: torch.dtype = torch.float32) -> float:
    """Seconds that an epoch's products take alone on one core."""
    torch.set_num_threads(1)
    v, W, h = X[:BATCH].to(dtype), torch.randn(HIDDEN, FEATURES).to(dtype), torch.rand(BATCH, HIDDEN).to(dtype)
    up, down, outer = torch.empty_like(h), torch.empty_like(v), torch.empty_like(W)
    begun = time.perf_counter()
    for _ in range(len(X) // BATCH):
        torch.mm(v, W.T, out=up)
        for _ in range(k):
            torch.mm(h, W, out=down)
            torch.mm(v, W.T, out=up)
        torch.mm(h.T, v, out=outer)
        torch.mm(h.T, v, out=outer)
    return time.perf_counter() - begun


def measure(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Least seconds of each way, each in turn."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            best[name] = min(best[name], way())
    return best


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=ALL_CORES, help="this way's seconds alone, as a number")
    arguments = parser.parse_args(argv)
    X = (torch.rand(arguments.rows, FEATURES, generator=torch.Generator().manual_seed(0)) < 0.13).float()
    cores = len(os.sched_getaffinity(0))
    if arguments.way:
        print({"theirs, all": theirs, "ours, all": ours, "half, all": half}[arguments.way](X, cores))
        return 0
    found = measure(
        {
            **{way: (lambda way=way: alone(way, len(X))) for way in ALL_CORES},
            "theirs, one": lambda: theirs(X, 1),
            "ours, one": lambda: ours(X, 1),
            "bound": lambda: products(X, 1),
            "cd": lambda: ours(X, 1, method="cd"),
            "bound of half": lambda: products(X, 1, torch.bfloat16),
            "cd, half": lambda: ours(X, 1, method="cd", precision="bf16"),
        },
        arguments.rounds,
    )
    seconds = {name: best * ROWS / len(X) for name, best in found.items()}
    faster, share = seconds["theirs, all"] / seconds["ours, all"], seconds["bound"] / seconds["cd"]
    table = Table("", "seconds", "", title=f"An epoch of 784 x 500 on {ROWS:,} rows, batches of {BATCH}")
    for name, words, result in (
        ("theirs, all", f"scikit-learn, PCD-1, {cores} cores", ""),
        ("ours, all", f"fanin, PCD-1, {cores} cores", f"{faster:.1f} x faster (target {FASTER:g})"),
        ("half, all", "  in bfloat16", f"{seconds['theirs, all'] / seconds['half, all']:.1f} x"),
        ("theirs, one", "scikit-learn, PCD-1, one core", ""),
        ("ours, one", "fanin, PCD-1, one core", f"{seconds['theirs, one'] / seconds['ours, one']:.1f} x faster"),
        ("bound", "products of CD-1 alone, one core", ""),
        ("cd", "fanin, CD-1, one core", f"{share:.0%} of the bound (target {SHARE:.0%})"),
        ("bound of half", "products in bfloat16, one core", ""),
        ("cd, half", "fanin, CD-1 in bfloat16, one core", f"{seconds['bound of half'] / seconds['cd, half']:.0%}"),
    ):
        table.add_row(words, f"{seconds[name]:.2f}", result)
    Console().print(table)
    return 0 if faster >= FASTER and share >= SHARE else 1


if __name__ == "__main__":
    warnings.simplefilter("error")
    sys.exit(main())
