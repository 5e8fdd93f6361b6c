"""How much a page or a table shows of a large study, so that it stays a page: what is left out is said beside it."""

from __future__ import annotations

MOST_SEEDS = 50  # seeds of an arm that are drawn one by one; of more, the median and a band
QUANTILES = (0.05, 0.5, 0.95)  # the band and its middle
MOST_DRAWN = 40  # arms in a figure
MOST_ARMS = 500  # arms in a page's table, and recipes under it
MOST_LINES = 100  # arms in a terminal's table
MOST_TROUBLES = 100  # trials that did not finish, by name


def left_out(count: int, most: int, noun: str, where: str) -> str:
    """ "The first 500 of 10,000 arms; `fanin results --json` has all."; empty if none is left out."""
    return f"The first {most:,} of {count:,} {noun}; {where} has all." if count > most else ""
