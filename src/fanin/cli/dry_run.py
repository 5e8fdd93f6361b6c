"""`fanin run --dry-run`: what would be run, and what has its result already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fanin.datasets import Dataset
    from fanin.study import Study


def dry_run(studies: Sequence[Study], dataset: Dataset, device: str, folder: Path) -> int:
    """Print every study with its arms and the settings in which they differ, and how many trials are left to run."""
    from fanin.driver.run import check
    from fanin.report.words import count

    check(studies, dataset, device)
    wanted = [t.id(dataset.fingerprint) for study in studies for arm in study.arms for t in study.trials(arm)]
    different = set(wanted)
    known = _finished(folder, different)
    for study in studies:
        _print_study(study)
    shared = (
        f" ({len(wanted) - len(different)} more are the same under another name)"
        if len(different) < len(wanted)
        else ""
    )
    print(
        f"{count(len(different), 'trial')} on {dataset.name}, {device}{shared}: {len(known)} have their result already "
        f"in {folder}, {len(different) - len(known)} would be run"
    )
    return 0


def _finished(folder: Path, wanted: set[str]) -> set[str]:
    from fanin.store import FILE, Store

    if not os.path.isfile(folder / FILE):
        return set()
    with Store.open(folder) as store:
        return store.finished(wanted)


def _print_study(study: Study) -> None:
    from fanin.report.words import count

    recipes = [arm.recipe.to_dict() for arm in study.arms]
    epochs = sorted({arm.recipe.epochs for arm in study.arms})
    span = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    print(f"{study.name}: {count(len(study.arms), 'arm')} x {count(study.seeds, 'seed')}, {span} epochs each")
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    differ = [key for key in keys if len({repr(recipe.get(key)) for recipe in recipes}) > 1]
    width = max(len(arm.name) for arm in study.arms)
    for arm, recipe in zip(study.arms, recipes, strict=True):
        settings = ", ".join(f"{key}={_words(recipe[key])}" for key in differ if key in recipe)
        print(f"  {arm.name:<{width}}  {settings}".rstrip())


def _words(value: Any) -> str:
    """A setting as --set takes it: a name with options as a table, one without as the bare word."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_quoted(inner)}" for key, inner in value.items()) + "}"
    return str(value)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
