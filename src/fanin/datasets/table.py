"""The CSV reader: one example a line, one column of labels; bad cells are named by line and column."""

from __future__ import annotations

import csv
import io
import itertools
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from fanin.datasets.arrays import Dataset
from fanin.datasets.assemble import Examples, assemble
from fanin.datasets.limits import MAX_COLUMNS, check_size
from fanin.datasets.unpack import unpacked
from fanin.errors import DataError

LABEL_NAMES = ("label", "target", "class", "y")
_LONGEST_LINE = 2**24  # characters; a longer one is not a table, and could fill the memory
_LARGEST = float(np.finfo(np.float32).max)


def load_csv(path: Path) -> Dataset:
    """The data set in a CSV file, gzip or not; a test part is held out.

    Separator: comma, semicolon or tab, whichever the first line has most of. With a header the labels stand
    in the column called label, target, class or y (in any case), else in the last column. Cells are taken as
    they are (float32, scale 1); labels may be text, and are numbered in their order.
    """
    with unpacked(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            cells, labels, width = _read(text, path)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: expected UTF-8 text ({error.reason} at byte {error.start}); convert it"
            ) from error
        finally:
            text.detach()  # the stream is closed by `unpacked`, which opened it
    inputs = np.frombuffer(cells, np.float32).reshape(-1, width)
    # objects: an array of text would take four bytes for each character of the longest label, in every row
    names = np.array(_class_names(labels, path), dtype=object)
    return assemble(path.name.split(".")[0], f"the file {path}", Examples(inputs, names))


class _Lines:
    """The lines of a text with the number of the last one read; none may be endless, nor a row of many."""

    def __init__(self, text: TextIO, path: Path) -> None:
        self.text, self.path, self.number, self.length = text, path, 0, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.text.readline(_LONGEST_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        self.length += len(line)
        if self.length >= _LONGEST_LINE:
            raise DataError(f"{self.where}: longer than {_LONGEST_LINE:,} characters; is it a CSV file?")
        return line

    def end_row(self) -> None:
        """The lines so far made a row, which quotes may spread over several."""
        self.length = 0

    @property
    def where(self) -> str:
        return f"{self.path}, line {self.number}"


def _read(text: TextIO, path: Path) -> tuple[array[float], list[str], int]:
    lines = _Lines(text, path)
    cells, labels, known = array("f"), [], {}
    try:
        first = next((line for line in lines if line.strip()), "")
        separator = max(",;\t", key=first.count)
        if first.count(separator) >= MAX_COLUMNS:
            raise DataError(f"{lines.where}: expected at most {MAX_COLUMNS:,} columns, given more; cut the table down")
        start = next(csv.reader([first], delimiter=separator), [])
        names, label = _columns(start, lines.where)
        rows = csv.reader(lines, delimiter=separator)
        for row in rows if _is_header(start) else itertools.chain([start], rows):
            lines.end_row()
            if row:  # an empty line is no example
                name = _row(row, label, names, cells, lines.where)
                labels.append(known.setdefault(name, name))  # one text for each class, and not for each row
            check_size(str(path), cells.itemsize * (len(cells) + 2 * len(labels)))
    except csv.Error as error:
        raise DataError(f"{lines.where}: not CSV ({error}); correct the line") from error
    return cells, labels, len(names) - 1


def _columns(start: list[str], where: str) -> tuple[list[str], int]:
    """The columns' names (1, 2, ... without a header), and which of them holds the labels."""
    if len(start) < 2:
        raise DataError(
            f"{where}: expected at least one feature and a label, with a comma, semicolon or tab between, "
            f"given {','.join(start)[:60] or 'an empty file'!r}"
        )
    if not _is_header(start):
        return [str(i + 1) for i in range(len(start))], len(start) - 1
    names = [cell.strip() for cell in start]
    lower = [name.lower() for name in names]
    return names, next((lower.index(name) for name in LABEL_NAMES if name in lower), len(names) - 1)


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)  # Python takes 1_000 for a number; a table means text by it
    except ValueError:
        return None


def _is_header(row: list[str]) -> bool:
    """Whether a column is called as labels are, or no feature is a number.

    A last cell `y` beside numbers is no header: it is the answer yes. Other words there may be class names.
    """
    named = [cell.strip().lower() in LABEL_NAMES for cell in row]
    if any(named[:-1]) or row[-1].strip().lower() in LABEL_NAMES[:3]:
        return True
    return all(cell.strip() and _number(cell) is None for cell in row[:-1])


def _row(row: list[str], label: int, names: list[str], cells: array[float], where: str) -> str:
    """Append the features of one line to `cells` and return its label."""
    if len(row) != len(names):
        raise DataError(f"{where}: expected {len(names)} cells as in the first line, given {len(row)}")
    name = row[label].strip()
    if not name:
        raise DataError(f"{where}, column {names[label]!r}: expected a label, given an empty cell")
    del row[label]
    try:
        values = array("f", map(float, row))
    except (ValueError, OverflowError):
        values = array("f", [math.nan])
    if not math.isfinite(sum(values)) or "_" in "".join(row):
        _name_bad_cell(row, [n for i, n in enumerate(names) if i != label], where)
    cells.extend(values)
    return name


def _name_bad_cell(row: list[str], names: list[str], where: str) -> None:
    for cell, name in zip(row, names, strict=True):
        value = _number(cell)
        if value is None or not abs(value) <= _LARGEST:
            raise DataError(
                f"{where}, column {name!r}: expected a finite number, given {cell.strip()!r}; "
                "correct or drop the line (text columns must be made into numbers first)"
            )


def _class_names(labels: list[str], path: Path) -> list[str]:
    """Labels as class names: 1.0 is 1; fractions are refused, for they are no classes."""
    numbers = [_number(label) for label in labels]
    if any(n is None for n in numbers):
        return labels
    values = [float(n) for n in numbers if n is not None]
    for i, value in enumerate(values):
        if not (math.isfinite(value) and value.is_integer()):
            raise DataError(
                f"{path}: expected class labels, given {labels[i]!r} for example {i + 1}; fanin "
                "compares classifiers: "
                "a continuous target must be cut into classes first"
            )
    return [str(int(value)) if abs(value) < 2**53 else label for value, label in zip(values, labels, strict=True)]
