"""Whether fanin has become slower: the ratios of two results of cpu.py. Exit 0: no; 1: yes; 2: not comparable.

Absolute times are never compared: another day's machine is another machine, but its ratios stay.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

TOLERANCE = 0.10
# what must be equal for ratios to mean the same, by its place in a result
SAME = (
    ("hardware", "cpu"),
    ("hardware", "capability"),
    ("hardware", "cores"),
    ("matmul", "path"),
    ("settings", "data"),
    ("settings", "steps"),
    ("settings", "batch"),
    ("settings", "arm_epochs"),
)

Row = dict[str, Any]
Key = tuple[str, str]  # way, layout


class NotComparable(Exception):  # noqa: N818 - it is the answer, not an error
    """Why two results say nothing about each other."""


@dataclass(frozen=True)
class Check:
    """One ratio, the larger the better for fanin, before and now; `allowed` is the least that passes."""

    ratio: str
    was: float
    now: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Not slower than tolerated."""
        return self.now >= self.allowed

    def __str__(self) -> str:
        word = "ok    " if self.passed else "SLOWER"
        return f"{word} {self.ratio}: was {self.was:.3f}, is {self.now:.3f}, allowed {self.allowed:.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print every check, and answer by the exit status."""
    args = _parser().parse_args(argv)
    try:
        was, now = (_read(path) for path in (args.committed, args.fresh))
        found = checks(was, now, args.tolerance)
    except NotComparable as reason:
        print(f"not comparable: {reason}", file=sys.stderr)
        return 2
    for check in found:
        print(check)
    for note in notes(was, now):
        print(note)
    return 0 if all(check.passed for check in found) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("committed", type=Path, help="the result to compare with, such as results/cpu-DATE.json")
    parser.add_argument("fresh", type=Path, help="a result of `cpu.py --json` on the same machine")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="how much slower fanin may have become, relatively (default: %(default)s)",
    )
    return parser


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text())
        for section, name in SAME:
            result[section][name]
        for row in result["figures"]:
            row["role"], row["network"], row["way"], row["layout"], row["seconds"], row["share_of_bound"]
        result["arms"], result["settings"]["quick"]
    except (OSError, ValueError) as error:
        raise NotComparable(f"{path} cannot be read: {error}") from None
    except (KeyError, TypeError) as error:
        raise NotComparable(f"{path} has no {error}: not a result of this version of cpu.py") from None
    if result["settings"]["quick"]:
        raise NotComparable(f"{path} was made with --quick, which measures nothing")
    return result


def checks(was: dict[str, Any], now: dict[str, Any], tolerance: float) -> list[Check]:
    """Every row of fanin against its peers and its bound; every complete arm of fanin against its peers."""
    for section, name in SAME:
        if was[section][name] != now[section][name]:
            raise NotComparable(f"{section}.{name} was {was[section][name]!r}, is {now[section][name]!r}")
    found = []
    for key, before in _of(was["figures"], "fanin").items():
        after = _counterpart(key, now["figures"])
        found.append(_check(f"{_name(key)}: share of bound", before, after, "share_of_bound", tolerance))
        network = before["network"]
        before_peers, after_peers = (
            [row for row in result["figures"] if row["network"] == network] for result in (was, now)
        )
        found += _against_peers(_name(key), (before, before_peers), (after, after_peers), tolerance)
    if was["arms"] and now["arms"]:
        for key, before in _of(was["arms"], "fanin").items():
            after = _counterpart(key, now["arms"])
            found += _against_peers(f"arm, {_name(key)}", (before, was["arms"]), (after, now["arms"]), tolerance)
    if not any("median" in check.ratio for check in found):
        raise NotComparable("the two results have no peer in common")
    return found


def _against_peers(
    name: str, was: tuple[Row, Sequence[Row]], now: tuple[Row, Sequence[Row]], tolerance: float
) -> list[Check]:
    """The peer in the middle of those that both results have, by how much slower fanin became relative to it."""
    before, after = (
        {key: row["seconds"] / own["seconds"] for key, row in _of(rows, "peer").items()} for own, rows in (was, now)
    )
    common = sorted(before.keys() & after.keys())
    if not common:
        return []
    _, key = median_low([(before[key] / after[key], key) for key in common])
    ratio = f"{name}: seconds of {_name(key)} to its own, the median change of {len(common)} peers"
    return [Check(ratio, before[key], after[key], before[key] / (1 + tolerance))]


def _check(ratio: str, before: Row, after: Row, field: str, tolerance: float) -> Check:
    return Check(ratio, before[field], after[field], before[field] / (1 + tolerance))


def _of(rows: Sequence[Row], role: str) -> dict[Key, Row]:
    return {(row["way"], row["layout"]): row for row in rows if row["role"] == role}


def _counterpart(key: Key, rows: Sequence[Row]) -> Row:
    try:
        return _of(rows, "fanin")[key]
    except KeyError:
        raise NotComparable(f"the fresh result has no {_name(key)}") from None


def _name(key: Key) -> str:
    way, layout = key
    return f"{way} ({layout})"


def notes(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a reader of the verdict should know: peers that only one result has, versions that changed."""
    before, after = (_of(result["figures"], "peer").keys() for result in (was, now))
    found = [f"not compared, in one result only: {_name(key)}" for key in sorted(before ^ after)]
    old, new = (result.get("versions", {}) for result in (was, now))
    return found + [
        f"version of {name}: was {old.get(name)}, is {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


if __name__ == "__main__":
    sys.exit(main())
