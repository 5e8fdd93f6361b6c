"""A run's time limit: how it is written, and how much of it is left."""

from __future__ import annotations

import re
import time

from fanin.errors import FaninError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
# Kept back of a limit, for ending workers and closing the store: a tenth, but no more than this.
_MARGIN_SECONDS = 15.0


class TimeUp(FaninError):  # noqa: N818 - an end, and no error of anybody's
    """The time limit is near; what was finished is in the store, and the same call goes on from there."""


def seconds_of(text: str) -> float:
    """Seconds of a duration such as 90s, 30m, 2h or 1h30m; FaninError for anything else."""
    parts = _PART.findall(text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise FaninError(f"time limit: expected a duration such as 90s, 30m, 2h or 1h30m; got {text!r}")
    return seconds


class Deadline:
    """The moment at which a run stops, so that it is over within its limit; None is never."""

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise FaninError(f"time limit: expected more than 0 seconds; got {seconds}")
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds - min(seconds / 10, _MARGIN_SECONDS)

    def left(self) -> float | None:
        """Seconds left, 0 when there are none; None without a limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """TimeUp if nothing is left."""
        if self.left() == 0:
            raise TimeUp(
                f"the time limit of {self._seconds:g} s is reached; finished trials are kept, and the same call goes on"
            )
