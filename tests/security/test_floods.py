"""Small files that ask for much are refused, in bounded memory and time; and the limits can be raised."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fanin.datasets import load
from fanin.datasets.idx import read_idx
from fanin.datasets.limits import BYTES_VARIABLE, FREE_BYTES, MAX_BYTES, MAX_RATIO, RATIO_VARIABLE, check_size
from fanin.errors import DataError

PROGRAM = Path(__file__).with_name("floods.py")
MEMORY = 1_500_000_000  # bytes of address space, the interpreter's and numpy's own among them
SECONDS = 10.0  # of the processor, for one file

# what the message must say
EXPECTED = {
    "gzip_of_zeros_as_idx": "raise the limit by the environment variable FANIN_MAX_RATIO",
    "gzip_of_zeros_as_csv": "raise the limit by the environment variable FANIN_MAX_RATIO",
    "one_long_label_in_many_rows": "READ",
    "a_row_over_endless_lines": "longer than 16,777,216 characters",
    "millions_of_columns": "expected at most 1,048,576 columns",
    "zip_of_zeros_as_npz": "raise the limit by the environment variable FANIN_MAX_RATIO",
    "an_npy_header_of_gigabytes": "promises to be 2,147,483,648 bytes long",
    "a_dictionary_of_gigabytes": "expected it stored or deflated, given zip method 14",
    "an_npy_header_nested_deep": "its header is corrupt",
    "a_sparse_npy_of_exabytes": "truncated: expected",
    "a_picture_of_billions_of_pixels": "make the picture smaller",
    "seeds_without_end": "expected at most 1,000,000 trials",
    "a_grid_of_trillions": "expected at most 2 keys",
    "a_grid_of_millions": "10,000 arms in all; got 2 keys, 4,000,000 arms",
    "more_arms_than_anybody_compares": "arms: expected at most 10,000; got 100,000",
    "a_key_of_many_parts": "keys of at most 32 parts",
    "tables_within_tables": "at most 32 levels",
    "a_study_of_megabytes": "at most 1,048,576 bytes",
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> dict[str, tuple[float, str]]:
    """Each flood's processor seconds and message, all read by one process of bounded memory."""
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(MEMORY)],
        cwd=tmp_path_factory.mktemp("floods"),
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    found = {name: (float(seconds), said) for name, seconds, said in rows}
    assert done.returncode == 0, f"{done.stderr[-2000:]}\nafter {list(found)}"
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_a_flood_is_refused_in_little_time_and_memory(ended, name):
    seconds, said = ended[name]
    assert EXPECTED[name] in said
    assert seconds < SECONDS


def test_every_flood_is_expected(ended):
    assert list(ended) == list(EXPECTED)


def test_the_bound_on_memory_holds(tmp_path):
    """Under the same bound, reading what the readers refuse does fail."""
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2); bytearray(2 * 10**9)"
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", code, str(MEMORY)], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr


def test_limits_stand_where_they_are_stated():
    check_size("it", MAX_BYTES)
    check_size("it", FREE_BYTES, packed=1)
    check_size("it", 2**30, packed=2**30 // MAX_RATIO + 1)
    with pytest.raises(DataError, match=f"it: .* more than the .*{BYTES_VARIABLE}"):
        check_size("it", MAX_BYTES + 1)
    with pytest.raises(DataError, match=f"it: 1 bytes unpack to .*at most {MAX_RATIO} times.*{RATIO_VARIABLE}"):
        check_size("it", FREE_BYTES + 1, packed=1)


def test_limits_can_be_raised_and_lowered(tmp_path, monkeypatch):
    path = tmp_path / "x-idx1-ubyte.gz"
    count = FREE_BYTES + 1
    path.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, count) + bytes(count), compresslevel=1))
    with pytest.raises(DataError, match=RATIO_VARIABLE):
        read_idx(path)
    monkeypatch.setenv(RATIO_VARIABLE, "2000")
    assert read_idx(path).shape == (count,)
    monkeypatch.setenv(BYTES_VARIABLE, str(count - 1))
    with pytest.raises(DataError, match=BYTES_VARIABLE):
        read_idx(path)


@pytest.mark.parametrize("text", ["4GB", "-1", "0", "1e9", "²", "9" * 5000])
def test_a_limit_that_is_no_number_is_named(tmp_path, monkeypatch, text):
    np.savez(tmp_path / "a.npz", X=np.eye(4), y=[0, 1, 0, 1])
    monkeypatch.setenv(BYTES_VARIABLE, text)
    with pytest.raises(DataError, match=f"{BYTES_VARIABLE}: expected a whole number from 1"):
        load(tmp_path / "a.npz")


def test_running_out_of_memory_is_a_message(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", X=np.eye(4), y=[0, 1, 0, 1])
    monkeypatch.setattr("fanin.datasets.npz.take", _no_memory)
    with pytest.raises(DataError, match="takes more memory than there is"):
        load(tmp_path / "a.npz")


def _no_memory(*_: object, **__: object) -> None:
    raise MemoryError
