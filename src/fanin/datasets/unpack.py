"""Bounded reading of plain and gzip files: never more bytes than asked for, every failure a `DataError`."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from fanin.errors import DataError, nearest

MAX_BYTES = 4 * 2**30  # the most that one array may take once unpacked
_CHUNK = 2**20
_DEFLATE_RATIO = 1032  # deflate cannot pack tighter, so a promise beyond it is false


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The file's plain bytes as a stream, gunzipped if its first bytes (not its name) say gzip."""
    require_file(path)
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not packed:
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as stream:
                yield cast("BinaryIO", stream)
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: corrupt gzip file ({error}); copy or download it again") from error
    except EOFError as error:
        raise DataError(f"{path}: gzip file cut off before its end; copy or download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def require_file(path: Path) -> None:
    """Refuse what is not a regular file, with the nearest spelling in its folder."""
    if path.is_file():
        return
    if path.exists():
        raise DataError(f"{path}: expected a file, given a folder or a device")
    raise DataError(f"{path}: no such file or folder{neighbour(path)}")


def neighbour(path: Path) -> str:
    """`"; did you mean 'iris.csv'?"` from what lies in the path's folder, or why nothing can lie there."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f" (nor is there a folder {path.parent})"
    return nearest(path.name, names)


def check_promise(path: Path, header: int, promised: int) -> None:
    """Refuse, before any memory is taken, a header that promises more than the cap or the file can hold."""
    if promised > MAX_BYTES:
        raise DataError(
            f"{path}: its header promises {promised:,} bytes, more than the {MAX_BYTES:,} that fanin reads; "
            "the header is corrupt, or the data must be cut down first"
        )
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    size = path.stat().st_size
    if not packed and size != header + promised:
        kind = "truncated" if size < header + promised else "longer than its header says"
        raise DataError(
            f"{path}: {kind}: expected {header + promised:,} bytes ({header} of header, {promised:,} "
            "of data), "
            f"actual size {size:,}; copy or download it again"
        )
    if packed and promised > _DEFLATE_RATIO * size:
        raise DataError(
            f"{path}: truncated or corrupt: expected {promised:,} bytes of data, "
            f"but {size:,} bytes of gzip cannot hold so much; copy or download it again"
        )


def take(stream: BinaryIO, count: int, path: Path, done: int = 0) -> bytearray:
    """Exactly `count` further bytes; memory grows with what is really there, never with what is promised."""
    data = bytearray()
    try:
        while len(data) < count and (chunk := stream.read(min(_CHUNK, count - len(data)))):
            data += chunk
    except EOFError:  # gzip's word for a file cut off; the bytes so far tell the user more
        pass
    if len(data) < count:
        raise DataError(
            f"{path}: truncated: expected {done + count:,} bytes, actual {done + len(data):,} "
            f"(it ends at offset {done + len(data):,}); copy or download it again"
        )
    return data


def expect_end(stream: BinaryIO, path: Path, total: int) -> None:
    """Refuse bytes after the promised end; for gzip this also checks the checksum."""
    if stream.read(1):
        raise DataError(f"{path}: expected {total:,} bytes, but there are more; the header is wrong or corrupt")
