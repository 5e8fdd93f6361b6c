"""A diagnosis as one self-contained HTML page: findings, experiments, what was looked at; no request, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fanin.report.diagnosis import charts
from fanin.report.diagnosis.words import (
    GIVEN,
    Plain,
    capital,
    code_of,
    confidence,
    curve,
    headline,
    held_against,
    meaning,
    percent,
    ranked_experiments,
    title_of,
)
from fanin.report.document import document, write
from fanin.report.words import NOTHING, count, significant

_STYLE = """nav li.finding { grid-template-columns: 17rem 1fr 6.5rem; }
.remedy { border-left: 3px solid var(--good); padding-left: .9rem; margin: 1rem 0; max-width: 46rem; }
.remedy h3 { margin: 0 0 .3rem; } .remedy pre { margin-top: .5rem; font-size: .8125rem; }
.evidence { font-size: 1.125rem; } .source { font: .8125rem/1.45 var(--sans); color: var(--muted); }
code { font: .875em ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, monospace; overflow-wrap: anywhere; }
.healthy { color: var(--good); } .faulty { color: var(--bad); }
ul.unseen { font: .9375rem/1.5 var(--sans); padding-left: 1.1rem; }
"""


def write_diagnosis(plain: Plain, path: Path) -> Path:
    """Write the page to `path`, completely or not at all; StoreError if it cannot be written."""
    return write(page(plain), path)


def page(plain: Plain) -> str:
    """Diagnosis.to_dict() (or Watch.to_dict()) as a page; every text from outside is escaped."""
    found = plain["findings"]
    parts = [
        *(_finding(finding, i) for i, finding in enumerate(found, 1)),
        _experiments(plain),
        _losses(plain),
        _layers(plain.get("layers") or []),
        _looked_at(plain),
        _unseen(plain.get("unseen") or []),
        _reading(plain),
    ]
    mood = "faulty" if found else "healthy"
    header = (
        f'<header>\n<h1>Diagnosis</h1>\n<p class="lede {mood}">{escape(headline(plain))}</p>\n'
        f"{_numbers(plain)}\n{_contents(found)}\n</header>"
    )
    title = f"Diagnosis: {count(len(found), 'finding')}" if found else "Diagnosis: healthy"
    return document(title, "\n".join([header, "<main>", *filter(None, parts), "</main>"]), style=_STYLE)


def _numbers(plain: Plain) -> str:
    made = dict(plain.get("experiments") or {})
    own = made.pop(GIVEN, None)
    rows = [("findings", str(len(plain["findings"])), "")]
    if own is not None:
        rows.append(("of the task learnt, as given", percent(own), ""))
    if made:
        best = max(made, key=made.__getitem__)
        rows.append(("of the task learnt at best", percent(made[best]), best))
        rows.append(("experiments", str(len(made)), "each with one thing changed"))
    cells = "".join(
        f'<div><dt>{name}</dt><dd class="value">{escape(value)}</dd>{f"<dd>{escape(more)}</dd>" if more else ""}</div>'
        for name, value, more in rows
    )
    return f'<dl class="facts">{cells}</dl>'


def _contents(found: Sequence[Plain]) -> str:
    if len(found) < 2:  # it stands right below
        return ""
    rows = "\n".join(
        f'<li class="finding"><a href="#finding-{i}">{escape(title_of(finding))}</a>'
        f'<span class="found">{escape(capital(finding["evidence"]))}</span>'
        f'<span class="score">{escape(confidence(finding))}</span></li>'
        for i, finding in enumerate(found, 1)
    )
    return f'<nav aria-label="Findings">\n<ol>\n{rows}\n</ol>\n</nav>'


def _finding(finding: Plain, number: int) -> str:
    words, code = code_of(finding)
    measured = held_against(finding)
    notes = ". ".join(part for part in (capital(confidence(finding)), capital(measured)) if part)
    return _section(
        f"finding-{number}",
        f"{number}. {title_of(finding)}",
        f'<p class="question">{escape(capital(meaning(finding["cause"])))}.</p>',
        f'<p class="evidence">{escape(capital(finding["evidence"]))}.</p>',
        f'<div class="remedy"><h3>Remedy</h3>{f"<p>{escape(capital(words))}</p>" if words else ""}'
        f"{f'<pre>{escape(code)}</pre>' if code else ''}</div>",
        f'<p class="source">{escape(notes)}.</p>',
        f'<p class="source">Source: {escape(finding["reference"])}.</p>',
    )


def _experiments(plain: Plain) -> str:
    made = ranked_experiments(plain)
    if not made:
        return ""
    words = (
        "How much of the task short runs learn, from the same weights on the same batches, each with one thing "
        "changed: 0 as a constant output, 100 all of it."
    )
    figure = f"<figure>{charts.experiments(made)}</figure>"
    return _section("experiments", "Experiments", f'<p class="muted">{words}</p>', figure)


def _losses(plain: Plain) -> str:
    line = curve(plain)
    if len(line) < 2:
        return ""
    return _section("loss", "Loss", f"<figure>{charts.losses([('as given', line)])}</figure>")


def _layers(layers: Sequence[Mapping[str, Any]]) -> str:
    """What a watched training's layers did, if there are any."""
    if not layers:
        return ""
    heads = ("Type", "E[h²]", "E[g²]", "Zero units, %", "Saturated, %")
    head = "".join(f'<th scope="col"{"" if i == 0 else _RIGHT}>{name}</th>' for i, name in enumerate(heads))
    rows = "".join(_layer(row) for row in layers)
    return _section(
        "layers",
        "Layer by layer",
        '<div class="scroll" role="region" aria-label="Layers" tabindex="0"><table class="points">'
        f'<thead><tr><th scope="col">Layer</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>',
        '<p class="caption">Means over the looked-at steps. h: what the layer puts out; g: the gradient of the loss by '
        "it. Zero: for every example of all looked-at batches, of the last twenty at most.</p>",
    )


_RIGHT = ' class="n"'


def _layer(row: Mapping[str, Any]) -> str:
    shares = (NOTHING if row[key] is None else f"{100 * row[key]:.0f}" for key in ("dead", "saturated"))
    cells = (significant(row["activation"]), significant(row["gradient"]), *shares)
    body = "".join(f"<td{_RIGHT}>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(row["name"] or "(network)")}</th><td>{escape(row["type"])}</td>{body}</tr>'


def _looked_at(plain: Plain) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in plain["facts"].items())
    return _section("facts", "What was looked at", f'<dl class="versions">{rows}</dl>') if rows else ""


def _unseen(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    rows = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return _section("unseen", "What was not seen", f'<ul class="unseen">{rows}</ul>')


def _reading(plain: Plain) -> str:
    rows = [
        (
            "Findings",
            "Symptoms count only where the network learns clearly less than it could; a cause is named where changing "
            "that one thing changes this. So an empty list says that nothing stood in the way of this run, not that "
            "the network is the best one.",
        ),
        (
            "Confidence",
            "How surely this keeps the network from training. To know, prove it: fanin.prove trains before and after a "
            "remedy, with paired seeds.",
        ),
    ]
    if plain.get("experiments"):
        rows.append(
            (
                "Share of the task",
                "For classes, accuracy above chance, averaged over classes; for numbers, the explained share of the "
                "variance; else how far the loss falls under that of the best constant output.",
            )
        )
    body = "".join(f"<dt>{escape(term)}</dt><dd>{escape(words)}</dd>" for term, words in rows)
    return _section("reading", "How to read this page", f'<dl class="reading">{body}</dl>')


def _section(anchor: str, title: str, *parts: str) -> str:
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-title"><h2 id="{anchor}-title">{escape(title)}</h2>\n'
        + "\n".join(part for part in parts if part)
        + "\n</section>"
    )
