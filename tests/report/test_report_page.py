"""The page: sound HTML, no request, no script, every number the summary's, hostile names harmless."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import made_up
import pytest
from test_report_table import shown

from fanin.errors import FaninError, StoreError
from fanin.report import page
from fanin.report.charts import charts
from fanin.report.summary import summarize
from fanin.report.words import hundredths, significant
from fanin.store import Store, StoredStudy

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Reader(HTMLParser):
    """Checks that tags balance; keeps ids, links, tags and the cells of every table row."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.rows = [], [], [], set(), []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[k] for k in ("href", "src") if k in found]
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"} and self.rows:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes {self.open[-3:]}"

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_structure(read, html, summaries):
    assert {"h1", "h2", "nav", "main", "table", "figure", "figcaption", "details", "svg"} <= read.tags
    assert len(read.ids) == len(set(read.ids))
    anchors = [link[1:] for link in read.links if link.startswith("#")]
    assert len(anchors) == len(summaries) + 2
    assert set(anchors) <= set(read.ids)
    assert html.count('<th scope="row">') == sum(len(s.arms) for s in summaries)
    assert html.startswith("<!DOCTYPE html>")
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


def test_no_request_and_no_script(read, html):
    assert "script" not in read.tags
    assert not re.search(r"\son\w+\s*=", html)
    assert "javascript:" not in html
    assert {link for link in read.links if not link.startswith("#")} == {"data:,"}
    assert set(re.findall(r"https?://[^\"' <)]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in html
    assert "url(h" not in html
    assert "default-src 'none'" in html


def test_every_number_is_the_summarys(read, summaries):
    rows = {row[0]: row[1:] for row in read.rows if len(row) > 5}
    for summary in summaries:
        for arm in summary.arms:
            row = next(
                r for r in read.rows if r and r[0].startswith(arm.name) and hundredths(arm.accuracy.mean) in r[2]
            )
            assert row[1].startswith(f"{arm.success.successes}/{arm.success.n}")
            assert row[3].startswith(hundredths(arm.accuracy_on_raw_pixels.mean))
            assert row[4].startswith(significant(arm.train_cost.mean))
            if arm.accuracy.low is not None:
                assert f"[{hundredths(arm.accuracy.low)}, {hundredths(arm.accuracy.high)}]" in row[2]
            if arm.difference:
                assert hundredths(arm.difference.mean, sign=True) in row[5]
                assert arm.difference.verdict in row[5]
            if arm.comparison and arm.comparison.points:
                assert row[-1].startswith(arm.comparison.score)
    assert rows


def test_the_header_says_what_was_found(html, summaries):
    inside, points = (sum(s.points[i] for s in summaries) for i in (0, 1))
    assert f">{inside}/{points}<" in html
    planned = {t.id(s.data["fingerprint"]) for s in summaries for a in s.study.arms for t in s.study.trials(a)}
    assert f"of {len(planned)} planned, 1 diverged, 1 failed" in html
    for summary in summaries:
        assert html.count(summary.answers[0].text.replace("'", "&#x27;") if summary.answers else "<nav") >= 1


def test_points_outside_are_listed_with_the_reason(html, by_name):
    arm = by_name["deep"].arms[0]
    for point in arm.comparison.outside:
        assert f"[{significant(point.low)}, {significant(point.high)}]" in html
    assert "Likely reason: The printed numbers come from a net of three layers &amp; 512 outputs." in html
    assert "all 16 published points lie inside the spread of our 6 seeds: reproduced" in html
    assert "<p>Not compared: published numbers need at least 6 finished seeds, 1 finished.</p>" in html
    assert "Likely reason: Five layers" not in html  # a note is a remark, no reason


def test_published_points_count_once_whatever_is_said_of_them(tmp_path):
    summary = made_up.not_reproduced(tmp_path)
    first = summary.arms[0]
    published = dataclasses.replace(first.comparison.published, if_outside="another explanation")
    arm = dataclasses.replace(first.arm, published=published)
    again = dataclasses.replace(first, arm=arm, comparison=dataclasses.replace(first.comparison, published=published))
    twice = dataclasses.replace(summary, study=summary.study.changed(name="again"), arms=(again, *summary.arms[1:]))
    assert page._reproduced([summary, twice]) == page._reproduced([summary])
    assert page._reproduced([summary])[0] == f"{first.comparison.inside}/{len(first.comparison.points)}"


def test_nothing_is_said_of_points_outside_without_a_known_reason(tmp_path):
    summary = made_up.not_reproduced(tmp_path)
    first = summary.arms[0]
    points = tuple(dataclasses.replace(point, reason="") for point in first.comparison.points)
    bare = dataclasses.replace(first, comparison=dataclasses.replace(first.comparison, points=points))
    text = page.render([dataclasses.replace(summary, arms=(bare, *summary.arms[1:]))])
    assert "14 points outside" in text
    assert "reason" not in text


def test_other_data_is_said_once_and_nothing_published_stands_beside_it(tmp_path):
    made_up.reproduced(tmp_path)
    with Store.open(tmp_path) as store:
        stored = store.studies()[0]
        digits = summarize(StoredStudy(stored.study, made_up.DIGITS), store)
    text = page.render([digits])
    assert text.count("this ran on digits") == 2  # under the figures, and as the answer that is not given
    assert "Published accuracy" not in text
    assert "Points reproduced" not in text
    assert "published" not in " ".join(svg for figure in charts(digits) for _, svg in figure.panels)
    assert "Dotted" not in text
    table = shown(digits, 110)
    assert table.count("this ran on digits") == 2
    assert "published," not in table


def test_published_raw_accuracies_are_labelled(read, by_name):
    raw = next(row for row in read.rows if row and row[0] == "Xavier uniform")
    assert raw[6] == "98.05 raw"
    scaled = next(row for row in read.rows if row and row[0] == "with BN")
    assert scaled[6] == "97"  # with the two digits that were printed
    for width in (45, 60, 80, 110):
        assert "98.05 " not in shown(by_name["nn"], width).replace("98.05 raw", "")
    assert "98.05 raw" in shown(by_name["nn"], 80)


def test_fewer_seeds_than_planned_are_counted_where_they_count(read, html):
    row = next(row for row in read.rows if row and row[0].startswith("SGD, lr = 1"))
    assert row[2].endswith("n = 4")
    assert row[5].endswith("too few pairs (4)")
    assert "no evidence" not in row[5]
    assert "Mean over 6 seeds, fewer where n is given, and 95 % interval." in html
    assert '<span class="found">Accuracy against Adam. Too few pairs of seeds: SGD, lr = 1 (4).</span>' in html


def test_an_interval_of_an_accuracy_ends_at_0_and_100(by_name):
    summary = by_name["nn"]
    wide = dataclasses.replace(summary.arms[0].accuracy, low=-0.01, high=1.02)
    arms = (dataclasses.replace(summary.arms[0], accuracy=wide), *summary.arms[1:])
    changed = dataclasses.replace(summary, arms=arms)
    assert "[0.00, 100.00]" in page.render([changed])
    assert "[0.00, 100.00]" in shown(changed, 140)


def test_training_time_is_said_to_be_a_sum(html):
    assert "training time, summed over trials</dt>" in html
    assert "Training time, summed over trials: " in html
    assert " Time: " not in html


def test_hostile_names_are_text(html):
    assert "as <b>& described" not in html
    assert "as &lt;b&gt;&amp; described" in html
    assert "Five layers &lt;b&gt;&amp; three&lt;/b&gt;" in html


def test_troubles_recipes_and_versions_are_told(html):
    assert "SGD, lr = 1, seed 2: diverged in epoch 4, step 417, layer 1" in html
    assert "SGD, lr = 1, seed 4: failed: out of memory" in html
    assert "init = &quot;xavier_uniform&quot;" in html
    assert "<dt>torch</dt><dd>2.13.0</dd>" in html


def test_writing_is_all_or_nothing(by_name, tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    assert page.write_page([by_name["softmax"]], path) == path
    before = path.read_text(encoding="utf-8")
    assert before.rstrip().endswith("</html>")
    assert path.stat().st_mode & 0o044

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        page.write_page([by_name["rates"]], path)
    assert path.read_text(encoding="utf-8") == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_trials_of_two_studies_count_once(by_name):
    once, twice = (page._facts([by_name["nn"]] * n) for n in (1, 2))
    assert once == twice
    assert ">32/32<" in once


def test_a_page_needs_a_study():
    with pytest.raises(FaninError, match="at least one study"):
        page.render([])


def test_one_study_gives_the_page_its_title(by_name):
    assert "<h1>Softmax regression</h1>" in page.render([by_name["softmax"]])
