"""The whole report as one self-contained HTML file: no request, no script, light and dark, printable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from fanin.errors import FaninError
from fanin.report import findings
from fanin.report.document import beside, document, write
from fanin.report.results import ArmSummary, StudySummary
from fanin.report.section import section
from fanin.report.words import count, duration


def write_page(summaries: Sequence[StudySummary], path: Path) -> Path:
    """Write the page to `path`, completely or not at all; StoreError if it cannot be written."""
    return write(render(summaries), path)


def render(summaries: Sequence[StudySummary]) -> str:
    """The page as HTML text."""
    if not summaries:
        raise FaninError("a page: expected at least one study; got none")
    title = _title(summaries)
    sections = "\n".join(section(summary, f"study-{i}") for i, summary in enumerate(summaries, 1))
    body = f"""<header>
<h1>{escape(title)}</h1>
{_lede(summaries)}
{_facts(summaries)}
{_contents(summaries)}
</header>
<main>
{sections}
{beside("reading.html")}{_environment(summaries)}
</main>"""
    return document(title, body)


def _title(summaries: Sequence[StudySummary]) -> str:
    if len(summaries) == 1:
        return summaries[0].title
    groups = {s.study.name.rpartition("/")[0] for s in summaries}
    group = groups.pop() if len(groups) == 1 else ""
    return f"{group}: {count(len(summaries), 'study')}" if group else count(len(summaries), "study")


def _lede(summaries: Sequence[StudySummary]) -> str:
    arms = sum(len(s.arms) for s in summaries)
    seeds = sorted({s.study.seeds for s in summaries})
    many = count(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {count(seeds[-1], 'seed')}"
    return (
        f'<p class="lede">{count(arms, "arm")} in {count(len(summaries), "study")}, '
        f"each trained with {many}; arms are compared pair by pair, seed by seed.</p>"
    )


def _facts(summaries: Sequence[StudySummary]) -> str:
    arms = _distinct(summaries)
    statuses = {word: sum(arm.statuses.get(word, 0) for arm in arms) for word in ("done", "diverged", "failed")}
    finished = statuses["done"] + statuses["diverged"]
    planned = sum(arm.planned for arm in arms)
    bad = [f"{n} {word}" for word, n in statuses.items() if n and word != "done"]
    names = dict.fromkeys(str(s.data.get("name", "unknown")) for s in summaries)
    sizes = dict.fromkeys(findings.sizes(s) for s in summaries)
    facts = (
        ("trials with a result", f"{finished:,}", ", ".join([f"of {planned:,} planned", *bad]), ""),
        ("published points reproduced", *_reproduced(summaries), ""),
        ("training time, summed over trials", duration(sum(arm.seconds for arm in arms)), "", ""),
        ("data", ", ".join(names), "; ".join(sizes), "text"),
        ("device", *_device(summaries), "text"),
    )
    return f'<dl class="facts">{"".join(_fact(*fact) for fact in facts)}</dl>'


def _distinct(summaries: Sequence[StudySummary]) -> list[ArmSummary]:
    """One arm of those that share trials, which are counted once: the one with most seeds, which has all of them."""
    found: dict[tuple[Any, ...], ArmSummary] = {}
    for summary in summaries:
        for arm in summary.arms:
            key = arm.arm.recipe.key, summary.data.get("fingerprint")
            if key not in found or found[key].planned < arm.planned:
                found[key] = arm
    return list(found.values())


def _fact(name: str, value: str, more: str, kind: str) -> str:
    below = f"<dd>{escape(more)}</dd>" if more else ""
    return f'<div><dt>{name}</dt><dd class="value {kind}">{escape(value)}</dd>{below}</div>'


def _reproduced(summaries: Sequence[StudySummary]) -> tuple[str, str]:
    """Points inside of all that were compared, and the same for whole arms; an arm of two studies counts once."""
    compared = ((a.arm.recipe.key, a.comparison) for s in summaries for a in s.arms if a.comparison)
    # the same numbers of the same network, whatever each study says of points outside
    once = {(key, replace(c.published, if_outside="")): c for key, c in compared if c.points}
    found = list(once.values())
    if not found:
        return "–", "nothing to compare"
    inside, points = sum(c.inside for c in found), sum(len(c.points) for c in found)
    whole = sum(c.reproduced is True for c in found)
    return f"{inside}/{points}", f"{whole} of {count(len(found), 'arm')} completely"


def _device(summaries: Sequence[StudySummary]) -> tuple[str, str]:
    known = findings.versions(summaries)
    device = known.get("device", "unknown")
    return device, known.get("cpu", "") if device == "cpu" else ""


def _contents(summaries: Sequence[StudySummary]) -> str:
    rows = "\n".join(
        f'<li><a href="#study-{i}">{escape(s.title)}</a>'
        f'<span class="found">{escape(findings.headline(s))}</span><span class="score">{_points(s)}</span></li>'
        for i, s in enumerate(summaries, 1)
    )
    links = '<a href="#reading">How to read this page</a> · <a href="#environment">Environment</a>'
    return f'<nav aria-label="Studies">\n<ol>\n{rows}\n</ol>\n<p class="more">{links}</p>\n</nav>'


def _points(summary: StudySummary) -> str:
    inside, total = summary.points
    return f"{inside}/{total} points" if total else ""


def _environment(summaries: Sequence[StudySummary]) -> str:
    known = findings.versions(summaries)
    prints = dict.fromkeys(str(s.data.get("fingerprint", "")) for s in summaries)
    known["data fingerprint"] = ", ".join(filter(None, prints))
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in known.items())
    return (
        '<section id="environment" aria-labelledby="environment-title">'
        f'<h2 id="environment-title">Environment</h2><dl class="versions">{rows}</dl></section>'
    )
