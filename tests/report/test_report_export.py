"""JSON and CSV: their exact form, and that nothing in them is not a number."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import made_up
import pytest

from fanin.record import Epoch
from fanin.report.export import to_json, write_csv, write_json
from fanin.report.measures import number
from fanin.report.words import outcome
from fanin.store import Store

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


def written(write, *args):
    out = io.StringIO()
    write(*args, out)
    return out.getvalue()


def test_json_is_written_arm_by_arm_as_it_would_be_at_once(summaries):
    for some in ([], summaries[:1], summaries):
        assert written(write_json, some) == json.dumps(to_json(some), indent=1, allow_nan=False)
    hostile = dataclasses.replace(summaries[0], study=summaries[0].study.changed(title='a "arms": [] b\n c'))
    assert json.loads(written(write_json, [hostile])) == to_json([hostile])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The folder of all invented studies: what its CSV says, and its records."""
    folder = tmp_path_factory.mktemp("csv")
    made_up.all_of_them(folder)
    with Store.open(folder) as store:
        return written(write_csv, store), [(s.study, store.records(s.study)) for s in store.studies()]


def test_csv_is_what_a_loop_over_records_finds(table):
    text, studies = table
    fields = [f.name for f in dataclasses.fields(Epoch)]
    wanted = [["study", "arm", "seed", "status", "outcome", "seconds", "epoch", "epoch_seconds", *fields[2:]]]
    for study, records in studies:
        for arm in study.arms:
            for r in records[arm.name]:
                last = [number(getattr(r.epochs[-1], f)) for f in fields] if r.epochs else [None] * len(fields)
                row = [study.name, arm.name, r.seed, r.status, outcome(r), r.seconds, *last]
                wanted.append(["" if cell is None else str(cell) for cell in row])
    assert list(csv.reader(io.StringIO(text))) == wanted
    assert len(wanted) == 135


def test_csv_tells_what_is_no_number(table):
    rows = list(csv.DictReader(io.StringIO(table[0])))
    assert "nan" not in table[0].lower()
    failed = next(r for r in rows if r["status"] == "failed")
    assert (failed["outcome"], failed["test_accuracy"], failed["epoch"]) == ("failed: out of memory", "", "")
    diverged = next(r for r in rows if r["status"] == "diverged")
    assert (diverged["epoch"], diverged["train_cost"]) == ("4", "")
