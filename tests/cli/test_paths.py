"""Paths on the command line: empty ones, ones that are too long, files where folders are wanted and the reverse."""

from __future__ import annotations

import pytest

from fanin.cli import main
from fanin.cli.paths import check_file, check_folder
from fanin.errors import FaninError


def told(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert said.out == ""
    return ended.value.code, said.err


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


OPTIONS = [
    ("run", "lab9/nn", "--out"),
    ("run", "lab9/nn", "--data-dir"),
    ("results",),
    ("report",),
    ("report", ".", "--out"),
    ("predict",),
    ("predict", ".", "--image"),
    ("export", ".", "--out"),
    ("sample",),
    ("sample", ".", "--out"),
    ("pretrain", "--out"),
    ("explain", "lab9/nn", "a", "b", "--out"),
    ("diagnose", "m:x", "--data", "digits", "--html"),
    ("propagate", "--out"),
    ("doctor", "--data-dir"),
]


@pytest.mark.parametrize("command", OPTIONS, ids=" ".join)
@pytest.mark.parametrize(("given", "words"), [("", "got ''"), ("x" * 5000, "got one that is too long, 'xxx")])
def test_a_path_that_no_file_can_have_is_refused_everywhere(capsys, elsewhere, command, given, words):
    code, err = told(capsys, *command, given)
    assert code == 2
    assert "expected a path; " + words in err
    assert len(err) < 300
    assert list(elsewhere.iterdir()) == []


def test_so_is_the_name_of_a_study_that_is_too_long(capsys, elsewhere):
    for command in (("run",), ("explain",)):
        code, err = told(capsys, *command, "x" * 5000, "a", "b")
        assert code == 2
        assert "expected a path; got one that is too long" in err


def test_a_file_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    check_file("--out", None, "page.html")
    check_file("--out", tmp_path / "page.html", "page.html")
    check_file("--out", tmp_path / "file", "page.html")  # it is replaced
    check_file("--out", tmp_path / "new" / "deeper" / "page.html", "page.html")
    with pytest.raises(FaninError, match=r"--out .*: expected the path of a file to write, such as page.html; got a f"):
        check_file("--out", tmp_path, "page.html")
    with pytest.raises(FaninError, match=r"--out .*file/a/page.html: cannot be written, for .*/file is a file"):
        check_file("--out", tmp_path / "file" / "a" / "page.html", "page.html")


def test_a_folder_to_fill(tmp_path):
    (tmp_path / "file").write_text("")
    check_folder("--out", None)
    check_folder("--out", tmp_path)
    check_folder("--out", tmp_path / "new" / "deeper")
    with pytest.raises(FaninError, match=r"--out .*/file: is a file; expected a folder, new or of an earlier run"):
        check_folder("--out", tmp_path / "file")
    with pytest.raises(FaninError, match=r"file/runs: cannot be written, for .*/file is a file; expected a folder"):
        check_folder("--out", tmp_path / "file" / "runs")
