"""Reaching a cluster: its library, its port (asked first, for the libraries wait for minutes), its errors in a line."""

from __future__ import annotations

import socket
from functools import cache
from importlib.metadata import version
from urllib.parse import urlsplit

from fanin.driver.executors.protocol import WorkersError
from fanin.driver.messages import Event, Failed, Finished, Ready
from fanin.errors import FaninError

_PATIENCE_SECONDS = 5.0


def missing_library(name: str, error: ImportError) -> FaninError:
    """What to say where an executor's library is not installed."""
    return FaninError(f"the executor {name} needs a library that is not here ({error}); pip install 'fanin[{name}]'")


def require_answer(address: str) -> None:
    """FaninError unless something listens at HOST:PORT, with or without a scheme such as tcp:// before it."""
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        host, port = place.hostname, place.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise FaninError(f"address: expected auto, local, or HOST:PORT with or without its scheme; got {address!r}")
    try:
        socket.create_connection((host, port), timeout=_PATIENCE_SECONDS).close()
    except OSError as error:
        raise FaninError(
            f"address: nothing answers at {address} ({error}); start the cluster, or correct the address"
        ) from None


def of_this_version(event: Event) -> Event:
    """The event, unless another version of fanin has computed it: what a trial's identity means may differ there.

    Then a result is a Failed; WorkersError for a worker's first word.
    """
    if isinstance(event, Ready):
        theirs = {event.environment.get("fanin")}
    elif isinstance(event, Finished):
        theirs = {record.environment.get("fanin") for record in event.records if record.environment}
    else:
        return event
    if theirs <= {_ours()}:
        return event
    names = ", ".join(sorted(map(str, theirs)))
    what = f"the cluster has fanin {names}, and this machine {_ours()}: install the same version on all machines"
    if isinstance(event, Ready):
        raise WorkersError(what)
    return Failed(what)


@cache
def _ours() -> str:
    return version("fanin")


def in_a_line(error: BaseException) -> str:
    """An error's kind and the first sentence of its message."""
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0].partition('. ')[0] if words else ''}"[:200]
