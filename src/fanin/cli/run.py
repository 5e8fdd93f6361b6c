"""`fanin run`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fanin.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from fanin.datasets import Dataset
    from fanin.driver import Run
    from fanin.store import Store
    from fanin.study import Study

Many = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=False)]


def run(
    *studies: str,
    seeds: int | None = None,
    data: str = "auto",
    data_dir: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    jobs: int | None = None,
    out: Path | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=(), consume_multiple=False)] = None,
    vary: Many = None,
    keep_weights: Literal["first", "all", "none"] = "first",
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Run studies and show what came out. What an earlier run has done is not done again.

    Parameters
    ----------
    studies
        Bundled studies (see `fanin list studies`), a folder of them such as lab9, or TOML files.
    seeds
        Seeds per arm, instead of the study's own number.
    data
        auto (MNIST, or digits with a warning), mnist, digits, a file, a folder or module:attr (`fanin list datasets`).
    data_dir
        Where MNIST or a relative data file lies.
    device
        auto takes a CUDA card if there is one.
    jobs
        Worker processes, one per core by default; 0 trains in this process.
    out
        The study folder; by default runs/STUDY-DATA.
    set_
        Change a key in every arm, such as lr=0.01 or optimizer=sgd; repeat for more keys.
    vary
        Split every arm by a key's values, such as init=zeros,xavier_uniform; several multiply out.
    keep_weights
        Keep the trained weights of each arm's first seed, of all, or of none.
    dry_run
        Say what would be run, and stop.
    json
        Print the results as JSON on standard output, and nothing else there.
    """
    from fanin.cli.progress import make_watcher, stderr  # noqa: PLC0415 - `--help` stays fast
    from fanin.driver import run as drive  # noqa: PLC0415

    chosen = _chosen(studies, set_ or [], vary or [], seeds)
    quiet = stderr()
    dataset = load_data(data, data_dir, quiet)
    folder = out or Path("runs") / f"{_label(studies)}-{dataset.name}"
    if dry_run:
        return _dry_run(chosen, dataset, folder)
    with make_watcher(quiet, lambda study: None if json else _show(folder, study)) as watcher:
        try:
            done = drive(
                chosen,
                out=folder,
                data=dataset,
                data_spec=data if data != "auto" else dataset.name,
                device=device,
                jobs=jobs,
                keep_weights=keep_weights,
                watcher=watcher,
            )
        except KeyboardInterrupt:
            again = shlex.join(["fanin", *sys.argv[1:]])
            watcher.noticed(f"interrupted; finished trials are kept in {folder}. To go on:\n  {again}")
            raise
    return _finish(done, json)


def load_data(spec: str, data_dir: Path | None, console: Console) -> Dataset:
    """The data set, with a bar while it is fetched and warnings where they are seen."""
    import warnings  # noqa: PLC0415

    from fanin.cli.progress import Fetching  # noqa: PLC0415
    from fanin.datasets import load  # noqa: PLC0415

    with warnings.catch_warnings(record=True) as caught, Fetching(console) as progress:
        warnings.simplefilter("always")
        dataset = load(spec, data_dir=data_dir, progress=progress)
    for warning in caught:
        console.print(f"warning: {warning.message}", style="bold yellow", markup=False, highlight=False)
    return dataset


def _chosen(names: tuple[str, ...], sets: list[str], varies: list[str], seeds: int | None) -> list[Study]:
    import dataclasses  # noqa: PLC0415

    from fanin.study import find, override  # noqa: PLC0415

    if not names:
        raise RecipeError("expected at least one study, such as lab9; see `fanin list studies`")
    if seeds is not None and seeds < 1:
        raise RecipeError(f"--seeds: expected at least 1; got {seeds}")
    found = {study.name: study for name in names for study in find(name)}
    chosen = [override(study, sets, varies) for study in found.values()]
    return [dataclasses.replace(study, seeds=seeds) if seeds else study for study in chosen]


def _label(names: tuple[str, ...]) -> str:
    return "-".join(Path(name).stem if name.endswith(".toml") else name.replace("/", "-") for name in names)[:80]


def _dry_run(studies: list[Study], dataset: Dataset, folder: Path) -> int:
    from fanin.driver.run import check  # noqa: PLC0415
    from fanin.store import FILE, Store  # noqa: PLC0415

    check(studies, dataset)
    known: set[str] = set()
    wanted = {t.id(dataset.fingerprint) for study in studies for arm in study.arms for t in study.trials(arm)}
    if (folder / FILE).is_file():
        with Store.open(folder) as store:
            known = store.finished(wanted)
    for study in studies:
        print(f"{study.name}: {len(study.arms)} arms x {study.seeds} seeds")
        for arm in study.arms:
            print(f"  {arm.name}")
    print(f"{len(wanted)} different trials on {dataset.name}, {len(known)} of them already in {folder}")
    return 0


def _show(folder: Path, study: Study) -> None:
    from rich.console import Console  # noqa: PLC0415

    from fanin.report.table import print_table  # noqa: PLC0415
    from fanin.store import Store  # noqa: PLC0415

    with Store.open(folder) as store:
        print_table(summary_of(store, study.name), Console())


def summary_of(store: Store, name: str):
    """The summary of one study of a store."""
    from fanin.report.summary import summarize  # noqa: PLC0415

    stored = next(s for s in store.studies() if s.study.name == name)
    return summarize(stored, store.records(stored.study))


def _finish(done: Run, json: bool) -> int:
    from fanin.cli.progress import stderr  # noqa: PLC0415
    from fanin.cli.results import print_json, summaries, write_report  # noqa: PLC0415

    found = summaries(done.folder)
    page = write_report(found, done.folder / "report.html")
    if json:
        print_json(found)
    console = stderr()
    words = f"{done.ran} trials run"
    words += f", {done.diverged} diverged (a result)" if done.diverged else ""
    words += f", {done.failed} FAILED (the same command tries them again)" if done.failed else ""
    console.print(f"{words}. Page: {page}", markup=False, highlight=False, soft_wrap=True)
    return 1 if done.failed else 0
