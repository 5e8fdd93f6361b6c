"""The tables of gpu.py, and its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from card.checks import Check
from card.clock import Row
from card.limits import Limit
from card.peers import EAGER, ENSEMBLE
from card.study import Study

AIM = 128  # the size of bucket that the targets are about


@dataclass(frozen=True)
class Target:
    """What was aimed at; `found` is None if it was not measured."""

    aim: str
    wanted: float
    found: float | None
    at_most: bool

    @property
    def verdict(self) -> str:
        """One word, or two."""
        if self.found is None:
            return "not measured"
        return "met" if (self.found <= self.wanted if self.at_most else self.found >= self.wanted) else "missed"


def targets(ours: Sequence[Row], peers: Sequence[Row], limits: Sequence[Limit]) -> list[Target]:
    """By the memory bound in fp32, whose products may take longer than memory, and tf32; by the peers in fp32."""
    memory = next((one.memory_us for one in limits), None)
    own = _us(ours, "fanin", AIM)
    by_memory = [
        Target(f"fanin {p}, M = {AIM}, by the memory bound", 2.0, _ratio(_us(ours, "fanin", AIM, p), memory), True)
        for p in ("fp32", "tf32")
    ]
    return [
        *by_memory,
        Target(f"eager loop by fanin, M = {AIM}", 20.0, _ratio(_us(peers, EAGER, 1), own), False),
        Target(f"torch.func.vmap by fanin, both M = {AIM}", 3.0, _ratio(_us(peers, ENSEMBLE, AIM), own), False),
    ]


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def _us(rows: Sequence[Row], way: str, members: int, precision: str = "fp32") -> float | None:
    wanted = (way, members, precision)
    return next((row.us for row in rows if (row.way, row.members, row.precision) == wanted), None)


def limit_of(row: Row, limits: Sequence[Limit]) -> float | None:
    """The bound's share of a row's time."""
    limit = next((one for one in limits if (one.members, one.precision) == (row.members, row.precision)), None)
    return limit.us / row.us if limit and row.us else None


def way_table(title: str, rows: Sequence[Row], limits: Sequence[Limit]) -> Table:
    """fanin's rows, or the peers'."""
    table = _table(title, "way", "M", "precision", "us", "min-max", "set-up, s", "of bound", "loss")
    table.caption = "us: microseconds per trial-step, median; set-up: initialisation, compilation, capture and warm-up"
    for row in rows:
        if row.us is None:
            table.add_row(row.way, str(row.members), row.precision, "failed")
            continue
        share = limit_of(row, limits)
        table.add_row(
            row.way,
            str(row.members),
            row.precision,
            _figure(row.us),
            f"{_figure(min(row.samples))}-{_figure(max(row.samples))}",
            f"{row.preparation or 0:.1f}",
            "" if share is None else f"{share:.0%}",
            f"{row.loss:.3f}",
        )
    return table


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each way that failed, with its error."""
    return [f"{row.way}, M = {row.members}, {row.precision} failed: {row.error}" for row in rows if row.error]


def limit_table(limits: Sequence[Limit], speed: float) -> Table:
    """What memory and products allow."""
    table = _table("The bound, microseconds per trial-step", "M", "precision", "memory", "products", "bound", "TFLOP/s")
    table.caption = f"memory: Adam in one pass at the measured {speed / 1e9:.0f} GB/s; products: bmm alone"
    for one in limits:
        figures = (_figure(us) for us in (one.memory_us, one.products_us, one.us))
        table.add_row(str(one.members), one.precision, *figures, f"{one.flops / 1e12:.3g}")
    return table


def check_table(checks: Sequence[Check]) -> Table:
    """Every check; those that failed with what was found."""
    table = _table(f"Correctness: {sum(c.passed for c in checks)} of {len(checks)} passed", "check", "result")
    for one in checks:
        table.add_row(one.name, "passed" if one.passed else f"FAILED: {one.wrong}")
    return table


def study_table(found: Study) -> Table:
    """One row."""
    columns = ("trials", "epochs", "slots", "wall, s", "first epoch, s", "trials/s", "outside steps", "accuracy")
    table = _table("A complete study", *columns)
    table.add_row(
        *(str(n) for n in (found.trials, found.epochs, found.slots)),
        f"{found.wall:.1f}",
        f"{found.first:.1f}",
        f"{found.rate:.3g}",
        f"{found.outside:.0%}",
        f"{found.accuracy:.4f}",
    )
    return table


def target_table(found: Sequence[Target]) -> Table:
    """What was aimed at and what came out."""
    table = _table("Targets", "ratio", "target", "measured", "verdict")
    for one in found:
        sign = "at most" if one.at_most else "at least"
        table.add_row(one.aim, f"{sign} {one.wanted:g}", f"{one.found:.3g}" if one.found else "", one.verdict)
    return table


def _figure(us: float) -> str:
    """Three digits, and no power of ten."""
    return f"{us:.0f}" if us >= 100 else f"{us:.3g}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        words = column in ("way", "precision", "check", "result", "ratio", "verdict")
        table.add_column(column, justify="left" if words else "right", no_wrap=column != "result")
    return table
