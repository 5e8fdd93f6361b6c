"""What a case of the test bed is: a set-up that somebody would hand to `fanin.diagnose`, and what is wrong with it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.diagnosis.bed.judges import Judge

Half = Literal["develop", "report"]
Factory = Callable[[Iterable[nn.Parameter]], Optimizer]

CODES = (
    "output-activation",
    "loss",
    "output-shape",
    "label-range",
    "input-scale",
    "eval-mismatch",
    "learning-rate-high",
    "learning-rate-low",
    "too-few-epochs",
    "init-scale",
    "symmetry",
    "vanishing-gradient",
    "exploding-gradient",
    "saturation",
    "dead-units",
    "non-finite",
    "optimizer",
    "batch-size",
    "capacity",
    "missing-nonlinearity",
    "frozen-parameters",
    "wrong-mode",
    "overfitting",
    "no-signal",
    "layers",
)


@dataclass(frozen=True)
class Setup:
    """The arguments of `fanin.diagnose`; beside them what only the proof needs: a judge and a budget of epochs.

    `budget` is how long the user would train where `epochs` is not told to the diagnosis; where it is, they agree.
    """

    model: nn.Module
    data: Any
    loss: Callable[[Any, Tensor], Tensor]
    optimizer: Optimizer | Factory
    judge: Judge
    eval_data: Any = None
    epochs: int | None = None
    budget: int = 20

    @property
    def training(self) -> int:
        """Epochs that the proof trains."""
        return self.budget if self.epochs is None else self.epochs

    def arguments(self) -> dict[str, Any]:
        """What `fanin.diagnose` is called with, besides its own `steps` and `seed`."""
        names = ("model", "data", "loss", "optimizer", "eval_data", "epochs")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Case:
    """One set-up. `expected`: every code that is a right answer, the primary one first; nothing if it is healthy."""

    name: str
    make: Callable[[], Setup]
    half: Half
    kind: str
    expected: tuple[str, ...] = ()
    repaired: Callable[[], Setup] | None = None

    @property
    def faulty(self) -> bool:
        return bool(self.expected)

    @property
    def primary(self) -> str | None:
        """The code that was planted."""
        return self.expected[0] if self.expected else None

    def setup(self, seed: int = 0) -> Setup:
        """The set-up with weights drawn from this seed; the caller's random state stays as it was."""
        return seeded(self.make, seed)

    def twin(self, seed: int = 0) -> Setup:
        """The same with the fault mended, drawn from the same seed."""
        assert self.repaired is not None, f"{self.name} is healthy: it has no repaired twin"
        return seeded(self.repaired, seed)


def seeded(make: Callable[[], Setup], seed: int) -> Setup:
    """make() under torch.manual_seed(seed)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


_cases: list[Case] = []
_counts: Counter[str] = Counter()


def _half(kind: str) -> Half:
    """Alternately, kind by kind; every other kind starts with the other half, so that single cases are shared out."""
    turn = list(_counts).index(kind) if kind in _counts else len(_counts)
    turn += _counts[kind]
    _counts[kind] += 1
    return "report" if turn % 2 else "develop"


def _register(function: Callable[..., Setup], make: Callable[[], Setup], kind: str, **fields: Any) -> None:
    name = function.__name__
    assert function.__doc__, f"{name}: every case says in a line what it is"
    assert name not in {case.name for case in _cases}, f"{name}: two cases of one name"
    _cases.append(Case(name=name, make=make, half=_half(kind), kind=kind, **fields))


def healthy(function: Callable[[], Setup]) -> Callable[[], Setup]:
    """Register a set-up that trains well. Its kind is the file it stands in."""
    _register(function, function, function.__module__.rpartition(".")[2])
    return function


def faulty(*expected: str) -> Callable[[Callable[[bool], Setup]], Callable[[bool], Setup]]:
    """Register `function(mended)`: the program at fault for False, its repaired twin for True."""
    assert expected, "a faulty case has a cause"
    assert set(expected) <= set(CODES), f"unknown codes: {set(expected) - set(CODES)}"

    def register(function: Callable[[bool], Setup]) -> Callable[[bool], Setup]:
        twins = {"repaired": partial(function, True), "expected": expected}
        _register(function, partial(function, False), expected[0], **twins)
        return function

    return register


def registered() -> tuple[Case, ...]:
    """All cases so far, in the order of the files."""
    return tuple(copy.copy(_cases))
