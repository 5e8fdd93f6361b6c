"""Study files as editors leave them are read; the limits lie beyond any study."""

from __future__ import annotations

import pytest

from fanin.bundle import bundled
from fanin.errors import RecipeError
from fanin.study import MAX_ARMS, MAX_FILE, MAX_TRIALS, Study

TEXT = (
    'title = "Größe"\nseeds = 3\n[recipe]\nhidden = [4]\n[[arms]]\nname = "a"\n[[arms]]\nname = "b"\ninit = "zeros"\n'
)


def read(folder, content: bytes) -> Study:
    (folder / "study.toml").write_bytes(content)
    return Study.from_toml(folder / "study.toml")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
def test_line_ends_and_marks_make_no_difference(tmp_path, end, mark):
    expected = read(tmp_path, TEXT.encode())
    assert expected.title == "Größe"
    assert read(tmp_path, mark + TEXT.replace("\n", end).encode()) == expected


def test_limits_are_far_from_what_is_bundled():
    for path in bundled().values():
        study = Study.from_toml(path)
        assert path.stat().st_size < MAX_FILE / 50
        assert len(study.arms) < MAX_ARMS / 50
        assert len(study.arms) * study.seeds < MAX_TRIALS / 500


def test_limits_themselves_are_allowed(tmp_path):
    assert read(tmp_path, f"seeds = {MAX_TRIALS}\n".encode()).seeds == MAX_TRIALS
    with pytest.raises(RecipeError, match="expected at most 1,000,000 trials"):
        read(tmp_path, f"seeds = {MAX_TRIALS + 1}\n".encode())
    with pytest.raises(RecipeError, match="2 arms x 500001 seeds"):
        read(tmp_path, TEXT.replace("seeds = 3", "seeds = 500001").encode())
    text = TEXT.encode().ljust(MAX_FILE, b"\n")
    assert read(tmp_path, text).seeds == 3
    with pytest.raises(RecipeError, match="at most 1,048,576 bytes"):
        read(tmp_path, text + b"\n")


@pytest.mark.parametrize("key", ["a" + ".a" * 32, '"x"' + " . 'y' " * 32, "[a" + ".a" * 40 + "]\nb"])
def test_long_keys_are_refused_before_they_are_parsed(tmp_path, key):
    with pytest.raises(RecipeError, match="keys of at most 32 parts"):
        read(tmp_path, f"{key} = 1\n".encode())


def test_dots_in_text_are_no_keys(tmp_path):
    text = "notes = '''" + "1.5, " * 100 + "and so on" + "." * 200 + "'''\n"
    assert read(tmp_path, text.encode()).notes.endswith("....")


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**100])
def test_integers_have_64_bits(tmp_path, value):
    with pytest.raises(RecipeError, match="seeds: expected an integer of 64 bits"):
        read(tmp_path, f"seeds = {value}\n".encode())


def test_line_breaks_and_tabs_are_no_control_characters(tmp_path):
    assert read(tmp_path, b'notes = "a\\tb\\nc"\n').notes == "a\tb\nc"
    for code in ("0000", "0007", "001b", "007f", "009b"):
        with pytest.raises(RecipeError, match="without control characters"):
            read(tmp_path, f'notes = "\\u{code}"\n'.encode())
