"""The IDX reader: any good file comes back, any bad one is a `DataError`, none costs more than its size."""

from __future__ import annotations

import contextlib
import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fanin.datasets import load
from fanin.datasets.idx import read_idx
from fanin.errors import DataError

from .conftest import CODES, idx_bytes, put, small_mnist

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
arrays = st.sampled_from(sorted(CODES)).flatmap(
    lambda code: hnp.arrays(np.dtype(code), hnp.array_shapes(max_dims=4, min_side=0, max_side=4))
)


@quick
@given(array=arrays, packed=st.booleans())
def test_round_trip(tmp_path, array, packed):
    path = tmp_path / "some-idx"
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    back = read_idx(path)
    assert back.dtype == array.dtype
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)


@quick
@given(array=arrays, packed=st.booleans(), data=st.data())
def test_any_truncation_is_a_data_error(tmp_path, array, packed, data):
    path = tmp_path / "some-idx"
    whole = gzip.compress(idx_bytes(array)) if packed else idx_bytes(array)
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match=r"some-idx"):
        read_idx(path)


@quick
@given(array=arrays, packed=st.booleans(), data=st.data())
def test_any_corruption_is_read_or_a_data_error(tmp_path, array, packed, data):
    path = tmp_path / "some-idx"
    bad = bytearray(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bad)
    tracemalloc.start()
    with contextlib.suppress(DataError):  # any other exception fails the test
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def header(code, *shape):
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape)


BAD = {
    "empty": (b"", ["truncated", "expected 4 bytes", "actual 0"]),
    "magic": (b"\x01\x02\x08\x01", ["not an IDX file", "offset 0", "01 02 08 01"]),
    "type": (b"\x00\x00\x07\x01", ["not an IDX file", "00 00 07 01"]),
    "dimensions": (b"\x00\x00\x08\x09", ["1 to 8 dimensions"]),
    "short": (header(8, 3) + b"ab", ["truncated", "expected 11 bytes", "actual size 10", "again"]),
    "long": (header(8, 3) + b"abcd", ["longer", "expected 11 bytes", "actual size 12"]),
    "absurd": (header(14, 2**32 - 1, 2**32 - 1), ["promises", "more than", "corrupt"]),
    "absurd but empty": (header(8, 0, *[2**32 - 1] * 4), ["promises"]),
    "gzip short": (gzip.compress(header(8, 3) + b"ab"), ["truncated", "expected 11", "actual 10"]),
    "gzip long": (gzip.compress(header(8, 3) + b"abcd"), ["expected 11", "there are more"]),
    "gzip absurd": (gzip.compress(header(8, 2**31)), ["truncated or corrupt", "cannot hold so much"]),
    "gzip bad": (b"\x1f\x8b" + b"junk" * 9, ["corrupt gzip", "again"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_say_why(tmp_path, case):
    content, words = BAD[case]
    path = tmp_path / "x-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_bomb_is_unpacked_no_further_than_its_header_promises(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(header(8, 3) + bytes(100_000_000), 1))
    tracemalloc.start()
    with pytest.raises(DataError, match="there are more"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_and_a_pair(tmp_path, packed):
    folder = put(tmp_path / "things", small_mnist(), packed=packed)
    data = load(str(folder))
    assert (data.name, len(data.train), len(data.test), data.image_shape) == ("things", 40, 20, (2, 3))
    end = ".gz" if packed else ""
    images, labels = (folder / f"train-{k}-ubyte{end}" for k in ("images-idx3", "labels-idx1"))
    pair = load(f"{images},{labels}")
    assert (len(pair.train), len(pair.test), pair.scale) == (32, 8, 1 / 255)
    assert pair.name == "train-images-idx3-ubyte"
    with pytest.raises(DataError, match="one dimension"):
        load(f"{labels},{images}")
    with pytest.raises(DataError, match="do not belong together"):
        load(f"{images},{folder / f't10k-labels-idx1-ubyte{end}'}")


def test_a_folder_without_test_part_holds_out(tmp_path):
    files = {k: v for k, v in small_mnist().items() if k.startswith("train")}
    data = load(str(put(tmp_path / "half", files)))
    assert (len(data.train), len(data.test)) == (32, 8)


@pytest.mark.parametrize(
    ("drop", "add", "words"),
    [
        ("train-labels-idx1-ubyte", None, ["no file of train labels", "add train-labels"]),
        ("t10k-images-idx3-ubyte", None, ["no file of test images"]),
        (None, "train2-images-idx3-ubyte", ["expected one IDX file of train images", "'images,labels'"]),
    ],
)
def test_incomplete_or_ambiguous_folders(tmp_path, drop, add, words):
    files = small_mnist()
    if drop:
        del files[drop]
    if add:
        files[add] = files["train-images-idx3-ubyte"]
    with pytest.raises(DataError) as caught:
        load(str(put(tmp_path / "odd", files)))
    for word in [str(tmp_path / "odd"), *words]:
        assert word in str(caught.value)
