"""Worker processes as /proc shows them, and waiting for what becomes of them."""

from __future__ import annotations

import time
from pathlib import Path


def workers_of(pid):
    """Process ids of a process's workers."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and int(stat_of(folder.name)[1]) == pid:
                command = (folder / "cmdline").read_bytes()
                found += [int(folder.name)] if b"fanin.driver.worker" in command else []
        except OSError:
            pass  # it has just ended
    return found


def stat_of(pid):
    """Fields of /proc/PID/stat behind the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def alive(pid):
    try:
        return stat_of(pid)[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=60):
    """What the condition says as soon as that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")
