"""Trained parameters that are kept: packed by a worker, written by the driver; whole files or none."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fanin.datasets import atomic


def path_of(folder: Path, trial_id: str) -> Path:
    """Where a study folder has a trial's parameters."""
    return folder / "weights" / f"{trial_id}.safetensors"


def write(folder: Path, trial_id: str, content: bytes) -> None:
    """Keep a trial's parameters in a study folder, atomically; DataError if they cannot be written."""
    path = path_of(folder, trial_id)
    atomic.make_folder(path.parent)
    atomic.write(path, content)


def sweep(folder: Path) -> None:
    """Remove what a driver that was killed while it wrote has left; only for the folder's one writer."""
    for leftover in (folder / "weights").glob(".*.part"):
        with contextlib.suppress(OSError):
            leftover.unlink()
