"""The terminal table of one study: narrower where it must be, readable without colour."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fanin.report import findings
from fanin.report.bounds import MOST_LINES, left_out
from fanin.report.grid import maps
from fanin.report.map_table import map_legend, map_table
from fanin.report.results import ArmSummary, StudySummary
from fanin.report.words import (
    NOTHING,
    SUPERSCRIPT,
    accuracy_interval,
    count,
    duration,
    hundredths,
    interval,
    significant,
)

_STYLES = {"higher": "green", "lower": "red", "no evidence": "dim", "too few pairs": "dim"}
_PLAIN = str.maketrans({"−": "-", "–": "-", "—": "-", "…": "...", "▲": "^", "▼": "v", "○": "o", "×": "x", "ℓ": "l"})
_POWER = re.compile(r"×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_DIGITS = {v: chr(k) for k, v in SUPERSCRIPT.items()}


@dataclass(frozen=True)
class _Form:
    """How much a table shows: intervals beside the mean or under it, and which columns may go."""

    beside: bool = True
    raw: bool = True
    cost: bool = True
    accuracy_interval: bool = True
    published: bool = True


# tried in this order until one is narrow enough
_FORMS = (
    _Form(),
    _Form(beside=False),
    _Form(beside=False, raw=False),
    _Form(beside=False, raw=False, cost=False),
    _Form(beside=False, raw=False, cost=False, accuracy_interval=False),
    _Form(beside=False, raw=False, cost=False, accuracy_interval=False, published=False),
)


def print_table(summary: StudySummary, console: Console) -> None:
    """Print the study: question, arms, answers, what went wrong or was not reproduced, and what it ran on."""
    say = _speaker(console)
    say(summary.title, "bold")
    if summary.study.question:
        say(summary.study.question, "italic")
    console.print()
    drawn = maps(summary)
    for found in drawn:
        if found.name:
            say(found.name, "bold")
        console.print(map_table(found, lambda words: _sayable(words, console)))
        say(findings.charted(found))
        console.print()
    if not drawn:
        console.print(_fitting(summary, console))
        if more := left_out(len(summary.arms), MOST_LINES, "arms", "`fanin results --json`"):
            say(more)
    if len(summary.arms) > 1:
        say(map_legend(drawn[0], summary) if drawn else _legend(summary), "dim")
    for found in summary.answers:
        console.print()
        say(found.question.ask, "bold")
        say(found.text, indent=2)
        if found.differs:
            say(f"The two recipes differ in {findings.differs(found.differs)}.", "dim", indent=2)
    notes = [] if drawn else _notes(summary)
    if notes:
        console.print()
    for line in notes:
        say(line)
    console.print()
    say(_footer(summary), "dim")
    console.print()


def _speaker(console: Console) -> Callable[..., None]:
    def say(words: str, style: str = "", indent: int = 0) -> None:
        text = Text(_sayable(words, console), style=style)
        console.print(Padding(text, (0, 0, 0, indent), expand=False) if indent else text)  # padding fills up lines

    return say


def _sayable(words: str, console: Console) -> str:
    """The words in characters that the output can encode: a pipe under LANG=C must not end in an error."""
    try:
        words.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        words = _POWER.sub(lambda m: "e" + "".join(_DIGITS[ord(c)] for c in m[1]), words).translate(_PLAIN)
        words = words.replace("\N{NO-BREAK SPACE}", " ").encode("ascii", "replace").decode("ascii")
    return words


def _fitting(summary: StudySummary, console: Console) -> Table:
    tables = [_table(summary, form, console) for form in _FORMS]
    return next((t for t in tables if _natural_width(t, console) <= console.width), tables[-1])


def _natural_width(table: Table, console: Console) -> int:
    wide = console.options.update(width=1000, max_width=1000)
    return Measurement.get(console, wide, table).maximum


def _table(summary: StudySummary, form: _Form, console: Console) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    columns = _columns(summary, form)
    # names wrap beyond a third of the line, so that numbers keep theirs
    table.add_column("arm", max_width=max(16, console.width // 4), overflow="fold")
    for head, _ in columns:
        table.add_column(_sayable(head, console), justify="right", no_wrap=True, vertical="top")
    for i, arm in enumerate(summary.arms[:MOST_LINES]):
        cells = [Text(_sayable(words, console), style=style) for words, style in (cell(arm, i) for _, cell in columns)]
        table.add_row(Text(_sayable(arm.name, console)), *cells)
    return table


_Cell = Callable[[ArmSummary, int], tuple[str, str]]


def _columns(summary: StudySummary, form: _Form) -> list[tuple[str, _Cell]]:
    found: list[tuple[str, _Cell]] = [
        ("trained", lambda arm, _: (findings.trained(arm), _trained_style(arm))),
        ("accuracy,\n%", lambda arm, _: (_accuracy(arm, form), "")),
    ]
    if form.raw:
        found.append(("on raw\npixels", lambda arm, _: (hundredths(arm.accuracy_on_raw_pixels.mean), "")))
    if form.cost:
        found.append(("train\ncost", lambda arm, _: (significant(arm.train_cost.mean), "")))
    if len(summary.arms) > 1:
        found.append(("difference,\npoints", lambda arm, i: _difference(arm, form, first=i == 0)))
    if findings.compares(summary) and form.published:
        found.append(("published,\n%", lambda arm, _: (_printed(arm), "")))
    if summary.points[1]:
        found.append(("reproduced", lambda arm, _: (findings.reproduction(arm), _reproduced_style(arm))))
    return found


def _accuracy(arm: ArmSummary, form: _Form) -> str:
    found = arm.accuracy
    shown = accuracy_interval(found.low, found.high) if form.accuracy_interval else ""
    return _joined(hundredths(found.mean), shown, findings.fewer(len(found.values), arm), form)


def _difference(arm: ArmSummary, form: _Form, *, first: bool) -> tuple[str, str]:
    found = arm.difference
    if first or found is None:
        return ("reference" if first else NOTHING), "dim"
    mean = findings.MARKS[found.verdict] + hundredths(found.mean, sign=True)
    band = interval(found.low, found.high, rate=True)
    return _joined(mean, band, findings.pairs(found, arm), form), _STYLES[found.verdict]


def _joined(mean: str, band: str, n: str, form: _Form) -> str:
    """Mean and interval in one line or two, and below them on how many seeds they rest, if not on all."""
    first = " ".join(filter(None, (mean, band))) if form.beside else "\n".join(filter(None, (mean, band)))
    return "\n".join(filter(None, (first, n)))


def _printed(arm: ArmSummary) -> str:
    return findings.published_accuracy(arm) if arm.comparison else ""


def _trained_style(arm: ArmSummary) -> str:
    return "red" if arm.success and arm.success.successes < arm.success.n else ""


def _reproduced_style(arm: ArmSummary) -> str:
    return {True: "green", False: "red", None: "dim"}[arm.reproduced]


def _legend(summary: StudySummary) -> str:
    others = len(summary.arms) - 1
    together = f"{others} intervals that together hold with 95 %" if others > 1 else "a 95 % interval"
    return (
        f"Trained: ended with an accuracy of {100 * summary.study.success_accuracy:g} % or more. "
        f"Difference: to {summary.arms[0].name}, paired by seed, {together}. {findings.LEGEND}"
    )


def _notes(summary: StudySummary) -> list[str]:
    lines = findings.troubles(summary)
    lines += findings.not_compared(summary)
    for arm in summary.arms[:MOST_LINES]:
        lines += _outside(arm)
        if arm.arm.note:
            lines.append(f"{arm.name}: {arm.arm.note}")
    return lines


def _outside(arm: ArmSummary) -> list[str]:
    rows = findings.outside(arm)
    groups = list(dict.fromkeys((row[0], row[-1]) for row in rows))
    lines = []
    for i, (what, reason) in enumerate(groups):
        mine = [row for row in rows if (row[0], row[-1]) == (what, reason)]
        shown = "; ".join(f"{_when(epoch)} {value} not in {band}" for _, epoch, value, band, _ in mine[:3])
        more = f"; and {len(mine) - 3} more" if len(mine) > 3 else ""
        told = reason in {other for _, other in groups[i + 1 :]}  # said once, after the last line that it holds for
        lines.append(f"{arm.name}: published {what}, outside: {shown}{more}.{'' if told else findings.likely(reason)}")
    return lines


def _when(epoch: str) -> str:
    return "at the end" if epoch == "last" else f"epoch {epoch}"


def _footer(summary: StudySummary) -> str:
    known = findings.versions([summary])
    finished = sum(arm.n for arm in summary.arms)
    parts = [
        f"{finished} of {count(summary.planned, 'trial')}, {count(summary.study.seeds, 'seed')} an arm",
        str(summary.data.get("name", "unknown data")),
        summary.device,
        *(f"{name} {known[name]}" for name in ("fanin", "torch") if name in known),
        f"{duration(summary.seconds)} of training, summed over trials",
    ]
    return ", ".join(parts) + "."
