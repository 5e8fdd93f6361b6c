"""JSON and CSV: their exact form, and that nothing in them is not a number."""

from __future__ import annotations

import csv
import io
import json

import pytest

from fanin.report.export import to_csv, to_json

STUDY_KEYS = {"study", "data", "device", "arms", "seconds"}
ARM_KEYS = {
    "arm",
    "n",
    "success_rate",
    "accuracy",
    "accuracy_on_raw_pixels",
    "train_cost",
    "published",
    "reproduced",
}


def test_json_has_its_form_and_no_nan(summaries):
    found = json.loads(json.dumps(to_json(summaries), allow_nan=False))
    assert isinstance(found, list)
    assert [s["study"] for s in found] == [s.study.name for s in summaries]
    for study in found:
        assert set(study) >= STUDY_KEYS
        assert (study["data"], study["device"]) == ("mnist", "cpu")
        for arm in study["arms"]:
            assert set(arm) >= ARM_KEYS
            assert set(arm["accuracy"]) == set(arm["accuracy_on_raw_pixels"]) == {"mean", "low", "high"}
            assert isinstance(arm["train_cost"], list)
            assert len(arm["train_cost"]) == arm["n"]
            assert arm["reproduced"] in (True, False, None)


def test_json_numbers_are_the_summarys(summaries):
    for study, summary in zip(to_json(summaries), summaries, strict=True):
        for arm, found in zip(study["arms"], summary.arms, strict=True):
            assert arm["accuracy"]["mean"] == found.accuracy.mean
            assert arm["success_rate"] == found.success.rate
            assert arm["reproduced"] == found.reproduced
        assert study["seconds"] == pytest.approx(summary.seconds)


def test_json_says_what_was_not_a_number_as_null(by_name):
    (study,) = to_json([by_name["rates"]])
    assert study["arms"][1]["train_cost"][2][-1] is None
    (one,) = to_json([by_name["softmax"]])
    assert one["arms"][0]["accuracy"]["low"] is None
    assert one["arms"][0]["published"]["why_not"]


def test_csv_has_a_row_per_trial(summaries, by_name):
    rows = list(csv.DictReader(io.StringIO(to_csv(summaries))))
    assert len(rows) == sum(len(s.trials) for s in summaries)
    assert "nan" not in to_csv(summaries).lower().replace("finance", "")
    first = by_name["nn"].arms[0]
    mine = [r for r in rows if r["study"] == "nn" and r["arm"] == "N(0,1)"]
    assert [float(r["test_accuracy"]) for r in mine] == list(first.accuracy.values.values())
    failed = next(r for r in rows if r["status"] == "failed")
    assert (failed["outcome"], failed["test_accuracy"], failed["epoch"]) == ("failed: out of memory", "", "")
    diverged = next(r for r in rows if r["status"] == "diverged")
    assert (diverged["epoch"], diverged["train_cost"]) == ("4", "")
