"""How much data may hold once unpacked: every bound that guards memory, in one place, and how a user raises it."""

from __future__ import annotations

import os

from fanin.errors import DataError

MAX_BYTES = 4 * 2**30  # the most that one array, or one text, may take once unpacked
MAX_RATIO = 200  # times its packed size that a file may unpack to; MNIST's reaches 10, deflate's most is 1032
FREE_BYTES = 2**26  # so much may come of any file, whatever its ratio: it fills no memory
MAX_PIXELS = 2**26  # of one picture; decoded with transparency it takes 12 bytes a pixel
MAX_COLUMNS = 2**20  # of a table
MAX_HEADER = 10_000  # bytes of an .npy header: numpy's own bound, which it checks only after reading so many

BYTES_VARIABLE, RATIO_VARIABLE = "FANIN_MAX_BYTES", "FANIN_MAX_RATIO"


def max_bytes() -> int:
    """The most bytes of one array: MAX_BYTES, or FANIN_MAX_BYTES of the environment; DataError if that is no number."""
    return _chosen(BYTES_VARIABLE, MAX_BYTES)


def max_ratio() -> int:
    """The highest ratio of unpacked to packed size: MAX_RATIO, or FANIN_MAX_RATIO of the environment."""
    return _chosen(RATIO_VARIABLE, MAX_RATIO)


def check_size(where: str, size: int, packed: int | None = None) -> None:
    """DataError if `size` > max_bytes(), or if `size` > max(FREE_BYTES, max_ratio() * packed).

    size: bytes unpacked, promised or counted so far; packed: of the file that they come from, None if it is not packed.
    """
    if size > max_bytes():
        raise DataError(
            f"{where}: {size:,} bytes, more than the {max_bytes():,} that fanin reads; it is corrupt, or must be cut "
            f"down; if memory is enough, raise the limit by the environment variable {BYTES_VARIABLE}"
        )
    if packed is not None and size > max(FREE_BYTES, max_ratio() * packed):
        raise DataError(
            f"{where}: {packed:,} bytes unpack to {size:,} or more, expected at most {max_ratio()} times as many: it "
            "may be made to fill the memory; if you trust it, unpack it, or raise the limit by the environment "
            f"variable {RATIO_VARIABLE}"
        )


def _chosen(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) > 0):
        raise DataError(f"{variable}: expected a whole number from 1, such as {default}; given {text!r}; set it so")
    return int(text)
