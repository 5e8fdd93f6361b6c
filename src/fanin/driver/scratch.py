"""A run's temporary folder, and those of drivers that were killed, which the next run clears away."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fanin.errors import DataError

PREFIX = "fanin-data-"
_LOCK = "driver.lock"
_SECONDS_TO_LOCK = 60.0  # a folder as young may be one that its driver is about to lock


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder, gone afterwards; while it is there, this process holds a lock in it.

    The system lets go of a dead process's lock, so that a folder with a lock that nobody holds is a killed driver's.
    """
    sweep()
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    except OSError as error:
        raise DataError(
            f"no temporary folder can be made for the workers' data ({error.strerror or error}); free some space, set "
            "TMPDIR to another folder, or train in this process with --jobs 0"
        ) from None
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        with contextlib.suppress(OSError, NotImplementedError):  # no locks there: then nobody sweeps there either
            lock.acquire()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def sweep() -> None:
    """Clear away what killed drivers of this user left in the folder for temporary files; never what is held."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            if entry.name.startswith(PREFIX) and _abandoned(entry):
                shutil.rmtree(entry.path, ignore_errors=True)


def _abandoned(entry: os.DirEntry[str]) -> bool:
    try:
        found = entry.stat(follow_symlinks=False)
        known = entry.is_dir(follow_symlinks=False) and (Path(entry.path) / _LOCK).is_file()
        if not known or found.st_uid != os.getuid() or time.time() - found.st_mtime < _SECONDS_TO_LOCK:
            return False
        lock = FileLock(Path(entry.path) / _LOCK, timeout=0)
        with lock:  # whoever holds it lives
            return True
    except (OSError, NotImplementedError, Timeout):  # it has just gone, or there are no locks, or its driver lives
        return False
