"""Where a kept trial comes from: its study, its arm and what it reached, read from the study folder around it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from fanin.errors import StoreError
from fanin.recipe import Trial
from fanin.record import Epoch
from fanin.store import FILE, Store, StoredStudy
from fanin.study import Arm


@dataclass(frozen=True)
class Origin:
    """A trial's place in a study, what it reached, in words, and the names of the data's classes."""

    study: str
    arm: str
    reached: str
    classes: tuple[str, ...]


def origin_of(
    weights: Path, trial: Trial, trial_id: str, fingerprint: str, *, study: str | None = None, arm: str | None = None
) -> Origin | None:
    """The first study and arm of the folder that have the trial; None where no results lie around its weights.

    study, arm: take these, of several that share the trial; StoreError if they do not have it.
    """
    folder = weights.absolute().parent.parent
    if not (folder / FILE).is_file():
        if study is None and arm is None:
            return None
        raise StoreError(f"{weights}: no study folder around it to look for a study or an arm in; leave them out")
    with Store.open(folder) as store:
        for stored in store.studies():
            if study not in (None, stored.study.name):
                continue
            for each in stored.study.arms:
                if arm in (None, each.name) and _has(stored, each, trial, fingerprint):
                    classes = tuple(map(str, stored.data.get("classes", ())))
                    return Origin(stored.study.name, each.name, _reached(store, stored, each, trial_id), classes)
    if study is None and arm is None:
        return None
    raise StoreError(f"{weights}: no trial of study {study!r}, arm {arm!r} in {folder}; leave them out or name its own")


def _has(stored: StoredStudy, arm: Arm, trial: Trial, fingerprint: str) -> bool:
    same_data = stored.data.get("fingerprint") == fingerprint
    return same_data and trial.seed < stored.study.seeds and arm.recipe == trial.recipe


def _reached(store: Store, stored: StoredStudy, arm: Arm, trial_id: str) -> str:
    columns = store.columns(stored.study, arm.name)
    head = next((head for head in columns.heads if head.trial_id == trial_id), None)
    if head is None or head.status == "failed":
        return "no result is recorded"
    if (at := head.divergence) is not None:
        return f"diverged in epoch {at.epoch}, step {at.step}"
    rows = columns.epochs[columns.epochs[:, 0] == head.seed]
    if not len(rows):
        return "no result is recorded"
    last = dict(zip(["seed", *(field.name for field in fields(Epoch))], rows[-1], strict=True))
    epochs = f"{last['epoch']:.0f} epoch{'' if last['epoch'] == 1 else 's'}"
    return f"accuracy {last['test_accuracy']:.4f} on the test set after {epochs}"
