"""fanin: tells whether a neural network can train, why it cannot, and proves the fix.

Names are loaded when they are first used, so that `import fanin` and `fanin --help` do not load torch.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, which takes longer to load than all the rest of `import fanin`

if TYPE_CHECKING:
    from typing import Any

    from fanin.bundle import find
    from fanin.datasets import Dataset, load
    from fanin.diagnosis import (
        Diagnosis,
        DiagnosisWarning,
        Watch,
        diagnose,
        lr_find,
        overfit_one_batch,
        watch,
    )
    from fanin.driver import Run, run
    from fanin.engine.export import load_weights
    from fanin.errors import FaninError
    from fanin.finding import Finding, Remedy
    from fanin.initializers.calibrate import calibrate_
    from fanin.initializers.module import init_, initializer
    from fanin.pretraining import pretrain_
    from fanin.proof.explain import explain
    from fanin.proof.explanation import Explanation
    from fanin.proof.page import Proof
    from fanin.proof.prove import prove
    from fanin.recipe import Recipe, Trial
    from fanin.script import export_script
    from fanin.signal import propagate
    from fanin.store import Store
    from fanin.study import Arm, Study
    from fanin.theory import gain

__version__ = "0.1.0"

__all__ = [
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

_HOMES = {
    "Arm": "study",
    "Dataset": "datasets",
    "Diagnosis": "diagnosis",
    "DiagnosisWarning": "diagnosis",
    "Explanation": "proof.explanation",
    "FaninError": "errors",
    "Finding": "finding",
    "Proof": "proof.page",
    "Recipe": "recipe",
    "Remedy": "finding",
    "Run": "driver",
    "Store": "store",
    "Study": "study",
    "Trial": "recipe",
    "Watch": "diagnosis",
    "calibrate_": "initializers.calibrate",
    "diagnose": "diagnosis",
    "explain": "proof.explain",
    "export_script": "script",
    "find": "bundle",
    "gain": "theory",
    "init_": "initializers.module",
    "initializer": "initializers.module",
    "load": "datasets",
    "load_weights": "engine.export",
    "lr_find": "diagnosis",
    "overfit_one_batch": "diagnosis",
    "pretrain_": "pretraining",
    "propagate": "signal",
    "prove": "proof.prove",
    "run": "driver",
    "watch": "diagnosis",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fanin' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"fanin.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
