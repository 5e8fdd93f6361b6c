"""`fanin explain`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fanin.cli.numbers import Whole, check_range
from fanin.cli.paths import Name, Place, check_folder, is_file
from fanin.errors import FaninError, nearest

if TYPE_CHECKING:
    from fanin.study import Arm, Study


def explain(
    study: Name,
    a: str,
    b: str,
    /,
    *,
    metric: str = "train_cost",
    epoch: Whole | None = None,
    last_epoch: Annotated[bool, Parameter(negative=())] = False,
    epochs: Whole | None = None,
    seeds: Whole = 8,
    data: str | None = None,
    data_dir: Place | None = None,
    device: str = "auto",
    jobs: Whole | None = None,
    out: Place | None = None,
    permutations: Whole = 16,
    json: Annotated[bool, Parameter(negative=())] = False,
    allow_code: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Say which setting makes the difference between two arms, and how much of it.

    Parameters
    ----------
    study
        A folder that `fanin run` wrote, a bundled study such as lab9/quirks, or a TOML file.
    a
        An arm, by its name; of another study or file: STUDY::ARM or FILE.toml::ARM. A file without arms has one that
        is called default.
    b
        The arm it is compared with, likewise.
    metric
        train_cost, test_loss, test_accuracy, accuracy_on_raw_pixels, train_loss, train_accuracy or diverged.
    epoch
        The epoch whose metric is explained; by default the first.
    last_epoch
        The last epoch's instead.
    epochs
        How long to train, instead of the arms' own number of epochs.
    seeds
        Seeds of every combination.
    data
        What to train on; by default what the folder's study was run on, else auto.
    data_dir
        Where MNIST or a relative data file lies.
    device
        cpu, cuda, or auto.
    jobs
        Worker processes, one per core by default; 0 trains in this process.
    out
        The folder for the runs, where what is there is not run again; by default the study's own, if it is one that
        `fanin run` wrote, else runs/explain-A-and-B.
    permutations
        Orders of change that are run where more than four settings differ.
    json
        Print everything as JSON on standard output, and nothing else there.
    allow_code
        Run the Python code that studies name as model, or a folder's study as its data; look at it first.
    """
    from fanin.cli.progress import make_watcher, stderr
    from fanin.cli.results import prepare
    from fanin.cli.run import load_data
    from fanin.proof.explain import explain as explained
    from fanin.study import Study, refuse_code

    if epoch is not None and last_epoch:
        raise FaninError("--epoch and --last-epoch: choose one")
    check_range("--epoch", epoch, 1)
    check_range("--seeds", seeds, 2)
    check_range("--permutations", permutations, 1)
    check_folder("--out", out)
    found, spec = _studies(study)
    sides = [_arm(found, study, name) for name in (a, b)]
    quiet = stderr()
    if not allow_code:
        refuse_code(Study(name=study, arms=(arm,)) for arm in sides)
    dataset = load_data(data or spec or "auto", data_dir, quiet, allow_code=allow_code or data is not None)
    with make_watcher(quiet, lambda _: None, prepare) as watcher:
        answer = explained(
            *sides,
            data=dataset,
            data_spec=data or spec or dataset.name,
            seeds=seeds,
            metric=metric,
            epoch=None if last_epoch else epoch or 1,
            epochs=epochs,
            permutations=permutations,
            out=out or (Path(study) if _is_folder(study) else None),
            device=device,
            jobs=jobs,
            watcher=watcher,
        )
    if json:
        from json import dump

        dump(answer.to_dict(), sys.stdout, indent=1, allow_nan=False)
        print()
    else:
        print(answer)
    return 0


def _is_folder(name: str) -> bool:
    from fanin.store import FILE

    return is_file(Path(name) / FILE)


def _studies(name: str) -> tuple[list[Study], str | None]:
    """The studies of a folder, a bundled one or a file, and what a folder's were run on."""
    from fanin.bundle import find
    from fanin.store import Store

    if not _is_folder(name):
        return list(find(name)), None
    with Store.open(name) as store:
        stored = store.studies()
    specs = {each.data.get("spec") for each in stored}
    return [each.study for each in stored], specs.pop() if len(specs) == 1 else None


def _arm(studies: list[Study], where: str, name: str) -> Arm:
    """An arm by its name, by STUDY::NAME where several have one of that name, or of another file."""
    file, apart, own = name.rpartition("::")
    if apart:
        where, name = file, own
        studies = [s for s in studies if file in (s.name, s.name.split("/")[-1])] or _studies(file)[0]
    arms = [arm for study in studies for arm in study.arms]
    found = [arm for arm in arms if arm.name == name]
    if len({arm.recipe for arm in found}) == 1:
        return found[0]
    names = list(dict.fromkeys(arm.name for arm in arms))
    if not found:
        raise FaninError(
            f"{where} has no arm {name!r}; its arms are {', '.join(map(repr, names))}{nearest(name, names)}"
        )
    own_names = ", ".join(f"{study.name}::{name}" for study in studies if any(arm.name == name for arm in study.arms))
    raise FaninError(f"{where} has several arms {name!r}: say which, as {own_names}")
