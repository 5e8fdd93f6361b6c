"""Bounded reading of plain and gzip files: never more bytes than asked for, every failure a `DataError`."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from fanin.datasets.limits import check_size
from fanin.errors import DataError, nearest

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
                yield cast("BinaryIO", _Watched(stream, path))
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: corrupt gzip file ({error}); copy or download it again") from error
    except EOFError as error:
        raise DataError(f"{path}: gzip file cut off before its end; copy or download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


class _Watched(io.BufferedIOBase):
    """A gzip stream that stops with a `DataError` where more comes out of it than `limits` allows."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self._stream, self._path, self._packed, self._done = stream, path, path.stat().st_size, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self._counted(self._stream.read(size))

    def read1(self, size: int = -1, /) -> bytes:
        return self._counted(self._stream.read1(size))

    def _counted(self, data: bytes) -> bytes:
        self._done += len(data)
        check_size(str(self._path), self._done, self._packed)
        return data


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
    except (OSError, ValueError):  # ValueError: a zero byte within the name
        return f" (nor is there a folder {path.parent})"
    return nearest(path.name, names)


def check_promise(path: Path, header: int, promised: int) -> None:
    """Refuse, before any memory is taken, a header that promises more than `limits` allow or the file can hold."""
    where = f"{path}, as its header promises"
    check_size(where, promised)
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
    check_size(where, promised, size if packed else None)


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
