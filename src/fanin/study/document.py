"""A study's TOML file as plain data: read within bounds, and refused where nobody can have meant it."""

from __future__ import annotations

import errno
import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fanin.errors import RecipeError

MAX_FILE = 2**20  # bytes: no study that somebody wrote comes near

_MAX_DEPTH = 32  # tables and lists within each other, and names in one dotted key
_PART_OF_KEY = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART_OF_KEY}[ \t]*+\.[ \t]*+){{{_MAX_DEPTH}}}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # such as ESC, by which a text would command a terminal


def read_document(path: Path) -> dict[str, Any]:
    """What a TOML file says, as plain data; RecipeError for what is no TOML, or what nobody writes in a study."""
    text = _text(path)
    if _LONG_KEY.search(text):  # tomllib's time grows with the square of a key's parts
        raise RecipeError(f"{path}: expected keys of at most {_MAX_DEPTH} parts with dots between; got a longer one")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise RecipeError(f"{path}: expected at most {_MAX_DEPTH} levels of tables and lists; got far more") from None
    except ValueError as error:  # no TOML, or int()'s own for thousands of digits
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    found = list(itertools.islice(_strange(data), 10))
    if found:
        raise RecipeError("\n".join(f"{path}: {line}" for line in found))
    return data


def _text(path: Path) -> str:
    """The file's UTF-8 text, line ends as \\n and without a byte-order mark."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "a pipe or a device, which might never end")
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte within the path
        words = getattr(error, "strerror", None) or error
        raise RecipeError(f"{path}: cannot be read ({words}); expected a study in TOML") from None
    if len(content) > MAX_FILE:
        raise RecipeError(f"{path}: expected a study in TOML of at most {MAX_FILE:,} bytes; got more: is it the file?")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _strange(value: Any, key: str = "", depth: int = 0) -> Iterator[str]:
    """Problems of any TOML data: too deep, integers that are not TOML's 64 bits, control characters in text."""
    if isinstance(value, dict | list):
        if depth > _MAX_DEPTH:
            yield f"{key[:80]}...: expected at most {_MAX_DEPTH} levels of tables and lists; got more"
            return
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _strange_text(str(name), f"{key or 'the file'}: its key")
            yield from _strange(item, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(value, str):
        yield from _strange_text(value, key)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{key}: expected an integer of 64 bits, as TOML has them; got one of {value.bit_length()} bits"


def _strange_text(text: str, where: str) -> Iterator[str]:
    if bad := _CONTROL.search(text):
        yield f"{where!r}: expected text without control characters; got {bad[0]!r} at position {bad.start()}"
