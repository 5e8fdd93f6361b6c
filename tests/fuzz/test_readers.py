"""Whatever bytes a file holds: a reader reads them or says in fanin's own words why not, and soon."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fanin.errors import DataError, FaninError
from tests.fuzz.mutations import files
from tests.fuzz.readers import READERS, Reader

pytestmark = pytest.mark.usefixtures("one_thread")

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
SECONDS = 5.0  # of the processor, for one small file
some = settings(
    max_examples=30, phases=[Phase.explicit, Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck)
)


def is_read(reader: Reader, content: bytes, folder: Path) -> bool:
    """Whether a reader takes the bytes; anything but a FaninError, or a long time, fails the test."""
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's of headers that an old Python wrote
            reader.read(content, folder)
    except FaninError:
        return False
    finally:
        assert time.process_time() - start < SECONDS
    return True


@pytest.mark.parametrize("name", READERS)
def test_the_files_to_start_from_are_valid(name, tmp_path):
    for i, content in enumerate(READERS[name].seeds()):
        assert is_read(READERS[name], content, tmp_path) or (name, i) in {("csv", 2), ("npy", 4), ("npz-array", 4)}


@pytest.mark.parametrize("name", READERS)
def test_whatever_the_bytes_only_fanins_errors_leave_a_reader(name, tmp_path):
    reader, seen = READERS[name], []

    @some
    @given(files(name))
    def check(content: bytes) -> None:
        seen.append(is_read(reader, content, tmp_path))

    check()
    assert not all(seen), "some of them must be bad, or nothing was tried"


def test_another_error_is_noticed(tmp_path):
    def careless(content: bytes, folder: Path) -> object:
        return content[0]

    with pytest.raises(IndexError):
        is_read(Reader(careless, tuple), b"", tmp_path)


def test_a_message_is_no_failure(tmp_path):
    def careful(content: bytes, folder: Path) -> object:
        raise DataError("expected more")

    assert not is_read(Reader(careful, tuple), b"", tmp_path)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40), row=st.integers(0, 9))
def test_any_label_of_a_table_is_a_class_of_its_own(tmp_path_factory, text, row):
    """What the reader makes of a cell is the cell, but for spaces around it and numbers' spelling."""
    name = text.replace('"', "").strip()
    if not name or any(ord(c) < 32 for c in name) or name.replace(".", "").lstrip("+-").isdigit():
        return
    lines = [f'{i},"{name if i == row else "other class"}"' for i in range(10)]
    content = ("a,label\n" + "\n".join(lines)).encode()
    from fanin.datasets import load

    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_bytes(content)
    assert set(load(path).classes) == {name, "other class"}


def test_the_program_fuzzes_and_counts(tmp_path):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--reader", "idx", "--minutes", "0.01", "--without-atheris"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "0 findings" in done.stdout
    assert list(tmp_path.glob("finding-*")) == []
