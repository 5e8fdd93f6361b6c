"""Figures: rows with their ratios from the samples, and the tables that show them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.table import Table

from series import Series

Row = dict[str, Any]


def epoch_rows(series: Sequence[Series]) -> list[Row]:
    """Every way in every layout, against fanin and the bound of the same network."""
    own, bound = _reference(series, "fanin"), _reference(series, "bound")
    rows = []
    for one in series:
        seconds = median(one.seconds)
        rows.append(
            _common(one, one.seconds)
            | {
                "network": "-".join(map(str, one.entry.recipe.hidden)),
                "ratio_to_fanin": seconds / own[one.entry.recipe.hidden],
                "share_of_bound": bound[one.entry.recipe.hidden] / seconds,
            }
        )
    return rows


def arm_rows(series: Sequence[Series]) -> list[Row]:
    """Every complete arm against fanin's: wall seconds, one trial per core."""
    walls = [[sample.wall for sample in one.samples] for one in series]
    own = next(median(wall) for one, wall in zip(series, walls, strict=True) if one.entry.role == "fanin")
    return [
        _common(one, wall) | {"ratio_to_fanin": median(wall) / own} for one, wall in zip(series, walls, strict=True)
    ]


def best_rows(rows: Sequence[Row]) -> list[Row]:
    """Of every library and precision the fastest row on fanin's network, fastest first."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row["role"] != "bound" and row["network"] == rows[0]["network"]:
            key = row["library"], row["precision"]
            best[key] = min(best.get(key, row), row, key=lambda found: found["seconds"])
    return sorted(best.values(), key=lambda row: row["seconds"])


def _common(one: Series, seconds: Sequence[float]) -> Row:
    return {
        "way": one.entry.title,
        "library": one.entry.library,
        "role": one.entry.role,
        "precision": one.entry.precision,
        "layout": one.layout,
        "seconds": median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "loss": median(one.losses) if one.losses else None,
    }


def _reference(series: Sequence[Series], role: str) -> dict[tuple[int, ...], float]:
    """By hidden widths, the median of the first series of this role."""
    found: dict[tuple[int, ...], float] = {}
    for one in series:
        if one.entry.role == role:
            found.setdefault(one.entry.recipe.hidden, median(one.seconds))
    return found


def epoch_table(rows: Sequence[Row], steps: int, rounds: int) -> Table:
    """All ways, in the order of the line-up."""
    table = _table(
        f"Machine-seconds per trial-epoch of {steps} steps; median of {rounds} rounds",
        ["way", "layout", "seconds", "min-max", "x fanin", "of bound", "loss"],
        "layout: processes x threads; 1 x C is how a script runs as it comes",
    )
    for row in rows:
        table.add_row(
            row["way"],
            row["layout"],
            *_seconds(row),
            f"{row['ratio_to_fanin']:.2f}",
            f"{row['share_of_bound']:.0%}",
            "" if row["loss"] is None else f"{row['loss']:.3f}",
            end_section=row["role"] == "bound",
        )
    return table


def best_table(rows: Sequence[Row]) -> Table:
    """Each library once per precision."""
    table = _table(
        "Each library at its best",
        ["library", "precision", "way", "layout", "seconds", "x fanin", "of bound"],
        "precision: of the products' operands; the bound's are float32",
    )
    for row in best_rows(rows):
        table.add_row(
            row["library"],
            row["precision"],
            row["way"],
            row["layout"],
            _seconds(row)[0],
            f"{row['ratio_to_fanin']:.2f}",
            f"{row['share_of_bound']:.0%}",
        )
    return table


def arm_table(rows: Sequence[Row], epochs: int, steps: int, rounds: int) -> Table:
    """The complete arms."""
    table = _table(
        f"Wall seconds of complete arms: {epochs} epochs of {steps} steps, {rounds} rounds",
        ["way", "layout", "seconds", "min-max", "x fanin", "loss"],
        "one trial per core in fresh processes, imports left out",
    )
    for row in rows:
        table.add_row(row["way"], row["layout"], *_seconds(row), f"{row['ratio_to_fanin']:.2f}", f"{row['loss']:.3f}")
    return table


def _table(title: str, columns: Sequence[str], caption: str) -> Table:
    table = Table(title=title, caption=caption)
    for column in columns:
        words = column in ("way", "library", "precision")
        table.add_column(column, justify="left" if words else "right", no_wrap=True)
    return table


def _seconds(row: Row) -> tuple[str, str]:
    return f"{row['seconds']:.3f}", f"{row['min']:.3f}-{row['max']:.3f}"
