"""`fanin export`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fanin.cli.numbers import Whole
from fanin.cli.paths import Place
from fanin.cli.trained import Trained, data_of, trained_network
from fanin.errors import FaninError

if TYPE_CHECKING:
    from fanin.datasets import Dataset


def export(
    folder: Place,
    /,
    *,
    study: str | None = None,
    arm: str | None = None,
    seed: Whole | None = None,
    out: Place | None = None,
    data_dir: Place | None = None,
    force: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write a trained network as a PyTorch program that needs no fanin: NAME.py and its weights.

    Parameters
    ----------
    folder
        A folder that `fanin run` wrote.
    study
        The study of the arm, where several have an arm of that name.
    arm
        The arm whose network is taken; by default the first with weights.
    seed
        The seed, where weights of several were kept; by default the first.
    out
        The program, NAME.py; by default it is named for study and arm, in the current folder.
    data_dir
        Where the data set lies, if it was found by --data-dir; wanted only after calibration or pre-training.
    force
        Replace files that are there.
    """
    from fanin.script import export_script  # loads torch

    network = trained_network(folder, study, arm, seed)
    paths = export_script(
        network.path,
        out or Path(f"{_name(network, seed)}.py"),
        study=network.stored.study.name,
        arm=network.arm.name,
        dataset=_dataset(network, data_dir),
        force=force,
    )
    for path in paths:
        print(path)
    return 0


def _name(network: Trained, seed: int | None) -> str:
    """Of letters, digits and underscores, so that the program can be imported."""
    parts = [
        network.stored.study.name.split("/")[-1],
        network.arm.name,
        *([f"seed {seed}"] if seed is not None else []),
    ]
    name = re.sub(r"[\W_]+", "_", "_".join(parts)).strip("_").lower()[:60] or "network"
    return f"network_{name}" if name[0].isdigit() else name


def _dataset(network: Trained, data_dir: Path | None) -> Dataset | None:
    """The data, where the first weights come from them and they can be had."""
    from fanin.script import needs_data

    if not needs_data(network.arm.recipe):
        return None
    try:
        return data_of(network.stored, data_dir, otherwise="its first weights cannot be had")
    except FaninError as error:
        print(f"fanin: the program is written without train(): {error}", file=sys.stderr)
        return None
