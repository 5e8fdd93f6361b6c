"""Whose line a warning is about: the user's, not one of fanin's or PyTorch's."""

from __future__ import annotations

import sys

_NOT_USERS = frozenset(["fanin", "torch", "contextlib", "accelerate", "lightning", "pytorch_lightning"])


def users_level() -> int:
    """`stacklevel` for warnings.warn in the function that calls this: the first frame outward that is a user's.

    Frames of fanin, torch, and of the libraries whose loops call an optimiser are passed over, by the names of their
    modules. (`skip_file_prefixes`, which does so by file, came with Python 3.12.) 2, the caller, where all are such.
    """
    frame, level = sys._getframe(1), 1
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _NOT_USERS:
            return level
        frame, level = frame.f_back, level + 1
    return 2
