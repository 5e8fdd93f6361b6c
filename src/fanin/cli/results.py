"""`fanin results` and `fanin report`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fanin.cli.output import shown
from fanin.errors import FaninError

if TYPE_CHECKING:
    from fanin.report.summary import StudySummary

_CHARTS_BYTES = 76 * 2**30  # of address space: with 38 GiB vl-convert aborts, with 76 it draws

Flag = Annotated[bool, Parameter(negative=())]


def results(folder: Path, /, *, json: Flag = False, csv: Flag = False) -> int:
    """Show the results of a study folder as tables, JSON or CSV.

    Parameters
    ----------
    folder
        A folder that `fanin run` wrote.
    json
        A list of studies with their arms.
    csv
        One line per trial.
    """
    if json and csv:
        raise FaninError("--json and --csv: choose one")
    if json:
        print_json(summaries(folder))
    elif csv:
        print_csv(folder)
    else:
        from rich.console import Console  # `--help` stays fast

        from fanin.report.table import print_table

        with shown():
            for summary in summaries(folder):
                print_table(summary, Console())
    return 0


def report(folder: Path, /, *, out: Path | None = None) -> int:
    """Write the results of a study folder as one self-contained HTML page.

    Parameters
    ----------
    folder
        A folder that `fanin run` wrote.
    out
        The page's path; by default report.html in the folder.
    """
    print(write_report(summaries(folder), out or folder / "report.html"))
    return 0


def summaries(folder: Path) -> list[StudySummary]:
    """Summaries of all studies in a folder."""
    from fanin.report.summary import summarize
    from fanin.store import Store

    with Store.open(folder) as store:
        return [summarize(stored, store) for stored in store.studies()]


def prepare() -> None:
    """Load what tables and the page need, so that it need not be waited for when the results are there."""
    from fanin.report import summary, table, vega  # noqa: F401 - loading them is the point

    if _address_space_is_limited():
        return
    try:
        vega.start()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: S110 - vl-convert panics with one; no page is no reason not to train
        pass


def _address_space_is_limited() -> bool:
    """Whether vl-convert's V8 cannot reserve what it wants: it then aborts the process."""
    try:
        import resource  # does not exist on Windows
    except ImportError:
        return False
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit != resource.RLIM_INFINITY and limit < _CHARTS_BYTES


def print_json(found: Sequence[StudySummary]) -> None:
    """The summaries as one JSON document on standard output."""
    from fanin.report.export import write_json

    with shown():
        write_json(found, sys.stdout)
        print()


def print_csv(folder: Path) -> None:
    """A row for every trial of a folder on standard output."""
    from fanin.report.export import write_csv
    from fanin.store import Store

    with Store.open(folder) as store, shown():
        write_csv(store, sys.stdout)


def write_report(found: Sequence[StudySummary], path: Path) -> Path:
    """The page, written to `path`; FaninError if it cannot be drawn here, or not written there."""
    from fanin.report.page import write_page

    if _address_space_is_limited():
        raise FaninError(
            "the page cannot be drawn under a limit on address space (ulimit -v), which its charts' engine does not "
            "survive; the results are there: draw it with `fanin report FOLDER` where there is no such limit"
        )
    return write_page(found, path)
