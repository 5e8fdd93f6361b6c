"""Check-points: what a stack has come to between two epochs, kept in files that are whole or not there.

A check-point is a folder named by its trials' identities. Its `state.json` holds what is plain (trials, epoch, what it
ran on, records so far) and names the safetensors file that holds the tensors; both have a checksum. Each file is
written aside, brought to the disk and renamed; the JSON comes last, and only then the earlier tensors are removed.
torch is loaded only where tensors are written or read, so that the driver can ask whose check-points there are.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from fanin.datasets import atomic
from fanin.errors import DataError
from fanin.recipe import digest

if TYPE_CHECKING:
    from torch import Tensor

FILE = "state.json"
FORMAT = 1
_TENSOR = "tensor"  # {"tensor": NAME} in the JSON stands for a tensor of the other file
_SHARE = 20  # writing takes at most about a twentieth of the time, however slow the disk is


class UnusableError(Exception):
    """A check-point that cannot be gone on from, and why."""


@dataclass(frozen=True)
class Kept:
    """A check-point's content: trials by their identities, epochs done, and the stack's state (see write)."""

    trials: list[str]
    epoch: int
    runs_on: dict[str, Any]
    state: dict[str, Any]


class Checkpoint:
    """Where one stack leaves its state, and when: after an epoch that ends `seconds` or more after the last time.

    seconds: 0 is after every epoch; a disk that takes long is used less often. runs_on: what must be the same for bits
    to be the same (versions, processor, matmul path, ...), as plain data. notice: hears, in words, of what a user
    should know: a check-point that is gone on from, or cannot be used, or cannot be written. ours: whether the folder
    is still this run's, asked before each writing: a worker may outlive its driver by an epoch, while another run
    goes on from what is there.
    """

    def __init__(
        self,
        root: Path,
        trials: Sequence[str],
        *,
        seconds: float,
        runs_on: Mapping[str, Any],
        notice: Callable[[str], object],
        ours: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder, self._trials = root / name_of(trials), list(trials)
        self._seconds, self._runs_on, self._notice, self._ours = seconds, dict(runs_on), notice, ours
        self._next = time.monotonic() + seconds
        self._writable = True

    def load(self) -> Kept | None:
        """What the stack had come to; None if there is nothing, or nothing of use here."""
        try:
            kept = read(self._folder)
            if kept is not None:
                self._check(kept)
        except UnusableError as error:
            self.refuse(str(error))
            return None
        return kept

    def _check(self, kept: Kept) -> None:
        if kept.trials != self._trials:
            raise UnusableError("it is of other trials")
        keys = sorted({*kept.runs_on, *self._runs_on})
        pairs = ((key, kept.runs_on.get(key), self._runs_on.get(key)) for key in keys)
        if changed := "; ".join(f"{key} {before}, now {now}" for key, before, now in pairs if before != now):
            raise UnusableError(f"it was left on something else: {changed}")

    def accept(self, kept: Kept) -> None:
        """Say that the stack goes on from what was loaded."""
        self._notice(f"{self._named()}: goes on after epoch {kept.epoch}, from its check-point")

    def refuse(self, why: str) -> None:
        """Remove a check-point that is of no use, and say so."""
        remove(self._folder)
        self._notice(f"{self._named()}: its check-point is not used, and it starts anew: {why}")

    def offer(self, epoch: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write `state()`, if it is time; what cannot be written costs the check-point and nothing else."""
        begun = time.monotonic()
        if not self._writable or begun < self._next or not self._ours():
            return
        try:
            write(self._folder, Kept(self._trials, epoch, self._runs_on, state()))
        except (DataError, OSError, MemoryError) as error:
            self._writable = False
            self._notice(f"{self._named()}: no check-points are written: {error}")
        now = time.monotonic()
        self._next = now + (self._seconds and max(self._seconds, _SHARE * (now - begun)))

    def _named(self) -> str:
        return f"trial {self._trials[0]}" + (" and its stack" if len(self._trials) > 1 else "")


def name_of(trials: Sequence[str]) -> str:
    """The name of the check-point of a stack of these trials in this order: 16 hex digits."""
    return digest(list(trials))


def write(folder: Path, kept: Kept) -> None:
    """Keep a stack's state in `folder`, in the place of an earlier one; DataError if it cannot be written.

    kept.state: mappings with names, and lists, of tensors and plain values (numbers, names, None).
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    state = _packed(kept.state, "state", tensors)
    content = save(tensors)
    file = _tensors_of(kept.epoch)
    body = {"format": FORMAT, "trials": kept.trials, "epoch": kept.epoch, "runs_on": kept.runs_on}
    text = json.dumps(body | {"tensors_checksum": crc32(content), "state": state})
    atomic.make_folder(folder)
    atomic.write(folder / file, content)
    atomic.write(folder / FILE, f'{{"checksum": {crc32(text.encode())}, "content": {text}}}\n'.encode())
    for leftover in folder.iterdir():
        if leftover.name not in (file, FILE):
            with suppress(OSError):
                leftover.unlink()


def read(folder: Path) -> Kept | None:
    """What `write` has kept; None if there is nothing, UnusableError if it is not what was written."""
    body = _body(folder)
    if body is None:
        return None
    from safetensors.torch import load

    path = folder / _tensors_of(body["epoch"])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableError(f"{path}: cannot be read ({error.strerror})") from None
    if crc32(content) != body.get("tensors_checksum"):
        raise UnusableError(f"{path}: damaged")
    try:
        return Kept(body["trials"], body["epoch"], dict(body["runs_on"]), _unpacked(body["state"], load(content)))
    except Exception as error:  # whoever wrote these, it was not this version of fanin
        raise UnusableError(f"{path}: cannot be read ({error})") from None


def trials_of(folder: Path) -> list[str]:
    """The trials of a check-point in their order; none if it is not complete, UnusableError if it cannot be read."""
    body = _body(folder)
    return body["trials"] if body else []


def remove(folder: Path) -> None:
    """Remove a check-point, if there is one."""
    shutil.rmtree(folder, ignore_errors=True)


def _tensors_of(epoch: int) -> str:
    """The name of the tensors' file: another one for each epoch, so that the JSON never names one half replaced."""
    return f"{epoch}.safetensors"


def _body(folder: Path) -> dict[str, Any] | None:
    """The plain part of a check-point."""
    path = folder / FILE
    try:
        sealed = json.loads(path.read_bytes())
        body, checksum = sealed["content"], sealed["checksum"]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UnusableError(f"{path}: damaged") from None
    if crc32(json.dumps(body).encode()) != checksum:
        raise UnusableError(f"{path}: damaged")
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise UnusableError(f"{path}: written by another version of fanin")
    if not (_is_list_of_names(body.get("trials")) and isinstance(body.get("epoch"), int) and "state" in body):
        raise UnusableError(f"{path}: not a check-point")  # and no path but ours is made of it
    return body


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as plain data; its tensors are put into `tensors`, by names that say where they stood."""
    from torch import Tensor

    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _packed(part, f"{name}.{key}", tensors) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(part, f"{name}.{i}", tensors) for i, part in enumerate(value)]
    return value


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_packed` was given; each tensor in memory of its own, placed as torch places tensors."""
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]].clone()
        return {key: _unpacked(part, tensors) for key, part in value.items()}
    if isinstance(value, list):
        return [_unpacked(part, tensors) for part in value]
    return value
