"""Standard output and standard error where they may take nothing more: full disks, closed streams, gone readers."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from fanin.errors import FaninError

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def shown() -> Iterator[None]:
    """For what is printed: FaninError if it cannot be, but for a reader that has gone away, which is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except UnicodeEncodeError as error:
        raise FaninError(
            f"standard output cannot show {error.object[error.start]!a} ({error.encoding}); set PYTHONIOENCODING=utf-8"
        ) from None
    except OSError as error:
        sys.stdout = silence()  # so that closing it is quiet
        raise FaninError(f"standard output cannot be written ({error.strerror}); write elsewhere") from None


def patient_console() -> Console:
    """A console on standard error that falls silent where nothing can be written: a run is worth more than its log."""
    from fanin.cli.progress import stderr

    console = stderr()
    console.file = cast("IO[str]", _Patient())
    return console


def say(console: Console, words: str) -> None:
    """Print words as they are."""
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def silence() -> TextIO:
    """What stands in for a stream that takes nothing more."""
    return cast("TextIO", _Silence())


class _Silence(io.TextIOBase):
    def write(self, text: str, /) -> int:
        return len(text)


class _Patient:
    """Standard error until it takes nothing more, and silence from then on."""

    def __init__(self) -> None:
        self._file: TextIO = sys.stderr or silence()  # None where it is closed

    def write(self, text: str) -> int:
        return self._try(lambda: self._file.write(text))

    def flush(self) -> None:
        self._try(self._file.flush)

    def _try(self, do: Callable[[], int | None]) -> int:
        try:
            return do() or 0
        except (OSError, ValueError):  # a full disk, a terminal or a reader that has gone, a closed file
            self._file = sys.stderr = silence()
            return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
