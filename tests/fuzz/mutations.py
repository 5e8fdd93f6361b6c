"""Bytes to feed: arbitrary ones, and valid files of a reader that were cut, changed, repeated or given odd parts."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.readers import READERS

# what breaks readers: ends of number ranges, depth, encodings, words that mean something
_ODD = (
    b"\x00", b"\xff", b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7), bytes(8), b"-1", b"9" * 5000,
    b"1e999", b"nan", b"inf", b"-0", b"1_000", b"[" * 2000, b"(" * 300, b"-" * 5000, b"{'a':" * 500, b"a." * 1000,
    b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b'"', b"'", b",", b";", b"\t", b"=", b"\xed\xa0\x80", b"\x1b[2J", b"../",
    b"0x" + b"f" * 4000, b"1979-05-27", b"true", b"None", b"x99", b"\x1f\x8b", b"PK\x01\x02", b"\\u0000", b"|O", b"<f8",
)  # fmt: skip


@st.composite
def _mutated(draw: st.DrawFn, name: str) -> bytes:
    content = bytearray(draw(st.sampled_from(READERS[name].seeds())))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        end = at + draw(st.integers(0, 16))
        match draw(st.sampled_from(("change", "odd", "cut", "drop", "repeat", "bytes"))):
            case "change":
                content[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "odd":
                content[at : draw(st.sampled_from((at, end)))] = draw(st.sampled_from(_ODD))
            case "cut":
                del content[at:]
            case "drop":
                del content[at:end]
            case "repeat":
                content[at:at] = content[at:end] * draw(st.integers(1, 100))
            case "bytes":
                content[at:end] = draw(st.binary(max_size=16))
    return bytes(content)


def files(name: str) -> st.SearchStrategy[bytes]:
    """Files for the reader of that name, most of them nearly valid."""
    return st.one_of(_mutated(name), _mutated(name), _mutated(name), st.binary(max_size=300))
