"""The proof of the labels: healthy cases reach their bar, faulty ones stay clearly under their repaired twins.

Run it as `python -m tests.diagnosis.bed.prove`, with names of cases for some of them. Nothing of fanin's is used.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch

from tests.diagnosis.bed.case import Case
from tests.diagnosis.bed.training import trained_score

SEEDS = (0, 1, 2)
MARGIN = 0.05  # under the reference: a few points less than a good model reaches
GAP = 0.05  # of mean scores between a repaired program and the one at fault


@dataclass(frozen=True)
class Proof:
    """Held-out scores of a case by seeds, and of its repaired twin."""

    name: str
    bar: float
    scores: tuple[float, ...]
    repaired: tuple[float, ...] = ()

    @property
    def fails(self) -> str:
        """Why this is no case of its kind; empty if it is one."""
        if not self.repaired:
            return f"the worst of {len(self.scores)} seeds is under the bar" if min(self.scores) < self.bar else ""
        if mean(self.repaired) < self.bar:
            return "the repaired twin is under the bar"
        if min(self.repaired) <= max(self.scores):
            return "not every repaired twin is better than every one at fault"
        return "" if mean(self.repaired) - mean(self.scores) >= GAP else "the gap is too small"

    def __str__(self) -> str:
        scores, repaired = (" ".join(f"{s:6.3f}" for s in found) for found in (self.scores, self.repaired))
        return f"{self.name:34} {scores}  {repaired:20} bar {self.bar:.2f}  {self.fails.upper() or 'ok'}"


def prove(case: Case, seeds: Sequence[int] = SEEDS) -> Proof:
    """Train the case, and its twin if it has one, from each of the seeds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of shapes that broadcast: that is one of the faults
        scores = tuple(trained_score(case.setup(seed), seed) for seed in seeds)
        repaired = tuple(trained_score(case.twin(seed), seed) for seed in seeds) if case.faulty else ()
        judge = (case.twin() if case.faulty else case.setup()).judge
    return Proof(case.name, judge.reference - MARGIN, scores, repaired)


def main(argv: Sequence[str] | None = None) -> int:
    """Prove all cases, or those named; 1 if one of them fails."""
    from tests.diagnosis.bed import CASES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="cases (default: all)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    failed = 0
    for case in CASES:
        if not args.names or case.name in args.names or case.kind in args.names:
            proof = prove(case)
            failed += bool(proof.fails)
            print(proof, flush=True)
    print(f"{failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
