"""A study folder's file as SQLite and the file system know it: opened, with a log or a journal, gone, not readable."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

from fanin.errors import StoreError
from fanin.store import schema

FILE = "fanin.sqlite"
LOCK = ".lock"
# File systems whose other machines do not see a write-ahead log's shared memory, by their names in mountinfo.
_NETWORKED = re.compile(
    r"nfs4?|cifs|smb\w+|9p|afs|ceph|lustre|gpfs|beegfs|orangefs|pvfs2|glusterfs|virtiofs"
    r"|fuse\.(glusterfs|sshfs|s3fs|ceph|juicefs)"
)


def connected(folder: Path, *, writing: bool) -> sqlite3.Connection:
    """A connection to the folder's file, its schema made or checked; closed again if that fails."""
    path = folder / FILE
    if writing:
        db = sqlite3.connect(path.absolute(), timeout=30, isolation_level=None)  # "file:" would begin a URI
    else:
        # a finished file in a folder that may not be written has no log to make
        alone = "" if _is_writable(folder) or _has_log(folder) else "&immutable=1"
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{alone}", uri=True, timeout=30)
    try:
        if writing:
            _choose_journal(db, folder)
            db.execute("PRAGMA foreign_keys = ON")
            schema.prepare(db)
        schema.check(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _is_writable(folder: Path) -> bool:
    """Whether files may be made there, by the rights that this process has taken on."""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _has_log(folder: Path) -> bool:
    """Whether the latest trials are in a log beside the file; one that is empty has been taken in."""
    try:
        return (folder / f"{FILE}-wal").stat().st_size > 0
    except OSError:
        return False


def identity(path: Path) -> tuple[int, int] | None:
    """Which file it is, whatever its name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _choose_journal(db: sqlite3.Connection, folder: Path) -> None:
    """A write-ahead log where it works, with which a power cut loses the latest trials at most; else a journal."""
    if not _NETWORKED.fullmatch(file_system(folder)):
        try:
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError:  # no shared memory or no locks of its kind
            mode = ""
        if mode == "wal":
            db.execute("PRAGMA synchronous = NORMAL")
            return
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA synchronous = FULL")  # a journal that is not synchronised can spoil the file


def notice_of(db: sqlite3.Connection, folder: Path) -> str | None:
    """What a user should know of how results are kept, if it is not by a log."""
    if db.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return None
    return (
        f"{folder}: a write-ahead log does not work on this file system ({file_system(folder)}); results are kept with "
        "a journal instead, which is as safe and slower"
    )


def file_system(folder: Path, mounts: str | None = None) -> str:
    """The type of file system that a folder lies on, such as ext4 or nfs4; "unknown" where the system does not say.

    mounts: the content of /proc/self/mountinfo, by default this system's.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape") if mounts is None else mounts
    except OSError:  # not Linux
        return "unknown"
    place, best, found = folder.absolute().resolve(), -1, "unknown"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), before.split()[4]))  # a space is \040
        if place.is_relative_to(point) and len(point.parts) >= best:  # a later mount hides an earlier one
            best, found = len(point.parts), after.split()[0]
    return found


def others(folder: Path) -> str:
    """Study folders in or beside `folder`, for somebody who meant one of them."""
    roots = [root for root in (folder, folder.parent) if os.path.isdir(root)]
    found = sorted({path.parent for root in roots for path in root.glob(f"*/{FILE}")})
    return f"; there are {', '.join(map(str, found[:10]))}" if found else ""


def unreadable(folder: Path, error: sqlite3.Error) -> StoreError:
    """What stands in the way of reading it."""
    if _has_log(folder) and not _is_writable(folder):
        return StoreError(
            f"{folder / FILE}: cannot be read where nothing may be written, since its run was killed and left a log "
            f"({error}); copy the folder to where you may write, and read it there"
        )
    return StoreError(
        f"{folder / FILE}: cannot be read as a fanin store ({error}); restore it, or run into a new folder"
    )
