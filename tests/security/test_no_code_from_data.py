"""The source loads nothing that runs code from data: no pickle, no eval, no shelve, no yaml.load, no joblib."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fanin

SOURCE = Path(fanin.__file__).parent
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "dbm"}
CALLS = {"eval", "exec", "compile", "__import__"}  # as bare names: module.eval() is torch's, re.compile is no code
LOADERS = {"torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"}
# Connections between the driver and its own worker processes pickle plain data over an inherited pipe (SECURITY.md).
CONNECTIONS = {"driver/pool.py", "driver/worker.py"}
# `module:attr`, which the user names on the command line or allows, and fanin's own lazily loaded names (PEP 562).
IMPORTERS = {"code.py", "__init__.py"}


def dotted(node: ast.AST) -> str:
    """`torch.load` for the expression of that name; "" for others."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(text: str, file: str) -> Iterator[str]:
    """What of a file's source could run code from data."""
    for node in ast.walk(ast.parse(text)):
        at = f"{file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [module] if module else [alias.name for alias in node.names]
            yield from (f"{at}: imports {name}" for name in names if name.split(".")[0] in MODULES)
            if any(n.startswith("multiprocessing") for n in names) and file not in CONNECTIONS:
                yield f"{at}: connections pickle"
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in CALLS | LOADERS:
                yield f"{at}: calls {name}"
            if name in {"importlib.import_module", "runpy.run_path", "runpy.run_module"} and file not in IMPORTERS:
                yield f"{at}: imports by name"
            if name.startswith(("np.", "numpy.")) and name.endswith(".load") and not _plain(node):
                yield f"{at}: numpy.load without allow_pickle=False"
            if name.endswith("read_array") and not _plain(node):
                yield f"{at}: read_array without allow_pickle=False"
            if any(k.arg == "shell" and getattr(k.value, "value", None) is not False for k in node.keywords):
                yield f"{at}: a shell"
            if name == "os.system":
                yield f"{at}: a shell"


def _plain(call: ast.Call) -> bool:
    return any(k.arg == "allow_pickle" and getattr(k.value, "value", None) is False for k in call.keywords)


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_file_runs_code_from_data(file):
    name = file.relative_to(SOURCE).as_posix()
    assert list(offences(file.read_text(encoding="utf-8"), name)) == []


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from joblib import load",
        "import yaml.constructor",
        "import numpy as np\nnp.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.lib.format.read_array(stream)",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "eval(text)",
        "exec(text)",
        "importlib.import_module(name)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "from multiprocessing import Pipe",
    ],
)
def test_the_check_can_fail(bad):
    assert list(offences(bad, "made_up.py")) != []


@pytest.mark.parametrize(
    "good", ["module.eval()", "re.compile(text)", "np.load(p, allow_pickle=False)", "json.loads(t)"]
)
def test_the_check_knows_what_is_harmless(good):
    assert list(offences(good, "made_up.py")) == []


def test_every_exception_is_still_needed():
    for file in CONNECTIONS | IMPORTERS:
        assert list(offences((SOURCE / file).read_text(encoding="utf-8"), "made_up.py")) != [], file
