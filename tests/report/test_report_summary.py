"""A summary's numbers against the records they come from."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from pathlib import Path

import made_up
import numpy as np
import pytest
from scipy import stats

from fanin.record import Divergence, Record
from fanin.report.answers import answer
from fanin.report.measures import metrics
from fanin.report.reproduction import compare, distances
from fanin.report.summary import summarize
from fanin.report.trials import BySeed, Trials
from fanin.store import Store, StoredStudy
from fanin.study import Published, Quantity, Question, Study


def arm(summary, name):
    return next(a for a in summary.arms if a.name == name)


def resummarized(summary, folder, data=made_up.DATA, study=None):
    """The same records under other data or another study's questions."""
    with Store.open(folder) as store:
        return summarize(StoredStudy(study or summary.study, data), store)


def test_measures_are_those_of_the_last_epochs(tmp_path):
    summary = made_up.reproduced(tmp_path)
    with Store.open(tmp_path) as store:
        records = store.records(summary.study)
    for name, rows in records.items():
        accuracies = [r.epochs[-1].test_accuracy for r in rows]
        found = arm(summary, name)
        low, high = stats.t.interval(0.95, 5, loc=statistics.fmean(accuracies), scale=stats.sem(accuracies))
        assert list(found.accuracy.values.values()) == accuracies
        assert found.accuracy.mean == pytest.approx(statistics.fmean(accuracies))
        assert (found.accuracy.low, found.accuracy.high) == (pytest.approx(low), pytest.approx(high))
        assert found.train_cost.mean == pytest.approx(statistics.fmean(r.epochs[-1].train_cost for r in rows))
        assert found.curves["train_cost"][2] == tuple(e.train_cost for e in rows[2].epochs)
    assert summary.seconds == pytest.approx(sum(r.seconds for rows in records.values() for r in rows))


def test_a_diverged_trial_counts_and_a_failed_one_does_not(by_name):
    found = arm(by_name["rates"], "SGD, lr = 1")
    assert (found.n, found.planned) == (5, 6)
    assert (found.success.successes, found.success.n) == (4, 5)
    assert sorted(found.accuracy.values) == [0, 1, 3, 5]
    assert [t.words for t in found.troubles] == [
        "diverged in epoch 4, step 417, layer 1",
        "failed: out of memory",
    ]
    assert found.seeds == (0, 1, 2, 3, 5)
    assert len(found.curves["train_cost"][2]) == 4
    assert found.curves["train_cost"][2][-1] is None  # NaN in the record
    assert found.difference.n == 4
    assert found.difference.verdict == "too few pairs"


def test_success_is_the_studys_accuracy(by_name):
    summary = by_name["init"]
    assert arm(summary, "zeros").success.successes == 0
    assert arm(summary, "Xavier uniform").success.successes == 6
    assert arm(summary, "zeros").success.high == pytest.approx(
        stats.binomtest(0, 6).proportion_ci(method="wilson").high
    )


def test_differences_are_simultaneous_over_the_arms(by_name):
    summary = by_name["init"]
    first = summary.arms[0]
    assert first.difference is None
    for other in summary.arms[1:]:
        pairs = [(other.accuracy.values[s], first.accuracy.values[s]) for s in range(6)]
        oracle = stats.ttest_rel(*zip(*pairs, strict=True)).confidence_interval(1 - 0.05 / 9)
        assert other.difference.low == pytest.approx(oracle.low)
        assert other.difference.comparisons == 9
    assert arm(summary, "N(0,1)").difference.verdict == "lower"
    assert arm(summary, "Xavier normal").difference.verdict == "no evidence"


def test_published_points_inside_and_outside(by_name):
    assert [a.reproduced for a in by_name["nn"].arms] == [True, True]
    assert arm(by_name["nn"], "Xavier uniform").comparison.score == "16/16"
    deep = by_name["deep"].arms[0]
    assert deep.reproduced is False
    assert deep.comparison.inside + len(deep.comparison.outside) == 16
    first = deep.comparison.outside[0]
    ours = [curve[first.epoch - 1] for curve in deep.curves["train_cost"]]
    reach = max(ours) - min(ours) + 0.05 * first.value
    assert (first.low, first.high) == (pytest.approx(min(ours) - reach), pytest.approx(max(ours) + reach))
    assert not first.low <= first.value <= first.high
    assert first.reason == deep.arm.published.if_outside
    assert by_name["deep"].arms[1].comparison is None
    assert by_name["deep"].arms[1].reproduced is None


def test_too_few_seeds_or_other_data_give_no_verdict(by_name, tmp_path):
    assert by_name["softmax"].arms[0].reproduced is None
    assert "at least 6 finished seeds, 1 finished" in by_name["softmax"].arms[0].comparison.why_not
    other = resummarized(made_up.reproduced(tmp_path), tmp_path, made_up.DIGITS)
    assert [a.reproduced for a in other.arms] == [None, None]
    assert other.arms[0].comparison.why_not == "the published numbers are for mnist, this ran on digits"
    assert other.points == (0, 0)
    assert other.answers[0].verdict == "higher"  # this one asks nothing of the published numbers
    assert other.answers[1].verdict == "not answered"
    assert other.answers[1].text == "Not answered: the published numbers are for mnist, this ran on digits."


def test_the_fingerprint_and_not_the_name_says_what_the_data_is(tmp_path):
    summary = made_up.reproduced(tmp_path)
    fashion = resummarized(summary, tmp_path, made_up.DATA | {"fingerprint": "f" * 16})
    assert [a.reproduced for a in fashion.arms] == [None, None]
    assert "this ran on other data of that name (fingerprint ffff" in fashion.arms[0].comparison.why_not
    folder = resummarized(summary, tmp_path, made_up.DATA | {"name": "/data/numbers"})
    assert [a.reproduced for a in folder.arms] == [True, True]
    # of data whose fingerprint nobody has entered, the name must do
    published = Published(data="digits", accuracy=0.5)
    arm = dataclasses.replace(summary.arms[0].arm, published=published)
    none = made_up.trials_of(tmp_path / "none", [])
    assert compare(arm, none, made_up.DIGITS).same_data
    assert not compare(arm, none, made_up.DATA).same_data


def test_a_question_about_an_arm_without_published_numbers_is_not_answered(tmp_path):
    summary = made_up.not_reproduced(tmp_path)
    (asked,) = summary.study.questions
    for changed in (
        dataclasses.replace(asked, if_higher="{a_points}"),
        dataclasses.replace(asked, a=Quantity(arm="with dropout", metric="distance_to_published")),
    ):
        study = dataclasses.replace(summary.study, questions=(changed,))
        (found,) = resummarized(summary, tmp_path, study=study).answers
        assert found.text == "Not answered: nothing to compare with dropout with has been published."
        assert found.verdict == "not answered"


def test_the_distance_to_a_published_curve_is_a_mean_logarithm(tmp_path):
    summary = made_up.reproduced(tmp_path)
    sides = [Quantity(arm=a.name, metric="distance_to_published") for a in summary.arms]
    question = Question(
        ask="Which is nearer?",
        a=sides[1],
        b=sides[0],
        if_higher="{a}, {b}",
        if_lower="{a}, {b}",
        if_neither="{a}, {b}: {difference} [{low}, {high}]",
    )
    study = dataclasses.replace(summary.study, questions=(question,))
    (found,) = resummarized(summary, tmp_path, study=study).answers
    for mean, side in ((found.a_mean, summary.arms[1]), (found.b_mean, summary.arms[0])):
        printed = side.arm.published.train_cost
        logs = [
            abs(math.log(v) - math.log(p)) for c in side.curves["train_cost"] for v, p in zip(c, printed, strict=True)
        ]
        assert mean == pytest.approx(statistics.fmean(logs))
    factors = [f"a factor of {math.exp(mean):.2f}" for mean in (found.a_mean, found.b_mean)]
    low, high = (f"{math.exp(end):.3g}" for end in (found.difference.low, found.difference.high))
    assert found.text.startswith(", ".join(factors) + ": a factor of ")
    assert re.search(rf"\[{low}0*, {high}0*\]$", found.text)
    (other,) = resummarized(summary, tmp_path, made_up.DIGITS, study).answers
    assert other.text == "Not answered: the published numbers are for mnist, this ran on digits."
    assert other.difference is None


def test_no_distance_without_every_printed_epoch(tmp_path):
    record = made_up.record("", 0, cost=[2.0, 1.0], accuracy=0.9)
    worthless = dataclasses.replace(record.epochs[1], train_cost=made_up.NAN)
    diverged = dataclasses.replace(record, status="diverged")
    torn = dataclasses.replace(record, epochs=(record.epochs[0], worthless))
    trials = made_up.trials_of(tmp_path, [record, diverged, torn])
    assert dict(distances(trials, (1.0, 1.0))) == {0: pytest.approx(math.log(2) / 2)}
    assert dict(distances(trials, (2.0, 2.0))) == {0: pytest.approx(math.log(2) / 2)}  # above or below counts alike
    assert dict(distances(trials, (2.0,))) == {0: 0.0, 2: 0.0}
    for printed in ((), (2.0, 1.0, 0.5), (2.0, 0.0)):
        assert not distances(trials, printed)


def test_a_point_that_nobody_measured_is_outside(tmp_path):
    summary = made_up.reproduced(tmp_path)
    with Store.open(tmp_path) as store:
        trials = Trials.of(store.columns(summary.study, "N(0,1)"))
    wanted = dataclasses.replace(summary.arms[0].arm, published=Published(train_loss=(0.5,), test_loss=(900.0,) * 16))
    found = compare(wanted, trials, made_up.DATA)
    assert found.reproduced is False
    assert (found.inside, len(found.outside)) == (0, 17)
    assert "did not measure the training loss" in found.outside[0].reason
    assert found.points[-1].low is None  # epoch 16 of 15


def test_rounding_is_named_as_a_reason(tmp_path):
    summary = made_up.reproduced(tmp_path)
    with Store.open(tmp_path) as store:
        records = Trials.of(store.columns(summary.study, "Xavier uniform"))
        ours = [r.epochs[-1].test_accuracy for r in store.records(summary.study)["Xavier uniform"]]
    reach = max(ours) - min(ours)
    near = round(max(ours) + reach + 0.004, 2)
    bare = dataclasses.replace(summary.arms[1].arm, published=Published(accuracy=near))
    bare = dataclasses.replace(bare, note="A remark.")  # a remark is no reason
    point = compare(bare, records, made_up.DATA).points[0]
    assert not point.inside
    assert point.reason == "the rounding of the printed number, within which it lies inside"
    far = dataclasses.replace(bare, published=Published(accuracy=0.5))
    assert compare(far, records, made_up.DATA).points[0].reason == ""
    told = dataclasses.replace(bare, published=Published(accuracy=0.5, if_outside="Another net's."))
    assert compare(told, records, made_up.DATA).points[0].reason == "Another net's."
    both = dataclasses.replace(bare, published=Published(accuracy=near, if_outside="Another net's."))
    assert "rounding" in compare(both, records, made_up.DATA).points[0].reason


def test_questions_are_answered_with_the_numbers(by_name):
    summary = by_name["nn"]
    one, other = summary.answers
    xavier = summary.arms[1]
    assert one.verdict == "higher"
    assert one.text.startswith(f"Yes: {100 * xavier.accuracy.mean:.2f}\N{NO-BREAK SPACE}% against")
    assert f"{100 * one.difference.mean:.2f} points [" in one.text
    assert one.text.endswith("more, 6 of 6 seeds.")
    assert one.differs == {"init": ("xavier_uniform", "normal")}
    assert one.difference.comparisons == 2
    assert other.text.endswith("published points inside: 16/16 and 16/16.")
    firsts = [curve[0] for curve in xavier.curves["train_cost"]]
    assert other.a_mean == pytest.approx(statistics.fmean(firsts))
    one = by_name["softmax"].answers[0]
    assert one.text.startswith("Not answered: too few pairs of seeds (1; 6 can show a difference); so far 92.71")
    assert (one.verdict, one.difference.n) == ("not answered", 1)


def test_every_text_of_a_question_can_be_the_answer():
    question = Question(
        ask="?",
        a=Quantity(arm="a"),
        b=Quantity(arm="b"),
        if_higher="up {a} %, {difference} points {x}",
        if_lower="down",
    )
    up, zero = [0.91, 0.92, 0.93, 0.94, 0.95, 0.96], [0.90, 0.91, 0.92, 0.93, 0.94, 0.951]
    study = Study.from_dict({"name": "s", "arms": [{"name": "a"}, {"name": "b", "init": "zeros"}]})
    study = dataclasses.replace(study, questions=(question,))

    def text(a, b):
        asked = {
            name: {"accuracy": BySeed(np.arange(len(values)), np.array(values, dtype=float))}
            for name, values in (("a", a), ("b", b))
        }
        return answer(question, study, asked, {}).text

    assert text(up, zero) == "up 93.50\N{NO-BREAK SPACE}%, 0.98 points {x}"
    assert text(zero, up) == "down"
    assert text(up, up) == "No evidence of a difference: 0.00 points [0.00, 0.00] over 6 seeds."
    assert text(up[:3], zero[:3]).startswith(
        "Not answered: too few pairs of seeds (3; 6 can show a difference); so far 92"
    )
    assert text([], up) == "Not answered: no seed has both numbers."


LAB9 = sorted((Path(made_up.__file__).parents[2] / "src/fanin/studies/lab9").glob("*.toml"))
PLACEHOLDERS = {"a", "b", "difference", "low", "high", "n", "wins", "a_points", "b_points"}


@pytest.mark.parametrize("path", LAB9, ids=lambda path: path.stem)
def test_the_labs_questions_ask_what_their_arms_can_answer(path):
    study = Study.from_toml(path)
    for question in study.questions:
        texts = (question.if_higher, question.if_lower, question.if_neither)
        assert all(text.endswith(".") for text in texts)
        asked = {found for text in texts for found in re.findall(r"\{(\w+)\}", text)}
        assert asked <= PLACEHOLDERS
        for name, side in (("a", question.a), ("b", question.b)):
            published = study.arm(side.arm).published
            assert published or f"{name}_points" not in asked
            assert (published and published.train_cost) or side.metric != "distance_to_published"
        # promise 4: no evidence of a difference is not evidence of none
        assert not re.search(r"do(es)? not differ|are equal|the same as", question.if_neither)


def test_gradient_ratio_and_signal_bands(by_name, tmp_path):
    summary = by_name["activation"]
    sigmoid = arm(summary, "sigmoid")
    assert {b.epoch for b in sigmoid.signal} == {0, 15}
    assert [b.layer for b in sigmoid.signal if b.epoch == 0] == list(range(1, 11))
    band = sigmoid.signal[0].gradient
    assert band.low <= band.mean <= band.high
    assert sigmoid.signal[9].dead is None
    assert summary.answers[0].b_mean < 1e-9
    signal = made_up.depth_signal(3, 1.0, 0.1, made_up.random.Random(0))
    trials = made_up.trials_of(tmp_path, [Record("x", 0, "done", (), signal), Record("x", 1, "failed")])
    ratio = signal[0].gradient_second_moment / signal[2].gradient_second_moment
    assert dict(metrics(trials, "gradient_ratio")) == {0: ratio}


def test_an_empty_study_has_a_summary(tmp_path):
    study = Study.from_dict({"name": "empty", "arms": [{"name": "a"}, {"name": "b"}], "seeds": 2})
    with Store.create(tmp_path) as store:
        store.put_study(study, made_up.DATA)
        summary = summarize(StoredStudy(study, made_up.DATA), store)
    assert summary.seconds == 0
    assert summary.arms[0].success is None
    assert summary.device == "unknown"


def test_a_loss_that_overflowed_alone_is_said_so():
    from fanin.report.words import outcome

    found = outcome(Record("x", 0, "diverged", divergence=Divergence(1, 2, None)))
    assert found == "diverged in epoch 1, step 2, in the loss alone"
