"""What fanin brings along: everything pinned in constraints.txt, nothing under a licence that binds its users.

Known vulnerabilities are `make audit`'s, which asks a service that is not always there.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = frozenset({"ray", "dask", "test", "lint"})  # what CI installs; where one is not there, it is not looked at
# Licences that ask for no more than a notice; MPL-2.0 binds its own files alone.
PERMISSIVE = re.compile(
    r"MIT(-CMU)?|(Modified |New |3-Clause )?BSD|BSD-[23]-Clause|0BSD|Apache|PSF|Python Software Foundation|ISC|Zlib|CC0"
    r"|BSL-1\.0|MPL-2\.0|Mozilla Public License 2\.0|Unlicense|Public Domain",
    re.IGNORECASE,
)
COPYLEFT = re.compile(r"\bA?GPL|GNU (Affero )?General Public", re.IGNORECASE)


def installed(root: str, extras: frozenset[str]) -> dict[str, Distribution]:
    """Every distribution that `root` with these extras needs here, itself left out."""
    found: dict[str, tuple[Distribution, set[str]]] = {}
    waiting = [(root, set(extras))]
    while waiting:
        name, wanted = waiting.pop()
        key = canonicalize_name(name)
        if key in found and wanted <= found[key][1]:
            continue
        try:
            found.setdefault(key, (distribution(name), set()))[1].update(wanted)
        except PackageNotFoundError:
            continue
        for text in found[key][0].requires or []:
            needs = Requirement(text)
            if needs.marker is None or any(needs.marker.evaluate({"extra": extra}) for extra in {"", *wanted}):
                waiting.append((needs.name, set(needs.extras)))
    return {name: found[name][0] for name in sorted(found) if name != canonicalize_name(root)}


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {str(canonicalize_name(name)): version for name, version in pins}


def licence(metadata) -> str:
    """What a distribution says of its licence: an SPDX expression, its classifiers, or the field's first line."""
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [entry.split(" :: ")[-1] for entry in metadata.get_all("Classifier", []) if "License ::" in entry]
    return " ".join(classifiers) or (metadata.get("License") or "unknown").strip().splitlines()[0]


def unpinned(found: dict[str, Distribution]) -> list[str]:
    return sorted(found.keys() - pinned().keys())


def binding(found: dict[str, str]) -> list[str]:
    """Those that are not known to be permissive."""
    return sorted(name for name, said in found.items() if COPYLEFT.search(said) or not PERMISSIVE.search(said))


@pytest.fixture(scope="module")
def dependencies():
    found = installed("fanin", EXTRAS)
    assert {"torch", "numpy", "pydantic", "pytest", "ruff"} <= found.keys()
    return found


def test_all_dependencies_are_pinned(dependencies):
    assert unpinned(dependencies) == []


def test_all_licences_are_permissive(dependencies):
    assert binding({name: licence(found.metadata) for name, found in dependencies.items()}) == []


def test_what_is_not_pinned_and_what_binds_is_found(dependencies):
    assert unpinned(dependencies | {"left-pad": dependencies["torch"]}) == ["left-pad"]
    said = {
        "a": "GPL-3.0-or-later",
        "b": "unknown",
        "c": "MIT",
        "d": "GNU Affero General Public License v3",
        "e": "LGPL",
    }
    assert binding(said) == ["a", "b", "d", "e"]
