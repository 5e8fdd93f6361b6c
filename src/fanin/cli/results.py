"""`fanin results` and `fanin report`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fanin.cli.output import shown
from fanin.cli.paths import Place, check_file
from fanin.cli.selection import selected
from fanin.errors import FaninError

if TYPE_CHECKING:
    from fanin.report.summary import StudySummary

_CHARTS_BYTES = 76 * 2**30  # of address space: with 38 GiB vl-convert aborts, with 76 it draws

Flag = Annotated[bool, Parameter(negative=())]
Names = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=False)]


def results(folder: Place, /, *, study: Names = None, arm: Names = None, json: Flag = False, csv: Flag = False) -> int:
    """Show the results of a study folder as tables, JSON or CSV.

    Parameters
    ----------
    folder
        A folder that `fanin run` wrote.
    study
        Only this study; repeat for more.
    arm
        Only this arm; repeat for more. The first that is named is the one the others are compared with.
    json
        A list of studies with their arms.
    csv
        One line per trial.
    """
    if json and csv:
        raise FaninError("--json and --csv: choose one")
    if csv and (study or arm):
        raise FaninError("--csv: has every trial; expected no --study or --arm (its first columns are study and arm)")
    if json:
        print_json(summaries(folder, study, arm))
    elif csv:
        print_csv(folder)
    else:
        from rich.console import Console  # `--help` stays fast

        from fanin.report.table import print_table

        with shown():
            for summary in summaries(folder, study, arm):
                print_table(summary, Console())
    return 0


def report(folder: Place, /, *, study: Names = None, arm: Names = None, out: Place | None = None) -> int:
    """Write the results of a study folder as one self-contained HTML page.

    Parameters
    ----------
    folder
        A folder that `fanin run` wrote.
    study
        Only this study; repeat for more.
    arm
        Only this arm; repeat for more. The first that is named is the one the others are compared with.
    out
        The page's path; by default report.html in the folder.
    """
    check_file("--out", out, "page.html")
    if (study or arm) and out is None:
        raise FaninError(
            "--study and --arm: expected --out too, so that the page of all is not replaced by one of some"
        )
    print(write_report(summaries(folder, study, arm), out or folder / "report.html"))
    return 0


def summaries(
    folder: Path, studies: Sequence[str] | None = None, arms: Sequence[str] | None = None
) -> list[StudySummary]:
    """Summaries of the studies in a folder: of all, or of those and of their arms that are named."""
    from fanin.report.summary import summarize
    from fanin.store import Store

    with Store.open(folder) as store:
        return [summarize(stored, store) for stored in selected(store.studies(), studies or (), arms or ())]


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
