"""One study as a section of the page: question, answers, arms, figures, published numbers, recipes."""

from __future__ import annotations

from html import escape

import tomli_w

from fanin.report import findings
from fanin.report.bounds import MOST_ARMS, left_out
from fanin.report.charts import Figure, charts
from fanin.report.grid import maps
from fanin.report.measures import Measure
from fanin.report.results import ArmSummary, StudySummary
from fanin.report.words import accuracy_interval, count, duration, hundredths, interval, significant


def section(summary: StudySummary, anchor: str) -> str:
    """The section's HTML; every text that comes from a study or a record is escaped."""
    study = summary.study
    return "\n".join(
        part
        for part in (
            f'<section id="{anchor}" aria-labelledby="{anchor}-title">',
            f'<h2 id="{anchor}-title">{escape(summary.title)}</h2>',
            f'<p class="question">{escape(study.question)}</p>' if study.question else "",
            _answers(summary),
            f'<p class="muted">{escape(study.notes)}</p>' if study.notes else "",
            *((_figures(charts(summary)), _folded(summary)) if maps(summary) else _open(summary)),
            _published(summary),
            _recipes(summary),
            "</section>",
        )
        if part
    )


def _open(summary: StudySummary) -> tuple[str, ...]:
    return _arms(summary), _troubles(summary), _figures(charts(summary))


def _folded(summary: StudySummary) -> str:
    """The arms of a map, which shows them already."""
    title = f"All {count(len(summary.arms), 'setting')}"
    return f"<details><summary>{title}</summary>{_arms(summary)}{_troubles(summary)}</details>"


def _answers(summary: StudySummary) -> str:
    if not summary.answers:
        return f'<p class="lede">{escape(findings.headline(summary))}</p>' if len(summary.arms) > 1 else ""
    rows = []
    for found in summary.answers:
        claimed = "" if found.verdict in {"higher", "lower"} else ' class="open"'
        changed = escape(findings.differs(found.differs))
        more = f'<span class="differs">The two recipes differ in {changed}.</span>' if changed else ""
        rows.append(f"<dt>{escape(found.question.ask)}</dt><dd{claimed}>{escape(found.text)}{more}</dd>")
    return f'<dl class="answers">{"".join(rows)}</dl>'


def _arms(summary: StudySummary) -> str:
    heads = ["Trained", "Test accuracy, %", "On raw pixels, %", "Final training cost"]
    heads += [f"Difference to {summary.arms[0].name}, points"] if len(summary.arms) > 1 else []
    heads += ["Published accuracy, %"] if findings.compares(summary) else []
    heads += ["Points reproduced"] if summary.points[1] else []
    head = "".join(f'<th scope="col" class="n">{escape(text)}</th>' for text in heads)
    rows = "\n".join(_row(summary, i) for i in range(len(summary.arms[:MOST_ARMS])))
    return (
        f'<div class="scroll" role="region" aria-label="Arms of {escape(summary.title)}" tabindex="0">'
        '<table class="arms">\n'
        f'<caption class="hidden">Arms of {escape(summary.title)}</caption>\n'
        f'<thead><tr><th scope="col">Arm</th>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n'
        f'</table></div>\n<p class="caption">{escape(_caption(summary))}</p>'
    )


def _caption(summary: StudySummary) -> str:
    others = len(summary.arms) - 1
    fewer = any(0 < len(arm.accuracy.values) < arm.planned for arm in summary.arms)
    seeds = count(summary.study.seeds, "seed") + (", fewer where n is given," if fewer else "")
    text = f"Mean over {seeds} and 95 % interval."
    if others:
        text += (
            f" Differences are paired by seed; their {count(others, 'interval')} hold together with 95 %."
            if others > 1
            else " The difference is paired by seed."
        )
        text += f" {findings.LEGEND}"
    level = f"{100 * summary.study.success_accuracy:g} %"
    trained = f"Trained: trials that end with an accuracy of at least {level}."
    text = f"{text} {trained} Training time, summed over trials: {duration(summary.seconds)}."
    return " ".join(filter(None, (text, left_out(len(summary.arms), MOST_ARMS, "arms", "`fanin results --json`"))))


def _row(summary: StudySummary, index: int) -> str:
    arm = summary.arms[index]
    note = f'<span class="note">{escape(arm.arm.note)}</span>' if arm.arm.note else ""
    swatch = f'<span class="swatch" style="--c:var(--arm-{index % 8 + 1})"></span>'
    cells = [
        _trained(arm),
        _measure(arm.accuracy, arm, rate=True),
        _measure(arm.accuracy_on_raw_pixels, arm, rate=True),
        _measure(arm.train_cost, arm, rate=False),
    ]
    cells += [_difference(arm) if index else "reference"] if len(summary.arms) > 1 else []
    cells += [escape(findings.published_accuracy(arm))] if findings.compares(summary) else []
    cells += [_score(arm)] if summary.points[1] else []
    body = "".join(f'<td class="n">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{swatch}{escape(arm.name)}{note}</th>{body}</tr>'


def _trained(arm: ArmSummary) -> str:
    if arm.success is None:
        return findings.trained(arm)
    band = f"[{100 * arm.success.low:.0f}, {100 * arm.success.high:.0f}] %"
    return f'{findings.trained(arm)}<span class="ci">{band}</span>'


def _measure(measure: Measure, arm: ArmSummary, *, rate: bool) -> str:
    if rate:
        mean, band = hundredths(measure.mean), accuracy_interval(measure.low, measure.high)
    else:
        mean, band = significant(measure.mean), interval(measure.low, measure.high, rate=False)
    return mean + _below(band) + _below(findings.fewer(len(measure.values), arm))


def _below(words: str) -> str:
    return f'<span class="ci">{words}</span>' if words else ""


def _difference(arm: ArmSummary) -> str:
    found = arm.difference
    if found is None:
        return hundredths(None)
    mark = findings.MARKS[found.verdict]
    if mark:  # without one the words stand below
        mark = f'<span aria-hidden="true">{mark}</span><span class="hidden">{found.verdict} </span>'
    band = interval(found.low, found.high, rate=True)
    return mark + hundredths(found.mean, sign=True) + _below(band) + _below(findings.pairs(found, arm))


def _score(arm: ArmSummary) -> str:
    if arm.reproduced is None or arm.comparison is None:
        return escape(findings.reproduction(arm))
    word = "yes" if arm.reproduced else "no"
    return f'{arm.comparison.score} <span class="{word}">{word}</span>'


def _troubles(summary: StudySummary) -> str:
    lines = findings.troubles(summary)
    if not lines:
        return ""
    rows = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<h3>Trials that did not finish</h3><ul class="troubles">{rows}</ul>'


def _figures(figures: list[Figure]) -> str:
    return f'<div class="figures">{"".join(_figure(figure) for figure in figures)}</div>' if figures else ""


def _figure(figure: Figure) -> str:
    caption = f"<figcaption><b>{escape(figure.title)}</b>{escape(figure.caption)}</figcaption>"
    if len(figure.panels) == 1:
        return f"<figure>{caption}{figure.panels[0][1]}</figure>"
    panels = "".join(f"<div><p>{escape(heading)}</p>{svg}</div>" for heading, svg in figure.panels)
    return f'<figure class="wide">{caption}<div class="panels">{panels}</div></figure>'


def _published(summary: StudySummary) -> str:
    parts = [f"<p>{escape(line)}</p>" for line in findings.not_compared(summary)]
    parts += [_comparison(arm) for arm in summary.arms[:MOST_ARMS] if arm.comparison and arm.comparison.points]
    return f"<h3>Published numbers</h3>{''.join(parts)}" if parts else ""


def _comparison(arm: ArmSummary) -> str:
    found = arm.comparison
    if found is None:
        return ""
    name = escape(arm.name)
    points = count(len(found.points), "published point")
    finished = arm.statuses["done"]
    if arm.reproduced:
        return f"<p>{name}: all {points} lie inside the spread of our {finished} seeds: reproduced.</p>"
    outside = findings.outside(arm)
    reasons = {row[-1] for row in outside}
    shared = reasons.pop() if len(reasons) == 1 else ""
    why = escape(findings.likely(shared))
    text = f"<p>{name}: {found.inside} of {points} lie inside the spread of our {finished} seeds.{why}</p>"
    heads = ("What", "Epoch", "Published", "Spread of our seeds", "Likely reason")[: 5 if reasons else 4]
    head = "".join(f'<th scope="col"{_n(i)}>{h}</th>' for i, h in enumerate(heads))
    rows = "".join(
        "<tr>" + "".join(f"<td{_n(i)}>{escape(cell)}</td>" for i, cell in enumerate(row[: len(heads)])) + "</tr>"
        for row in outside
    )
    label = f"Published points outside the spread: {name}"
    return (
        f"{text}<details open><summary>{count(len(outside), 'point')} outside</summary>"
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table class="points">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _n(column: int) -> str:
    return ' class="n"' if column in {1, 2, 3} else ""


def _recipes(summary: StudySummary) -> str:
    blocks = "".join(
        f"<div><h4>{escape(arm.name)}</h4><pre>{escape(tomli_w.dumps(arm.arm.recipe.to_dict()).strip())}</pre></div>"
        for arm in summary.arms[:MOST_ARMS]
    )
    return f'<details><summary>Recipe of each arm</summary><div class="recipes">{blocks}</div></details>'
