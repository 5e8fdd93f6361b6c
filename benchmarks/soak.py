"""Run studies for as long as told, and see that the driver's memory, files and processes stay what they were.

python benchmarks/soak.py --minutes 60
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fanin.driver import run
from fanin.study import Study

# After the first rounds have loaded and cached what they need, nothing should grow.
_WARM_UP_ROUNDS = 5
_MEGABYTES_OF_NOISE = 8.0


@dataclass(frozen=True)
class Use:
    """What this process holds."""

    megabytes: float
    files: int
    children: int
    temporary: int

    @classmethod
    def now(cls) -> Use:
        """As the system counts them."""
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
        return cls(
            megabytes=int(fields["VmRSS"].split()[0]) / 1024,
            files=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            children=len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
            temporary=sum(1 for _ in Path(tempfile.gettempdir()).iterdir()),
        )


def study_of(number: int) -> Study:
    """A small study whose trials no other has."""
    arms = [{"name": "a"}, {"name": "b", "init": "zeros"}, {"name": "c", "normalization": "batch"}]
    recipe = {"hidden": [16], "epochs": 1, "optimizer": {"name": "sgd", "lr": 0.01 + number * 1e-6}}
    return Study.from_dict({"name": f"soak {number}", "seeds": 4, "recipe": recipe, "arms": arms})


def soak(seconds: float, executor: str, jobs: int) -> tuple[int, Use, Use]:
    """Rounds done, and what was held after the warm-up and at the end. Every fourth round is an old one over again."""
    end, rounds, warm = time.monotonic() + seconds, 0, None
    with tempfile.TemporaryDirectory(prefix="soak-") as root:
        folder, own = Path(root) / "study", Path(root) / "temporary"
        own.mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(own)  # where nobody else leaves anything
        while time.monotonic() < end or rounds <= _WARM_UP_ROUNDS:
            number = rounds // 2 if rounds % 4 == 3 else rounds
            done = run([study_of(number)], out=folder, data="digits", executor=executor, jobs=jobs)
            assert done.failed == 0
            rounds += 1
            if rounds == _WARM_UP_ROUNDS:
                warm = Use.now()
        last = Use.now()
    assert warm is not None
    return rounds, warm, last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--executor", default="local")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    rounds, warm, last = soak(60 * options.minutes, options.executor, options.jobs)
    print(f"{rounds} studies of 12 trials; after {_WARM_UP_ROUNDS}: {warm}\nat the end: {last}")
    grown = last.megabytes - warm.megabytes > _MEGABYTES_OF_NOISE + 0.01 * rounds  # the folder holds ever more trials
    sys.exit(grown or last.files > warm.files or last.children > warm.children or last.temporary > warm.temporary)


if __name__ == "__main__":
    main()
