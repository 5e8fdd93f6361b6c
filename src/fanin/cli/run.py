"""`fanin run`."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fanin.cli.dry_run import dry_run as dry
from fanin.cli.numbers import Seeds, Whole
from fanin.cli.output import patient_console, say, silence
from fanin.cli.paths import Name, Place, check_folder
from fanin.errors import FaninError, RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from fanin.datasets import Dataset
    from fanin.driver import Run
    from fanin.study import Study

INTERRUPTED = 130  # the exit code of a run that was stopped before its end

# what Keras, scikit-learn, Lightning and others call a recipe's settings
ELSEWHERE = {
    "learning_rate": "lr",
    "learning_rate_init": "lr",
    "initializer": "init",
    "kernel_initializer": "init",
    "bias_initializer": "bias_init",
    "layers": "hidden",
    "units": "hidden",
    "hidden_layer_sizes": "hidden",
    "max_epochs": "epochs",
    "n_epochs": "epochs",
    "max_iter": "epochs",
    "solver": "optimizer",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "criterion": "loss",
}

Many = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=False)]


def run(
    *studies: Name,
    seeds: Seeds | None = None,
    data: str = "auto",
    data_dir: Place | None = None,
    device: str = "auto",
    jobs: Whole | None = None,
    out: Place | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=(), consume_multiple=False)] = None,
    vary: Many = None,
    keep_weights: Literal["first", "all", "none"] = "first",
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
    allow_code: Annotated[bool, Parameter(negative=())] = False,
    executor: Literal["inline", "local", "ray", "dask"] = "local",
    address: str | None = None,
    time_limit: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
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
        cpu, cuda, or auto: a CUDA card if there is one.
    jobs
        Worker processes, one per core by default; 0 trains in this process. Of a cluster: the most cohorts at a time.
    out
        The study folder; by default runs/STUDY-DATA.
    set_
        Change a key in every arm, such as lr=0.01 or optimizer=sgd; repeat for more keys.
    vary
        Split every arm by a key's values, such as init=zeros,xavier_uniform; several multiply out.
    keep_weights
        Keep the trained weights of each arm's first seed, of all, or of none.
    dry_run
        Say what would be run, and what has its result already; train nothing.
    json
        Print the results as JSON on standard output, and nothing else there.
    allow_code
        Run the Python code that study files name as model; look at it first, for it has your rights.
    executor
        Where trials are trained: inline in this process, local worker processes, a ray or a dask cluster.
    address
        The cluster's: auto, local (start one here), ray://HOST:PORT, tcp://HOST:PORT of a dask scheduler.
    time_limit
        Stop before so much time has passed, such as 90s, 30m or 2h; the same command goes on. With --jobs 0 it is
        looked at after each epoch only: leave room for one.
    """
    from fanin.cli.progress import make_watcher  # `--help` stays fast
    from fanin.cli.results import prepare
    from fanin.driver import TimeUp
    from fanin.driver import run as drive
    from fanin.driver.deadline import seconds_of
    from fanin.driver.executors import CLUSTERS, check_executor
    from fanin.driver.run import resolve_device

    end = None if time_limit is None else time.monotonic() + seconds_of(time_limit)  # loading the data counts
    check_executor(executor, jobs, address)
    check_folder("--out", out)
    chosen = _chosen(studies, set_ or [], vary or [], seeds, allow_code=allow_code)
    quiet = patient_console()
    dataset = load_data(data, data_dir, quiet)
    folder = out or Path("runs") / f"{_label(studies)}-{dataset.name}"
    if dry_run:
        return dry(chosen, dataset, device if executor in CLUSTERS else resolve_device(device), folder)
    shown = _Shown(folder, quiet)
    try:
        with make_watcher(quiet, lambda study: None if json else shown(study), prepare) as watcher:
            done = drive(
                chosen,
                out=folder,
                data=dataset,
                data_spec=data if data != "auto" else dataset.name,
                device=device,
                jobs=jobs,
                keep_weights=keep_weights,
                watcher=watcher,
                executor=executor,
                address=address,
                time_limit=None if end is None else max(0.1, end - time.monotonic()),
            )
        return max(_finish(done, folder, quiet, json=json), shown.failed)
    except KeyboardInterrupt:
        say(quiet, f"interrupted; {_to_go_on(folder)}")
        raise
    except TimeUp:
        say(quiet, f"stopped for the time limit of {time_limit}; {_to_go_on(folder)}")
        return INTERRUPTED


def load_data(spec: str, data_dir: Path | None, console: Console, *, allow_code: bool = True) -> Dataset:
    """The data set, with a bar while it is fetched and warnings where they are seen.

    allow_code: False where a file, and not the user, named it: a spec module:attr is then refused.
    """
    import warnings

    from fanin.cli.progress import Fetching
    from fanin.datasets import load

    with warnings.catch_warnings(record=True) as caught, Fetching(console) as progress:
        warnings.simplefilter("always")
        dataset = load(spec, data_dir=data_dir, progress=progress, allow_code=allow_code)
    for warning in caught:
        console.print(f"warning: {warning.message}", style="bold yellow", markup=False, highlight=False)
    return dataset


def _chosen(
    names: tuple[str, ...], sets: list[str], varies: list[str], seeds: int | None, *, allow_code: bool
) -> list[Study]:
    """The studies as they are to be run. Code that --set and --vary name is the user's own word; a file's is not."""
    from fanin.bundle import find
    from fanin.overrides import override
    from fanin.study import refuse_code

    if not names:
        raise RecipeError("expected at least one study, such as lab9; see `fanin list studies`")
    if seeds is not None and seeds < 1:
        raise RecipeError(f"--seeds: expected at least 1; got {seeds}")
    for flag, texts in (("--set", sets), ("--vary", varies)):
        for text in texts:
            _check_assignment(flag, text)
    found: list[Study] = []
    for study in (study for name in names for study in find(name)):
        if study not in found:
            found.append(study)
    if not allow_code:
        refuse_code(found)
    chosen = [override(study, sets, varies) for study in found]
    return [study.changed(seeds=seeds) if seeds else study for study in chosen]


def _check_assignment(flag: str, text: str) -> None:
    """RecipeError that names the option where text is no key=value, or the key is another library's."""
    from fanin.overrides import parse_assignment

    try:
        key, values = parse_assignment(text)
    except RecipeError as error:
        raise RecipeError(f"{flag}: {error}") from None
    if (own := ELSEWHERE.get(key)) is not None:
        raise RecipeError(f"{flag} {key}: a recipe calls it {own}; expected {flag} {own}={','.join(values)}")


def _label(names: tuple[str, ...]) -> str:
    """The name of the default folder: the studies', without their folders; variants of a study share it."""
    return "-".join(dict.fromkeys(Path(name).stem for name in names))[:80]


def _to_go_on(folder: Path) -> str:
    return f"finished trials are kept in {folder}. To go on:\n  {_same_command()}"


def _same_command() -> str:
    """The command as it was typed, to be typed again."""
    if Path(sys.argv[0]).name == "__main__.py":
        program = [sys.executable, "-m", "fanin"]
    else:
        program = ["fanin" if shutil.which("fanin") else sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


class _Shown:
    """Prints the table of a study that is complete; if nobody reads any more (`| head`), the run goes on in silence.

    failed: 1 if tables could not be written, for another reason.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self._name, self._folder, self._console = folder, folder.absolute(), console
        self._read = sys.stdout is not None
        self.failed = 0

    def __call__(self, study: Study) -> None:
        from rich.console import Console

        from fanin.report.summary import summarize
        from fanin.report.table import print_table
        from fanin.store import Store

        if not self._read:
            return
        try:
            with Store.open(self._folder) as store:
                stored = next(s for s in store.studies() if s.study.name == study.name)
                summary = summarize(stored, store)
        except FaninError as error:  # if there is more to it, who writes there will meet it too
            self._give_up(str(error))
            return
        text = io.StringIO()
        shape = Console()
        print_table(summary, Console(file=text, width=shape.width, force_terminal=shape.is_terminal))
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # which may lack a table's signs
        try:
            sys.stdout.write(text.getvalue().encode(encoding, "replace").decode(encoding))
            sys.stdout.flush()
        except OSError as error:
            sys.stdout = silence()  # so that closing it is quiet
            if isinstance(error, BrokenPipeError):
                self._read = False
            else:
                self._give_up(str(error.strerror))

    def _give_up(self, why: str) -> None:
        self._read, self.failed = False, 1
        say(self._console, f"tables cannot be shown ({why}): see `fanin results {self._name}`")


def _finish(done: Run, folder: Path, console: Console, *, json: bool) -> int:
    """Draw the page, and say what came out; folder: where the results are, as the user calls it."""
    from fanin.cli.results import print_json, summaries, write_report

    found = summaries(done.folder)
    if json:
        print_json(found)
    try:
        written = write_report(found, done.folder / "report.html")
        page, no_page = f"Page: {folder / written.name}", False
    except FaninError as error:  # what it would show is there
        page, no_page = f"No page: {error}", True
    words = f"{done.ran} trials run"
    words += f", {done.diverged} diverged (a result)" if done.diverged else ""
    words += f", {done.failed} FAILED (the same command tries them again)" if done.failed else ""
    words += f", the weights of {done.unsaved} could not be kept" if done.unsaved else ""
    say(console, f"{words}. {page}")
    return 1 if done.failed or done.unsaved or no_page else 0
