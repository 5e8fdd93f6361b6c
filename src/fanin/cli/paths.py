"""Files and folders on the command line."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from fanin.errors import FaninError


def path(_: type, tokens: Sequence[Token]) -> Any:
    """A path; an empty one, such as that of an unset variable, would be taken for the current folder."""
    text = name(_, tokens)
    if not text.strip():
        raise ValueError(f"expected a path; got {text!r} (. is the current folder)")
    return Path(text)


def name(_: type, tokens: Sequence[Token]) -> Any:
    """Text that may be a path, if a file could be called so: questions about others raise, from whoever asks them."""
    text = tokens[0].value
    try:
        os.stat(text)  # noqa: PTH116 - the text as it was given
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(f"expected a path; got one that is too long, {text[:40]!r}...") from None
    return text


Place = Annotated[Path, Parameter(converter=path)]
Name = Annotated[str, Parameter(converter=name)]


def is_file(given: Path) -> bool:
    """Whether it is a file; no where that cannot be seen, as in a folder of somebody else's, where Path's raises."""
    return os.path.isfile(given)


def is_folder(given: Path) -> bool:
    """Whether it is a folder; no where that cannot be seen."""
    return os.path.isdir(given)


def check_file(flag: str, given: Path | None, such_as: str) -> None:
    """FaninError where a file that is to be written cannot have this path: said before the work, not after it."""
    if given is None:
        return
    if is_folder(given):
        raise FaninError(f"{flag} {given}: expected the path of a file to write, such as {such_as}; got a folder")
    if file := next(filter(is_file, given.parents), None):
        raise FaninError(f"{flag} {given}: cannot be written, for {file} is a file and no folder; choose another path")


def check_folder(flag: str, given: Path | None) -> None:
    """FaninError where a folder that is to be filled is a file, or would lie in one."""
    if given is not None and (file := next(filter(is_file, [given, *given.parents]), None)):
        what = "is a file" if file == given else f"cannot be written, for {file} is a file"
        raise FaninError(f"{flag} {given}: {what}; expected a folder, new or of an earlier run")
