"""Page, fragments and terminal of a diagnosis: all that was found is there, escaped, and nothing is fetched."""

from __future__ import annotations

import io
import math
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from fanin.report.diagnosis import (
    one_batch_figure,
    page,
    print_diagnosis,
    print_one_batch,
    print_rates,
    rates_figure,
    table,
)
from fanin.report.diagnosis.page import write_diagnosis
from fanin.report.diagnosis.words import curve, held_against, ranked_experiments, title_of

FINDING = {
    "cause": "learning-rate-high",
    "layer": None,
    "value": 0.5,
    "threshold": 0.05,
    "evidence": "at lr = 0.5 the loss goes from 2.3 to <b>9</b>",
    "remedy": "lr = 0.05; fanin.lr_find(model, data) for the range",
    "confidence": 0.9,
    "reference": "Bengio (2012)",
    "fix": {"kind": "lr", "code": "lr = 0.05", "options": {"factor": 0.1}},
}
DEAD = FINDING | {"cause": "dead-units", "layer": "2", "remedy": "nn.LeakyReLU", "confidence": 0.5, "value": None}
FAULTY = {
    "healthy": False,
    "findings": [FINDING, {k: v for k, v in DEAD.items() if k != "fix"}],
    "facts": {"loss": "nn.CrossEntropyLoss", "optimiser": "SGD <script>"},
    "experiments": {"lr / 10": 0.81, "as given": 0.12, "lr x 10": 0.0, "Adam at 1e-3": 0.9},
    "unseen": ["decoder: compiled & hidden"],
    "losses": [2.3, 2.5, math.nan, 9.0],
}
HEALTHY = {"healthy": True, "findings": [], "facts": {"loss": "nn.MSELoss"}, "experiments": {}, "unseen": []}
WATCHED = HEALTHY | {
    "losses": {"stride": 4, "values": [2.0, 1.0, 0.5]},
    "layers": [
        {"name": "0", "type": "Linear", "kind": "weighted", "activation": 0.5, "gradient": 1e-9, "dead": None,
         "saturated": None},
        {"name": "1", "type": "ReLU", "kind": "relu", "activation": 0.2, "gradient": None, "dead": 0.25,
         "saturated": None},
    ],
}  # fmt: skip
RATES = {
    "rates": [10.0 ** (i / 4 - 6) for i in range(24)],
    "tests": [
        {"seed": s, "losses": [2.3 - 0.05 * i for i in range(20)] + [50.0], "suggestion": 1e-3, "diverged": True}
        for s in range(2)
    ],
    "suggestion": 1e-3,
    "low": 5e-4,
    "high": 2e-3,
    "lr": 0.1,
    "words": "lr = 1.0e-03\nloss: <b>",
}
ATTEMPT = {"name": "SGD", "first": 2.3, "final": 0.1, "learnt": 0.97, "losses": [2.3, 1.0, 0.1], "error": None}
ONE = {"own": ATTEMPT, "adam": ATTEMPT | {"name": "Adam", "losses": [], "error": "boom"}, "passed": True,
       "verdict": "It learns <all>"}  # fmt: skip


class Tags(HTMLParser):
    """Opened and closed tags must match, but for void ones."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "br", "img", "path", "line", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in {"path", "line", "rect"}:
            assert self.open.pop() == tag


def tags(html):
    parser = Tags()
    parser.feed(html)
    assert parser.open == []
    return parser.seen


@pytest.mark.parametrize("plain", [FAULTY, HEALTHY, WATCHED], ids=["faulty", "healthy", "watched"])
def test_the_page_is_well_formed_and_fetches_nothing(plain):
    html = page(plain)
    seen = tags(html)
    assert html.startswith("<!DOCTYPE html>")
    assert not [1 for tag, attributes in seen if tag == "script" or "src" in attributes]
    assert not re.search(r"https?://(?!www\.w3\.org)", html)
    ids = [attributes["id"] for _, attributes in seen if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_page_says_all_that_was_found():
    html = page(FAULTY)
    for words in (
        "1. Learning rate high",
        "2. Dead units in layer 2",
        "sure, 90 %",
        "Measured 0.500, held against 0.0500",
        "<pre>lr = 0.05</pre>",
        "Source: Bengio (2012)",
        "decoder: compiled &amp; hidden",
        "SGD &lt;script&gt;",
        "to &lt;b&gt;9&lt;/b&gt;",
        "The learning rate is too high, and 1 more finding.",
        "Share of the task learnt: as given 12\N{NO-BREAK SPACE}%, Adam at 1e-3 90\N{NO-BREAK SPACE}%",
        "Loss by step",
    ):
        assert words in html, words
    assert "<b>9</b>" not in html


def test_a_healthy_page_says_so_and_has_no_empty_section():
    html = page(HEALTHY)
    assert '<p class="lede healthy">Nothing found.</p>' in html
    assert "Nothing found: it trains as well as it could." in page(HEALTHY | {"experiments": {"as given": 0.9}})
    for absent in ("Experiments", "What was not seen", "<svg", "Layer by layer", "finding-1"):
        assert absent not in html.replace("Experiments, ", ""), absent


def test_a_watched_training_shows_its_layers_and_loss():
    html = page(WATCHED)
    assert '<th scope="row">1</th><td>ReLU</td>' in html
    assert "1.00×10⁻⁹" in html
    assert '<td class="n">25</td>' in html
    assert curve(WATCHED) == [(2.5, 2.0), (6.5, 1.0), (10.5, 0.5)]  # the middle of steps 1-4, 5-8, 9-12
    assert curve(FAULTY) == [(1.0, 2.3), (2.0, 2.5), (4.0, 9.0)]


def test_the_page_is_written_whole(tmp_path):
    assert write_diagnosis(FAULTY, tmp_path / "deep" / "page.html").read_text(encoding="utf-8") == page(FAULTY)


def test_fragments_need_no_style_sheet():
    for html in (table(FAULTY), table(HEALTHY), rates_figure(RATES), one_batch_figure(ONE)):
        tags(html)
        assert "<style" not in html
        assert "class=" not in re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)
    assert "&lt;b&gt;9" in table(FAULTY)
    assert "loss: &lt;b&gt;" in rates_figure(RATES)
    assert "It learns &lt;all&gt;" in one_batch_figure(ONE)


def test_a_chart_without_a_suggestion_is_drawn():
    html = rates_figure(RATES | {"suggestion": None, "low": None, "high": None})
    assert "<svg" in html
    assert "1.0e-03</text>" not in html
    assert "1.0e-03</text>" in rates_figure(RATES)


def test_bars_are_as_long_as_what_was_learnt():
    """The rule of the bar from 0 to `share`, in pixels, against the axis's own ends."""
    html = page(FAULTY)
    lengths = {i: _length(html, f"bar{i}") for i in range(4)}
    shares = [share for _, share in ranked_experiments(FAULTY)]
    assert shares == [0.12, 0.9, 0.81, 0.0]
    for i in (0, 2):
        assert lengths[i] / lengths[1] == pytest.approx(shares[i] / 0.9, abs=0.01)
    assert 0 < lengths[3] < 3  # nothing learnt is a hair, not nothing


def _length(html, name):
    group = html[html.index(f"{name}_marks") if f"{name}_marks" in html else html.index(name) :]
    x2 = re.search(r'<line[^>]*?x2="(-?[\d.]+)"', group)
    return abs(float(x2[1]))


def test_experiments_are_ranked_as_given_first():
    assert [name for name, _ in ranked_experiments(FAULTY)] == ["as given", "Adam at 1e-3", "lr / 10", "lr x 10"]


def test_words():
    assert title_of(FINDING) == "Learning rate high"
    assert title_of(FINDING | {"layer": "body.0"}) == "Learning rate high in body.0"
    assert held_against(DEAD) == ""
    assert held_against(FINDING | {"threshold": None}) == "measured 0.500"


def printed(function, plain, encoding="utf-8"):
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    function(plain, Console(file=out, width=80, force_terminal=False))
    out.flush()
    return raw.getvalue().decode(encoding)


def test_the_terminal_says_the_same():
    text = printed(print_diagnosis, FAULTY)
    for words in ("1. Learning rate high (sure, 90 %)", "2. Dead units in layer 2", "lr = 0.05", "not seen:",
                  "█", "Source: Bengio (2012)"):  # fmt: skip
        assert words in text, words
    assert max(map(len, text.splitlines())) <= 80
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    assert printed(print_diagnosis, HEALTHY).startswith("Nothing found")


@pytest.mark.parametrize(
    ("function", "plain"), [(print_diagnosis, FAULTY), (print_rates, RATES), (print_one_batch, ONE)]
)
def test_a_terminal_of_ascii_gets_ascii(function, plain):
    assert printed(function, plain, "ascii")


def test_rates_and_one_batch_in_the_terminal():
    text = printed(print_rates, RATES)
    assert text.splitlines()[0] == "lr = 1.0e-03"
    assert "▁" in text
    text = printed(print_one_batch, ONE)
    assert "It learns <all>" in text
    assert "SGD: loss 2.30 to 0.100, 97" in text
    assert "it raised boom" in text
