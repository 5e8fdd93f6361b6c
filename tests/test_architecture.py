"""The house: imports only go down, the torch-free rooms stay so, public names are pinned."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fanin

SOURCE = Path(fanin.__file__).parent

# docs/design/architecture.md: a room imports only rooms that stand before it here.
ROOMS = [
    "errors",
    "code",
    "catalogue",
    "streams",
    "record",
    "profile",
    "finding",
    "validation",
    "choice",
    "recipe",
    "execution",
    "settings",
    "study",
    "overrides",
    "bundle",
    "statistics",
    "store",
    "datasets",
    "activations",
    "theory",
    "initializers",
    "signal",
    "training",
    "pretraining",
    "sklearn",
    "engine",
    "script",
    "driver",
    "report",
    "proof",
    "diagnosis",
    "cli",
]
TENSORS = {"activations", "initializers", "theory", "signal", "training", "pretraining", "sklearn", "engine", "script"}
TENSORS |= {"proof", "diagnosis"}
WITHOUT_TORCH = {*ROOMS} - TENSORS - {"driver", "cli"}


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Rooms of fanin, and "torch", that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "fanin" and len(parts) > 1 and parts[1] in ROOMS:
                found.add(parts[1])
            elif parts[0] == "torch":
                found.add("torch")
    return found


def violations(room: str, imports: set[str]) -> set[str]:
    """What a room imports and should not."""
    above = set(ROOMS[: ROOMS.index(room)]) | {room}
    bad = imports - above - {"torch"}
    if room in WITHOUT_TORCH:
        bad |= imports & (TENSORS | {"torch"})
    if room == "report":
        bad |= imports & {"driver", "datasets"}
    return bad


FILES = [file for file in sorted(SOURCE.rglob("*.py")) if room_of(file) not in ("__init__", "__main__")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_only_go_down(file):
    assert room_of(file) in ROOMS, "a new room: give it a place in ROOMS and in docs/design/architecture.md"
    assert violations(room_of(file), imported(file)) == set()


def test_the_check_can_fail():
    assert violations("recipe", {"torch"}) == {"torch"}
    assert violations("errors", {"recipe"}) == {"recipe"}
    assert violations("report", {"engine"}) == {"engine"}
    assert violations("engine", {"torch", "recipe"}) == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_every_file_says_what_lives_there(file):
    assert ast.get_docstring(ast.parse(file.read_text()))
    assert file.stem not in {"utils", "helpers", "common", "misc", "base", "core", "manager"}


def test_the_document_lists_every_room():
    text = (SOURCE.parents[1] / "docs" / "design" / "architecture.md").read_text()
    places = [text.index(f"| `{room}/` |" if (SOURCE / room).is_dir() else f"| `{room}` |") for room in ROOMS]
    assert places == sorted(places)


def test_public_names_are_pinned():
    assert fanin.__all__ == [
        "Arm",
        "Dataset",
        "Diagnosis",
        "DiagnosisWarning",
        "Explanation",
        "FaninError",
        "Finding",
        "Proof",
        "Recipe",
        "Remedy",
        "Run",
        "Store",
        "Study",
        "Trial",
        "Watch",
        "__version__",
        "calibrate_",
        "diagnose",
        "explain",
        "export_script",
        "find",
        "gain",
        "init_",
        "initializer",
        "load",
        "load_weights",
        "lr_find",
        "overfit_one_batch",
        "pretrain_",
        "propagate",
        "prove",
        "run",
        "watch",
    ]
    for name in fanin.__all__:
        assert getattr(fanin, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        fanin.Nothing  # noqa: B018


def test_importing_fanin_loads_nothing():
    code = "import sys, fanin; assert not {'torch', 'numpy', 'pydantic', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_initializers_loads_torch_and_no_more(run_strictly, tmp_path):
    code = """if True:  # python -c wants no indentation at its start
        import sys, torch
        before = set(sys.modules)
        import fanin.initializers
        loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
        assert loaded <= {"fanin", *sys.stdlib_module_names}, loaded
    """
    run_strictly("-c", code, folder=tmp_path)


def test_version_is_the_installed_one():
    from importlib.metadata import version

    assert fanin.__version__ == version("fanin")


def test_nothing_from_the_outside_is_named():
    """Results and pages must be the same wherever the package was built."""
    for file in SOURCE.rglob("*.py"):
        assert "shared/" not in file.read_text(), file
