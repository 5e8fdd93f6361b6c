"""The check-points of a study folder: where workers write them, who is to go on from them, when they are removed.

They lie in `checkpoints`, one folder for each stack (engine.checkpoint). A run leaves a random word there, its token,
and tells it to the workers with the folder's path: a worker that finds the token at that path has the same folder
before it, on whatever machine it is, and uses it; any other trains without check-points.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from fanin.datasets import atomic
from fanin.driver.messages import Place
from fanin.engine.checkpoint import Checkpoint, UnusableError, name_of, remove, trials_of

FOLDER = "checkpoints"
SECONDS = 60.0  # of work that a stack may lose
_MARK = ".run"  # the file with the token


def prepare(folder: Path) -> Place:
    """A study folder made ready for a run's check-points; DataError if it cannot be."""
    place = Place(folder.absolute() / FOLDER, secrets.token_hex(16), SECONDS)
    atomic.make_folder(place.folder)
    atomic.write(place.folder / _MARK, place.token.encode())
    return place


def sweep(
    place: Place, finished: Callable[[list[str]], Collection[str]], notice: Callable[[str], object]
) -> list[list[str]]:
    """Remove check-points that nobody can go on from: some of their trials are finished, or they cannot be read.

    Returns the trials of each that is left, in its stack's order. finished: those of some trials that are.
    """
    stacks: dict[Path, list[str]] = {}
    for folder in sorted(path for path in place.folder.iterdir() if path.is_dir()):
        try:
            stacks[folder] = trials_of(folder)
        except UnusableError as error:
            notice(f"a check-point is not used, and its trials start anew: {error}")
            stacks[folder] = []
    done = set(finished([*chain.from_iterable(stacks.values())]))  # asked once: the store looks through all it has
    for folder in [folder for folder, trials in stacks.items() if not trials or not done.isdisjoint(trials)]:
        remove(folder)
        del stacks[folder]
    return list(stacks.values())


def exists(place: Place, ids: Sequence[str]) -> bool:
    """Whether the stack of these trials has a check-point."""
    return (place.folder / name_of(ids)).is_dir()


def forget(place: Place, ids: Sequence[str]) -> None:
    """Remove the check-points of a stack that is recorded, and of its trials where they were trained alone."""
    for stack in (ids, *([i] for i in ids)):
        folder = place.folder / name_of(stack)
        if folder.is_dir():  # seldom: most trials are short
            remove(folder)


def close(place: Place) -> None:
    """The run is at its end: a folder without check-points goes."""
    with suppress(OSError):
        (place.folder / _MARK).unlink()
        place.folder.rmdir()


def of_stack(
    place: Place | None,
    ids: Sequence[str],
    *,
    share: int,
    runs_on: Mapping[str, Any],
    notice: Callable[[str], object],
) -> Checkpoint | None:
    """For a worker: the check-point of a stack, one of `share` of its task; None if the folder is not before it."""
    if place is None or not _reached(place):
        return None
    seconds = place.seconds / share  # what is finished before the last one of them has no record yet
    ours = partial(_reached, place)
    return Checkpoint(place.folder, ids, seconds=seconds, runs_on=runs_on, notice=notice, ours=ours)


def _reached(place: Place) -> bool:
    try:
        return (place.folder / _MARK).read_text() == place.token
    except (OSError, ValueError):
        return False
