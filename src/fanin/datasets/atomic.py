"""Files that appear whole or not at all, and a lock so that one process at a time fills a folder."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fanin.errors import DataError

_PART = ".part"  # a file being written; one left by a killed process is removed under the lock
_FULL = (None, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the name `path` only when all is on disk; on any failure it is removed."""
    name = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    try:
        with name.open("xb") as file:  # and not mkstemp, whose 0600 shuts out those whom the umask lets in
            yield file
            file.flush()
            os.fsync(file.fileno())
        name.replace(path)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    finally:
        with suppress(OSError):  # it has its name by now, or was never there
            name.unlink()


def write(path: Path, data: bytes | bytearray) -> None:
    """`data` as the whole content of `path`, atomically."""
    with writing(path) as file:
        file.write(data)


def make_folder(folder: Path) -> None:
    """The folder and its parents, or a `DataError` that says why not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> DataError:
    """What stands in the way of writing into `folder`: a full disk (with the free space) or a refusal."""
    if error.errno in _FULL:  # or None, of NumPy, which could not write all that it was to
        free = "unknown"
        with suppress(OSError):
            free = f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB"
        return DataError(
            f"{folder}: the disk is full ({error.strerror or error}; free space {free}); nothing was left behind: "
            "free some space, or choose another folder"
        )
    return DataError(
        f"{folder}: cannot be written ({error.strerror or error}); make the folder writable, or choose another"
    )


@contextmanager
def locked(folder: Path, *, patience: float = 900.0) -> Iterator[None]:
    """Sole use of `folder` among processes, after at most `patience` seconds; a dead owner holds nothing."""
    make_folder(folder)
    try:
        file = (folder / ".lock").open("ab")
    except OSError as error:
        raise unwritable(folder, error) from error
    with file:
        _acquire(file, folder, patience)  # closing the file releases it
        for leftover in folder.glob(f".*{_PART}"):
            with suppress(OSError):
                leftover.unlink()
        yield


def _acquire(file: BinaryIO, folder: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            _try_lock(file)
        except OSError as error:
            if error.errno not in _BUSY:
                return  # a file system without locks: atomic writes alone keep the files whole
        else:
            return
        if time.monotonic() > deadline:
            raise DataError(
                f"{folder}: another process has been filling this folder for {patience:.0f} s; "
                "wait for it or end it, then try again"
            )
        time.sleep(0.05)


def _try_lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        import msvcrt  # exists on Windows only

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # does not exist on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
