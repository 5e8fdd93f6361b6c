"""Looking up a user's own objects by name: what it finds, what it leaves behind, and code that changes under it."""

from __future__ import annotations

import importlib
import os
import sys

import pytest

from fanin.code import loaded_source, looks_like_attribute, named, source_of
from fanin.errors import DataError, FaninError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_code.py").write_text("class Outer:\n    inner = 3\n")
    (tmp_path / "own_broken.py").write_text("1 / 0\n")
    (tmp_path / "own_lacking.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("own_code", "own_broken", "own_lacking"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_an_object_is_found_in_the_current_folder_which_is_then_forgotten(folder):
    before = [*sys.path]
    assert named("own_code:Outer.inner") == 3
    assert sys.path == before
    named("own_code:Outer", lasting=True)
    assert sys.path == [*before, str(folder)]  # last: a file of the user's hides no library


def test_an_object_is_found_in_another_folder(folder, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(FaninError, match="no module named 'own_code' in"):
        named("own_code:Outer")
    assert named("own_code:Outer.inner", folder=folder) == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_code", "own_code: expected a thing as package.module:name"),
        ("own_code:", "expected a thing as package.module:name"),
        ("own code:x", "expected a thing as package.module:name"),
        ("own_cod:Outer", "--flag own_cod:Outer: no module named 'own_cod' in .*did you mean 'own_code'"),
        ("own_code:Outr", "own_code has no 'Outr'; did you mean 'Outer'"),
        ("own_broken:x", "importing own_broken raised ZeroDivisionError: division by zero"),
        ("own_lacking:x", "importing own_lacking failed: No module named 'no_such_library'; install what it needs"),
    ],
)
def test_what_cannot_be_found_is_told_in_the_callers_words(spec, message):
    with pytest.raises(DataError, match=message):
        named(spec, where="--flag", expected="a thing", error=DataError)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a:b", True),
        ("a.b:c.d", True),
        ("a", False),
        ("a:b:c", False),
        ("C:\\x", False),
        ("1a:b", False),
    ],
)
def test_the_form_of_a_name(text, is_one):
    assert looks_like_attribute(text) is is_one


def test_the_source_is_known_without_running_it(folder):
    first = source_of("own_broken:x")
    assert first is not None
    assert len(first) == 16
    (folder / "own_broken.py").write_text("1 / 0\n\n")
    assert source_of("own_broken:x") != first
    assert source_of("no_such_module:x") is None
    assert source_of("sys:path") is None  # built in: no file
    assert "own_broken" not in sys.modules


def test_code_that_changes_after_it_was_loaded_is_refused_until_it_is_loaded_again(folder):
    module = importlib.import_module(named("own_code:Outer").__module__)
    first = loaded_source("own_code:Outer")
    assert loaded_source("own_code:Outer") == first == source_of("own_code:Outer")
    (folder / "own_code.py").write_text("class Outer:\n    inner = 4000\n")
    os.utime(folder / "own_code.py", (1, 1))  # not within the clock's resolution: Python keeps what it has compiled
    with pytest.raises(FaninError, match="its file has changed, or is another one, since this process"):
        loaded_source("own_code:Outer")
    sys.path.insert(0, str(folder))
    importlib.reload(module)
    assert loaded_source("own_code:Outer") != first
    assert named("own_code:Outer.inner") == 4000
