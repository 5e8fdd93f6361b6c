"""The studies that come with fanin, and finding a study by its name or its file."""

from __future__ import annotations

import os
from pathlib import Path

from fanin.errors import RecipeError, nearest
from fanin.study import Study

_FOLDER = Path(__file__).parent / "studies"


def bundled() -> dict[str, Path]:
    """Names of the bundled studies ("lab9/nn") and their files, in the order of each folder's file `ORDER`."""
    found = {}
    for folder in sorted(p for p in _FOLDER.iterdir() if p.is_dir()):
        for stem in (folder / "ORDER").read_text(encoding="utf-8").split():
            found[f"{folder.name}/{stem}"] = folder / f"{stem}.toml"
    return found


def find(name: str) -> list[Study]:
    """Studies by name: a bundled one ("lab9/nn" or "nn"), a bundled folder ("lab9": all of it), or a TOML file."""
    known = bundled()
    path = Path(name)
    if path.suffix == ".toml" or os.path.isfile(path):
        return [Study.from_toml(path)]
    group = [file for key, file in known.items() if key.split("/")[0] == name]
    exact = [file for key, file in known.items() if name in (key, key.split("/")[1])]
    if not group and not exact:
        names = [*dict.fromkeys(key.split("/")[0] for key in known), *known, *(key.split("/")[1] for key in known)]
        raise RecipeError(
            f"unknown study {name!r}; expected a TOML file, {', '.join(known)}, or "
            f"{', '.join(dict.fromkeys(k.split('/')[0] for k in known))} for all{nearest(name, names)}"
        )
    return [Study.from_toml(file) for file in group or exact[:1]]
