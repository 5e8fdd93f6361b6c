"""What fanin.diagnose finds in programs at fault and says of healthy ones: shares with Wilson intervals, and seconds.

The programs are those of `tests/diagnosis/bed`; that they are what they are called is proved by
`python -m tests.diagnosis.bed.prove`, which trains them all. The half "develop" is for looking at while the diagnosis
is written, "report" for figures that are quoted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table

from fanin.statistics import Rate, success_rate

sys.path.insert(0, str(Path(__file__).parents[1]))  # the test bed stands beside this folder

if TYPE_CHECKING:
    from tests.diagnosis.bed import Case

TOP = 3  # causes that a reader looks at


@dataclass(frozen=True)
class Outcome:
    """What was found in one case: codes in the order of their rank, or the error that the diagnosis raised."""

    name: str
    half: str
    expected: tuple[str, ...]
    found: tuple[str, ...]
    seconds: float
    error: str | None = None

    @property
    def alarmed(self) -> bool:
        """Whether the diagnosis spoke; one that raises on a healthy program has alarmed its user too."""
        return bool(self.found) or (self.error is not None and not self.expected)

    def right(self, top: int) -> bool:
        """Whether one of the first `top` causes is a right answer."""
        return not set(self.found[:top]).isdisjoint(self.expected)

    @property
    def verdict(self) -> str:
        """How the case went, in a word."""
        if not self.expected:
            return "false alarm" if self.alarmed else "silent"
        if self.right(1):
            return "first"
        if self.right(TOP):
            return "in top three"
        return "other cause" if self.found else "missed"


def look(case: Case, diagnose: Callable[..., Any], *, steps: int) -> Outcome:
    """One diagnosis of a fresh set-up, weights and order of the data from seed 0."""
    setup = case.setup()
    torch.manual_seed(0)
    found: tuple[str, ...] = ()
    error = None
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of some of the faults by itself
        try:
            diagnosis = diagnose(**setup.arguments(), steps=steps, seed=0)
            found = tuple(finding.cause for finding in diagnosis.findings)
        except Exception as raised:  # whatever it is, the user has no diagnosis
            error = f"{type(raised).__name__}: {raised}"
    return Outcome(case.name, case.half, case.expected, found, time.perf_counter() - start, error)


def rates_of(outcomes: Sequence[Outcome]) -> dict[str, Rate]:
    """k / n with Wilson's interval for each question that these cases can answer."""
    faulty = [o for o in outcomes if o.expected]
    healthy = [o for o in outcomes if not o.expected]
    rates = {}
    if faulty:
        rates["a fault is detected"] = success_rate(sum(o.alarmed for o in faulty), len(faulty))
        rates["a right cause in the top three"] = success_rate(sum(o.right(TOP) for o in faulty), len(faulty))
        rates["a right cause first"] = success_rate(sum(o.right(1) for o in faulty), len(faulty))
    if healthy:
        rates["false alarm on a healthy program"] = success_rate(sum(o.alarmed for o in healthy), len(healthy))
    return rates


def tables_of(outcomes: Sequence[Outcome]) -> tuple[Table, Table]:
    """Case by case, and the rates."""
    cases = Table("case", "half", "right answers", "found", "verdict", "s", title="Cases")
    for o in outcomes:
        found = f"raised {o.error}" if o.error else ", ".join(o.found[: TOP + 1])
        cases.add_row(o.name, o.half, ", ".join(o.expected), found, o.verdict, f"{o.seconds:.2f}")
    rates = Table("question", "cases", "share", "95 % interval", title="Rates")
    for question, rate in rates_of(outcomes).items():
        interval = f"{100 * rate.low:.0f} to {100 * rate.high:.0f} %"
        rates.add_row(question, f"{rate.successes} of {rate.n}", f"{100 * rate.rate:.0f} %", interval)
    seconds = [o.seconds for o in outcomes]
    rates.caption = f"seconds per case: median {statistics.median(seconds):.2f}, longest {max(seconds):.2f}"
    return cases, rates


def written(outcomes: Sequence[Outcome], *, steps: int) -> dict[str, Any]:
    """Everything as plain data, with what it was measured on."""
    return {
        "steps": steps,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "rates": {question: asdict(rate) for question, rate in rates_of(outcomes).items()},
        "cases": [asdict(o) | {"verdict": o.verdict} for o in outcomes],
    }


def chosen(half: str, names: Sequence[str]) -> list[Case]:
    """The cases of a half, or those named, whichever half they are of."""
    from tests.diagnosis.bed import CASES

    unknown = set(names) - {case.name for case in CASES}
    if unknown:
        raise SystemExit(f"--cases: expected names of cases; got {', '.join(sorted(unknown))}")
    if names:
        return [case for case in CASES if case.name in names]
    return [case for case in CASES if half in (case.half, "all")]


def main(argv: Sequence[str] | None = None) -> int:
    """Diagnose, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("develop", "report", "all"), default="report", help="default: report")
    parser.add_argument("--cases", nargs="+", default=[], metavar="NAME", help="these cases only")
    parser.add_argument("--steps", type=int, default=100, help="steps that a diagnosis watches (default: 100)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)

    import fanin

    outcomes = []
    for case in chosen(args.half, args.cases):
        outcomes.append(look(case, fanin.diagnose, steps=args.steps))
        if sys.stderr.isatty():
            print(f"{case.name}: {outcomes[-1].verdict}", file=sys.stderr)
    console = Console()
    for table in tables_of(outcomes):
        console.print(table)
    if args.json:
        args.json.write_text(json.dumps(written(outcomes, steps=args.steps), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
