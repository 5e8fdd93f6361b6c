"""`fanin list`."""

from __future__ import annotations

from typing import Literal

_What = Literal[
    "studies",
    "initializers",
    "calibrations",
    "pretrainings",
    "activations",
    "optimizers",
    "schedules",
    "precisions",
    "datasets",
]


def list_names(what: _What = "studies", /) -> int:
    """List what can be named, with its options: bundled studies, initialisers, optimisers and so on.

    Parameters
    ----------
    what
        What to list.
    """
    rows = _studies() if what == "studies" else _datasets() if what == "datasets" else _entries(what)
    width = max(len(name) for name, _ in rows)
    for name, summary in rows:
        print(f"{name:<{width}}  {summary}")
    return 0


def _studies() -> list[tuple[str, str]]:
    from fanin.bundle import bundled  # `--help` stays fast
    from fanin.study import Study

    studies = {name: Study.from_toml(path) for name, path in bundled().items()}
    folders = dict.fromkeys(name.split("/")[0] for name in studies)
    return [(name, f"{s.title} ({len(s.arms)} arms)") for name, s in studies.items()] + [
        (folder, f"all of {folder}/") for folder in folders
    ]


def _datasets() -> list[tuple[str, str]]:
    from fanin.datasets import DATASETS

    return list(DATASETS.items())


def _entries(what: str) -> list[tuple[str, str]]:
    from fanin import catalogue

    table = {
        "initializers": catalogue.INITIALIZERS,
        "calibrations": catalogue.CALIBRATIONS,
        "pretrainings": catalogue.PRETRAININGS,
        "activations": catalogue.ACTIVATIONS,
        "optimizers": catalogue.OPTIMIZERS,
        "schedules": catalogue.SCHEDULES,
        "precisions": catalogue.PRECISIONS,
    }[what]
    rows = []
    for name, entry in table.items():
        options = ", ".join(f"{key}={default}" for key, (_, default) in entry.options.items())
        rows.append((name, f"{entry.summary}" + (f" [{options}]" if options else "")))
    return rows
