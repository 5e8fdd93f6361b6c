"""Fragments of HTML for notebooks: findings as a table, charts of the range test and of one batch."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from fanin.report.diagnosis import charts
from fanin.report.diagnosis.words import Plain, code_of, confidence, headline, ranked_experiments, title_of

_LEFT = ' style="text-align:left;vertical-align:top"'


def table(plain: Plain) -> str:
    """Findings, what was looked at and what each experiment learnt, as a fragment that needs no style sheet."""
    parts = [f"<p><strong>{escape(headline(plain))}</strong></p>"]
    if plain["findings"]:
        head = "".join(f"<th{_LEFT}>{name}</th>" for name in ("cause", "evidence", "remedy", "confidence"))
        rows = "".join(f"<tr>{_row(finding)}</tr>" for finding in plain["findings"])
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    made = ranked_experiments(plain)
    if made:
        parts.append(charts.experiments(made))
    parts.append("".join(f"<div><small>{escape(k)}: {escape(v)}</small></div>" for k, v in plain["facts"].items()))
    if plain.get("unseen"):
        listed = "".join(f"<li>{escape(note)}</li>" for note in plain["unseen"])
        parts.append(f"<details><summary>Not seen</summary><ul>{listed}</ul></details>")
    return f"<div>{''.join(parts)}</div>"


def _row(finding: Plain) -> str:
    words, code = code_of(finding)
    remedy = " ".join(part for part in (escape(words), f"<code>{escape(code)}</code>" if code else "") if part)
    cells = (escape(title_of(finding)), escape(finding["evidence"]), remedy, escape(confidence(finding)))
    return "".join(f"<td{_LEFT}>{cell}</td>" for cell in cells)


def rates_figure(plain: Mapping[str, Any]) -> str:
    """LearningRates.to_dict() with its words, as a chart and a line of text."""
    return f"<div>{charts.rates(plain)}{_lines(plain['words'])}</div>"


def one_batch_figure(plain: Mapping[str, Any]) -> str:
    """OneBatch.to_dict() as two curves and its verdict."""
    lines = [
        (plain[key]["name"], [(float(i), v) for i, v in enumerate(plain[key]["losses"], 1) if abs(v) < float("inf")])
        for key in ("own", "adam")
    ]
    drawn = [(name, line) for name, line in lines if line]
    return f"<div>{charts.losses(drawn) if drawn else ''}{_lines(plain['verdict'])}</div>"


def _lines(words: str) -> str:
    return "".join(f"<div>{escape(line)}</div>" for line in words.splitlines())
