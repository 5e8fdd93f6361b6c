"""A diagnosis in the terminal: findings, experiments as bars, what was looked at; and the two quick checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from fanin.report.diagnosis.words import (
    GIVEN,
    SURE,
    Plain,
    capital,
    code_of,
    confidence,
    headline,
    listed,
    meaning,
    percent,
    ranked_experiments,
    title_of,
)
from fanin.report.labels import shortened
from fanin.report.propagation.table import BLOCKS, PLAIN_BLOCKS, encodable, say, sayable, strip
from fanin.report.words import significant

_BAR = 30  # characters of a whole one
_NAME = 34


def print_diagnosis(plain: Plain, console: Console) -> None:
    """Print how it stands, the findings, the experiments and what was looked at."""
    say(headline(plain), console, style="bold" if plain["findings"] else "bold green")
    for number, finding in enumerate(plain["findings"], 1):
        console.print()
        _finding(finding, number, console)
    _experiments(ranked_experiments(plain), console)
    console.print()
    for name, words in plain["facts"].items():
        say(f"{name}: {words}", console, style="dim", hanging=2)
    if plain.get("unseen"):
        say("not seen:", console, style="dim")
        for note in plain["unseen"]:
            say(note, console, style="dim", indent=2)


def _finding(finding: Plain, number: int, console: Console) -> None:
    style = "bold red" if finding["confidence"] >= SURE else "bold yellow"
    say(f"{number}. {title_of(finding)} ({confidence(finding)})", console, style=style, hanging=3)
    say(f"{capital(meaning(finding['cause']))}.", console, style="dim", indent=3)
    say(f"{finding['evidence']}.", console, indent=3)
    words, code = code_of(finding)
    if words:
        say(f"Remedy: {words}", console, indent=3, hanging=5)
    if code:  # as it is typed: never broken
        line = Text(sayable(f"   {'' if words else 'Remedy: '}{code}", console), style="green")
        console.print(line, soft_wrap=True)
    say(f"Source: {finding['reference']}", console, style="dim", indent=3, hanging=5)


def _experiments(made: Sequence[tuple[str, float]], console: Console) -> None:
    if not made:
        return
    console.print()
    say("Share of the task that short runs learn, each with one thing changed", console, style="bold")
    block = "█" if encodable("█", console) else "#"
    width = max(len(shortened(name, _NAME)) for name, _ in made)
    for name, share in made:
        bar = block * max(round(_BAR * min(1.0, max(0.0, share))), 0)
        ink = "yellow" if name == GIVEN else "cyan"
        line = Text(sayable(f"{shortened(name, _NAME):{width}}  ", console))
        line.append(bar, style=ink)
        line.append(sayable(f"{' ' if bar else ''}{percent(share)}", console))
        console.print(line, soft_wrap=True)


def print_rates(plain: Mapping[str, Any], console: Console) -> None:
    """Print a range test (LearningRates.to_dict() with its words): the suggestion, and the curve as a strip."""
    first, *rest = plain["words"].splitlines()
    say(first, console, style="bold", hanging=2)
    curves: list[Sequence[float]] = [test["losses"] for test in plain["tests"]]
    longest = max(curves, key=len, default=())
    values = listed(longest)
    if values and min(values) > 0:
        step = max(1, len(values) // 50)
        low, high = min(values), max(*values, 1.2 * min(values))
        ink = strip(values[::step], low, high, BLOCKS if encodable(BLOCKS, console) else PLAIN_BLOCKS)
        console.print(Text(sayable(f"loss {ink}", console)), soft_wrap=True)
        ends = f"{plain['rates'][0]:.0e} to {plain['rates'][min(len(values), len(plain['rates'])) - 1]:.0e}"
        say(f"at {ends}; {significant(low)} to {significant(max(values))}, logarithmic", console, style="dim", indent=5)
    for line in rest:
        say(line, console, style="dim", hanging=2)


def print_one_batch(plain: Mapping[str, Any], console: Console) -> None:
    """Print OneBatch.to_dict(): the verdict, and how far each optimiser came."""
    say(plain["verdict"], console, style="bold green" if plain["passed"] else "bold red")
    for key in ("own", "adam"):
        one = plain[key]
        end = f"it raised {one['error']}" if one["error"] else f"{percent(one['learnt'])} learnt"
        words = f"{one['name']}: loss {significant(one['first'])} to {significant(one['final'])}, {end}"
        say(words, console, indent=2, hanging=4)
