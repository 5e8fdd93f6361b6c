"""Which kept network of a study folder a command is about, and the data that it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fanin.errors import FaninError, nearest

if TYPE_CHECKING:
    from fanin.datasets import Dataset
    from fanin.store import StoredStudy
    from fanin.study import Arm


@dataclass(frozen=True)
class Trained:
    """A trial whose weights were kept: its study as stored, its arm, its seed, the file."""

    stored: StoredStudy
    arm: Arm
    seed: int
    path: Path


def trained_network(folder: Path, study: str | None, arm: str | None, seed: int | None) -> Trained:
    """The first kept network of the study, the arm and the seed asked for; FaninError with what there is."""
    from fanin.store import Store

    with Store.open(folder) as store:
        stored = store.studies()
    files = {path.stem: path for path in (folder / "weights").glob("*.safetensors") if path.is_file()}
    known = [
        network for each in stored for arm_ in each.study.arms if (network := next(_kept(each, arm_, files), None))
    ]
    if not known:
        raise FaninError(f"{folder}: no trained weights here; `fanin run` with --keep-weights first trains them")
    if study is not None:
        known = _of_study(known, study)
    if arm is not None:
        known = _of_arm(known, arm)
    if seed is None:
        return known[0]
    return _of_seed(known, seed, files)


def _kept(stored: StoredStudy, arm: Arm, files: dict[str, Path]) -> Iterator[Trained]:
    """The arm's trials whose weights are there, in the order of their seeds."""
    for trial in stored.study.trials(arm):
        if (path := files.get(trial.id(stored.data["fingerprint"]))) is not None:
            yield Trained(stored, arm, trial.seed, path)


def _of_study(known: list[Trained], study: str) -> list[Trained]:
    names = [network.stored.study.name for network in known]
    found = [network for network, name in zip(known, names, strict=True) if study in (name, name.split("/")[-1])]
    if not found:
        raise FaninError(f"no trained network of study {study!r}{nearest(study, names)}; there are {_listed(names)}")
    return found


def _of_arm(known: list[Trained], arm: str) -> list[Trained]:
    names = [network.arm.name for network in known]
    found = [network for network in known if network.arm.name == arm]
    if not found:
        raise FaninError(f"no trained network of arm {arm!r}{nearest(arm, names)}; there are {_listed(names)}")
    return found


def _of_seed(known: list[Trained], seed: int, files: dict[str, Path]) -> Trained:
    for first in known:
        for network in _kept(first.stored, first.arm, files):
            if network.seed == seed:
                return network
    first = known[0]
    seeds = ", ".join(str(network.seed) for network in _kept(first.stored, first.arm, files))
    raise FaninError(
        f"--seed: no weights of seed {seed} were kept; of {first.stored.study.name}, arm {first.arm.name!r}, there are "
        f"those of {seeds}: `fanin run` with --keep-weights all keeps those of every seed that it trains"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in dict.fromkeys(names))


def data_of(stored: StoredStudy, data_dir: Path | None, *, otherwise: str) -> Dataset:
    """The data set that a study was run on; FaninError that ends in what to do `otherwise` if it cannot be had."""
    from fanin.cli.progress import stderr
    from fanin.cli.run import load_data

    spec = stored.data.get("spec")
    if spec is None:
        raise FaninError(f"the study was run from Python on data in memory: {otherwise}")
    dataset = load_data(spec, data_dir, stderr(), allow_code=False)  # the folder may be another's
    if dataset.fingerprint != stored.data["fingerprint"]:
        raise FaninError(f"{spec}: not the data the study was run on any more; {otherwise}")
    return dataset
