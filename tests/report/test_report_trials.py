"""Numbers from columns against slow loops over records, and pages of many seeds and arms."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics

import made_up
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report_table import shown

from fanin.record import Divergence, Epoch, LayerSignal, Record
from fanin.report import bounds, page, vega
from fanin.report.charts import charts
from fanin.report.findings import troubles
from fanin.report.forest import accuracies
from fanin.report.measures import Band, metrics
from fanin.report.results import CURVES
from fanin.report.summary import summarize
from fanin.report.trials import BySeed, SeedCurves, Trials
from fanin.store import Store
from fanin.study import Study


def finite(value):
    return value if value is not None and math.isfinite(value) else None


def bands(records):
    """The signal before training and at the last observed epoch, as a loop finds it."""
    rows = [s for r in records if r.status != "failed" for s in r.signal]
    places = {}
    for row in rows:
        if row.epoch in {0, max(s.epoch for s in rows)}:
            places.setdefault((row.epoch, row.layer), []).append(row)
    numbers = [f.name for f in dataclasses.fields(LayerSignal)][2:]
    found = []
    for place, here in sorted(places.items()):
        values = [[v for row in here if (v := finite(getattr(row, name))) is not None] for name in numbers]
        found.append((*place, *(Band(sum(v) / len(v), min(v), max(v)) if v else None for v in values)))
    return found


def test_summaries_are_what_loops_over_records_find(tmp_path):
    for make in made_up.ALL:
        summary = make(tmp_path / make.__name__)
        with Store.open(tmp_path / make.__name__) as store:
            records = store.records(summary.study)
        everything = [r for rows in records.values() for r in rows]
        assert summary.seconds == sum(r.seconds for r in everything)
        assert list(summary.environments) == [made_up.ENVIRONMENT]
        for arm in summary.arms:
            rows = records[arm.name]
            results = [r for r in rows if r.status != "failed"]
            assert arm.seeds == tuple(r.seed for r in results)
            assert [(t.seed, t.status) for t in arm.troubles] == [
                (r.seed, r.status) for r in rows if r.status != "done"
            ]
            assert dict(arm.statuses) == {w: n for w in statuses if (n := sum(r.status == w for r in rows))}
            for measure, field in (("accuracy", "test_accuracy"), *((f, f) for f in CURVES[:2])):
                finals = {r.seed: v for r in rows if r.final and (v := finite(getattr(r.final, field))) is not None}
                assert dict(getattr(arm, measure).values) == finals
            for name in CURVES:
                assert list(arm.curves[name]) == [tuple(finite(getattr(e, name)) for e in r.epochs) for r in results]
            assert [tuple(vars(b).values()) for b in arm.signal] == bands(rows)


statuses = ("done", "diverged", "failed")
number = st.one_of(st.none(), st.just(math.inf), st.floats(1e-3, 1e3))
epoch = st.tuples(number, number)
layer = st.tuples(st.integers(0, 3), st.integers(1, 3), number)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(statuses), st.lists(epoch, max_size=3), st.lists(layer, max_size=6)), max_size=5)
)
def test_columns_of_anything_are_what_loops_find(tmp_path_factory, made):
    records = []
    for seed, (status, epochs, layers) in enumerate(made):
        rows = tuple(Epoch(i, 1.0, cost, cost, accuracy, accuracy) for i, (cost, accuracy) in enumerate(epochs, 1))
        places = {(e, n): g for e, n, g in layers}
        signal = tuple(LayerSignal(e, n, g, g, 1.0, None, None) for (e, n), g in sorted(places.items()))
        at = Divergence(1, 2, None) if status == "diverged" else None
        records.append(Record("", seed, status, rows, signal, at, None, 1.0))
    trials = made_up.trials_of(tmp_path_factory.mktemp("any"), records)
    assert trials.lengths.tolist() == [len(r.epochs) for r in records]
    wanted = {r.seed: v for r in records if r.final and (v := finite(r.final.test_accuracy)) is not None}
    assert dict(metrics(trials, "accuracy")) == wanted
    firsts = {r.seed: finite(r.epochs[0].train_cost) for r in records if r.status != "failed" and r.epochs}
    assert dict(metrics(trials, "train_cost_first_epoch")) == {s: v for s, v in firsts.items() if v is not None}
    assert dict(metrics(trials, "gradient_ratio")) == ratios(records)


def ratios(records):
    found = {}
    for r in records:
        start = [s for s in r.signal if s.epoch == 0]
        if r.status != "failed" and start:
            first, last = (finite(s.gradient_second_moment) for s in (start[0], start[-1]))
            if first is not None and last:
                found[r.seed] = first / last
    return found


def test_numbers_by_seed_are_a_mapping():
    found = BySeed(np.array([0, 2, 5, 7]), np.array([1.0, math.nan, 3.0, math.inf]))
    assert dict(found) == {0: 1.0, 5: 3.0}
    assert found != {0: 1.0, 5: 4.0}
    for seed in (2, 3, 9):
        with pytest.raises(KeyError):
            found[seed]
    assert found.paired(BySeed(np.array([5, 6, 0]), np.array([9.0, 8.0, 7.0]))) == ([1.0, 3.0], [7.0, 9.0])


def test_curves_are_cut_where_trials_ended():
    values = np.array([[1.0, 2.0, 3.0], [4.0, math.nan, math.nan], [math.nan] * 3])
    curves = SeedCurves(values, np.array([3, 2, 0]))
    assert list(curves) == [(1.0, 2.0, 3.0), (4.0, None), ()]
    assert list(curves[1:]) == [(4.0, None), ()]
    assert curves.column(1).tolist() == [1.0, 4.0]
    assert curves.ends().tolist() == [3.0]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Two arms of a few seeds more than are drawn one by one; some diverged, one failed, some have not run."""
    rng = random.Random(0)
    study = Study.from_dict({"name": "crowd", "seeds": 70, "arms": [{"name": "a"}, {"name": "b", "init": "zeros"}]})
    records = {}
    for name in ("a", "b"):
        made = [made_up.record("", s, cost=[2.0, 1.0 + rng.random()], accuracy=rng.random()) for s in range(60)]
        made[3] = dataclasses.replace(made[3], status="diverged", divergence=Divergence(2, 1, None))
        made[4] = Record("", 4, "failed", error="killed")
        records[name] = made
    return made_up.store(tmp_path_factory.mktemp("crowd"), study, records)


def test_many_seeds_are_a_band_and_its_numbers_are_quantiles(crowd):
    from fanin.report.curves import _quantiles

    for epoch, low, middle, high in _quantiles(crowd.arms[0], "train_cost"):
        costs = [c[epoch - 1] for c in crowd.arms[0].curves["train_cost"] if len(c) >= epoch]
        assert len(costs) == 59
        cuts = statistics.quantiles(costs, n=20, method="inclusive")
        assert (low, middle, high) == pytest.approx((cuts[0], statistics.median(costs), cuts[-1]))
    (cost, accuracy, differences) = charts(crowd)
    assert "Of more than 50 seeds: the median, and a band" in cost.caption
    assert "band0" in cost.panels[0][1]
    assert "seeds0" not in cost.panels[0][1]
    assert accuracy.title == "Test accuracy"
    assert "Of more than 50 seeds, no ticks." in differences.caption
    assert "band0" in accuracies(crowd, "all")


def test_few_seeds_are_lines(by_name):
    figures = charts(by_name["nn"])
    assert "seeds0" in figures[0].panels[0][1]
    assert "band0" not in figures[0].panels[0][1]
    assert not any("Of more than" in figure.caption for figure in figures)


def test_a_page_of_seeds_does_not_grow_with_them(tmp_path, crowd):
    study = crowd.study.changed(name="twice", seeds=140)
    made = {name: [made_up.record("", s, cost=[2.0, 1.5], accuracy=s / 140) for s in range(140)] for name in ("a", "b")}
    twice = made_up.store(tmp_path, study, made)
    assert len(page.render([twice])) < 1.02 * len(page.render([crowd]))


def test_trials_that_did_not_finish_are_listed_up_to_a_bound(crowd, monkeypatch):
    lines = troubles(crowd)
    assert lines[:2] == ["a, seed 3: diverged in epoch 2, step 1, in the loss alone", "a, seed 4: failed: killed"]
    assert lines[2] == "a: 10 trials not run yet"
    assert len(lines) == 6
    monkeypatch.setattr("fanin.report.findings.MOST_TROUBLES", 2)
    *some, last = troubles(crowd)
    assert some == lines[:2]
    assert last == "... In all: 2 diverged, 2 failed, 20 not run yet; `fanin results --csv` names every trial."


def test_many_arms_are_shown_up_to_a_bound_and_the_rest_is_said(by_name, monkeypatch):
    summary = by_name["init"]
    monkeypatch.setattr("fanin.report.charts.MOST_DRAWN", 5)
    monkeypatch.setattr("fanin.report.section.MOST_ARMS", 7)
    monkeypatch.setattr("fanin.report.table.MOST_LINES", 3)
    text = page.render([summary])
    assert "The first 5 of 10 arms; `fanin results --json` has all." in text
    assert "The first 7 of 10 arms; `fanin results --json` has all." in text
    assert text.count('<th scope="row">') == 7
    assert [len(figure.panels) for figure in charts(summary) if len(figure.panels) > 1] == [5]
    table = shown(summary, 120)
    assert "The first 3 of 10 arms; `fanin results --json` has all." in table
    assert "Xavier normal" in table
    assert "60 of 60 trials" in table  # the footer counts all


def test_nothing_is_left_out_of_a_page_of_few(html):
    assert "The first" not in html
    assert bounds.left_out(40, 40, "arms", "x") == ""


def test_a_summary_takes_bytes_and_not_objects_for_a_trial(tmp_path):
    import tracemalloc

    study = Study.from_dict({"name": "many", "seeds": 1500})
    record = made_up.record("", 0, cost=[2.0, 1.0, 0.5], accuracy=0.9, signal=made_up.depth_signal(2, 1, 1, random))
    made_up.store(tmp_path, study, {"default": [record] * 1500})
    with Store.open(tmp_path) as store:
        (stored,) = store.studies()
        tracemalloc.start()
        try:
            summary = summarize(stored, store)
            lean, peak = tracemalloc.get_traced_memory()
            records = store.records(study)
            fat = tracemalloc.get_traced_memory()[0] - lean
        finally:
            tracemalloc.stop()
    assert len(summary.arms[0].seeds) == len(records["default"]) == 1500
    assert lean / 1500 < 400  # bytes
    assert fat / 1500 > 1500  # what records of so little take
    assert peak / 1500 < 2000


def test_what_a_driver_adds_meanwhile_is_whole_or_not_there(tmp_path):
    study = Study.from_dict({"name": "s", "seeds": 2})
    first, second = study.trials(study.arms[0])
    record = made_up.record("", 0, cost=[2.0, 1.0], accuracy=0.9)
    with Store.create(tmp_path) as writer, Store.open(tmp_path) as reader:
        writer.put_study(study, made_up.DATA)
        writer.add(first, "f", dataclasses.replace(record, trial_id=first.id(made_up.DATA["fingerprint"])))
        heads = reader._heads

        def slow(*args):
            found = heads(*args)
            more = dataclasses.replace(record, trial_id=second.id(made_up.DATA["fingerprint"]), seed=1)
            writer.add(second, "f", more)  # between the queries of one arm
            return found

        reader._heads = slow
        before = Trials.of(reader.columns(study, "default"))
        reader._heads = heads
        after = Trials.of(reader.columns(study, "default"))
    assert before.lengths.tolist() == [2]
    assert after.lengths.tolist() == [2, 2]


def test_charts_of_bands_are_valid_vega_lite(crowd, monkeypatch):
    altair = pytest.importorskip("altair")
    specs = []
    real = vega.vl_convert.vegalite_to_svg
    monkeypatch.setattr(vega.vl_convert, "vegalite_to_svg", lambda s, **k: specs.append(s) or real(s, **k))
    charts(crowd)
    accuracies(crowd, "all")
    assert len(specs) == 4
    for spec in specs:
        altair.LayerChart.from_dict(spec, validate=True)
