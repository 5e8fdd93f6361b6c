"""`--study` and `--arm` of results and report: which studies and arms are shown, compared with which."""

from __future__ import annotations

import json

import pytest

from fanin.cli import main
from fanin.cli.selection import selected
from fanin.errors import FaninError
from fanin.statistics import paired_difference
from fanin.store import Store, StoredStudy
from fanin.study import Study

ARMS = [{"name": name, "init": init} for name, init in (("he", "he_normal"), ("zeros", "zeros"), ("wild", "normal"))]
ASK = {"ask": "?", "if_higher": "yes", "if_lower": "no"}
QUESTIONS = [ASK | {"a": {"arm": a}, "b": {"arm": b}} for a, b in (("he", "zeros"), ("he", "wild"))]


def study(name, arms=ARMS, **more):
    recipe = {"hidden": [4], "epochs": 1, "batch_size": 200}
    return Study.from_dict({"name": name, "recipe": recipe, "arms": arms, "seeds": 2} | more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two studies of three and of two arms, run."""
    import fanin

    out = tmp_path_factory.mktemp("selection") / "out"
    fanin.run([study("one/first"), study("one/second", ARMS[:2])], data="digits", jobs=0, out=out, keep_weights="none")
    return out


def told(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code, capsys.readouterr()


def stored(*studies):
    return [StoredStudy(each, {}) for each in studies]


def names(found):
    return {each.study.name: [arm.name for arm in each.study.arms] for each in found}


def test_nothing_named_is_everything():
    given = stored(study("a/x"), study("a/y"))
    assert selected(given, [], []) == given


def test_studies_by_their_whole_name_or_its_end_in_their_own_order():
    given = stored(study("a/x"), study("a/y"), study("b/x"))
    assert list(names(selected(given, ["x"], []))) == ["a/x", "b/x"]
    assert list(names(selected(given, ["a/y", "b/x"], []))) == ["a/y", "b/x"]


def test_variants_of_a_study_by_its_name_where_it_is_not_there_itself():
    variants = [study("a/x [lr=1]"), study("a/x [lr=2]")]
    assert list(names(selected(stored(*variants, study("b/y")), ["x"], []))) == ["a/x [lr=1]", "a/x [lr=2]"]
    assert list(names(selected(stored(*variants), ["a/x"], []))) == ["a/x [lr=1]", "a/x [lr=2]"]
    assert list(names(selected(stored(*variants), ["a/x [lr=2]"], []))) == ["a/x [lr=2]"]
    assert list(names(selected(stored(*variants, study("a/x")), ["a/x"], []))) == ["a/x"]


def test_arms_in_the_order_they_are_named_and_studies_that_have_one():
    given = stored(study("a/x"), study("a/y", ARMS[:1]))
    assert names(selected(given, [], ["wild", "he"])) == {"a/x": ["wild", "he"], "a/y": ["he"]}
    assert names(selected(given, [], ["wild"])) == {"a/x": ["wild"]}
    assert names(selected(given, ["y"], ["he", "he"])) == {"a/y": ["he"]}


def test_questions_about_arms_that_are_not_shown_go():
    given = stored(study("a/x", questions=QUESTIONS))
    assert len(given[0].study.questions) == 2
    assert [q.b.arm for q in selected(given, [], ["zeros", "he"])[0].study.questions] == ["zeros"]
    assert selected(given, [], ["wild"])[0].study.questions == ()


def test_a_name_that_nothing_has_is_told_with_what_there_is():
    given = stored(study("a/x"))
    with pytest.raises(FaninError, match="--arm: expected one of 'he', 'zeros', 'wild'; got 'wilt'; did you mean 'wi"):
        selected(given, [], ["he", "wilt"])
    with pytest.raises(FaninError, match="--study: expected one of 'a/x'; got 'z'"):
        selected(given, ["z"], [])
    many = stored(study("a/x", [{"name": f"arm {i}", "init": "zeros"} for i in range(100)]))
    with pytest.raises(FaninError, match="'arm 39' and 60 more; got 'none'"):
        selected(many, [], ["none"])


def test_results_compare_the_arms_that_are_named(folder, capsys):
    code, said = told(capsys, "results", folder, "--study", "first", "--arm", "wild", "--arm", "he", "--json")
    assert code == 0
    (found,) = json.loads(said.out)
    assert [arm["arm"] for arm in found["arms"]] == ["wild", "he"]
    with Store.open(folder) as store:
        records = store.records(study("one/first"))
    he, wild = ([record.final.test_accuracy for record in records[arm]] for arm in ("he", "wild"))
    expected = paired_difference(he, wild, comparisons=1)
    assert found["arms"][1]["difference"]["mean"] == pytest.approx(expected.mean)
    assert found["arms"][1]["difference"]["low"] == pytest.approx(expected.low)
    code, said = told(capsys, "results", folder, "--arm", "zeros")
    assert code == 0
    assert said.out.count("zeros ") == 2
    assert "he " not in said.out


def test_a_page_of_some_arms_does_not_replace_that_of_all(folder, capsys, tmp_path):
    code, said = told(capsys, "report", folder, "--arm", "he")
    assert code == 2
    assert "expected --out too" in said.err
    code, said = told(capsys, "report", folder, "--arm", "he", "--study", "second", "--out", tmp_path / "some.html")
    assert code == 0
    assert "zeros" not in (tmp_path / "some.html").read_text()
    assert not (folder / "report.html").exists()


def test_csv_is_of_all(folder, capsys):
    code, said = told(capsys, "results", folder, "--csv", "--arm", "he")
    assert code == 2
    assert "--csv: has every trial" in said.err
