"""An eps that is 0 in the parameters' format is named, and healthy half-precision trainings are not accused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fanin.diagnosis import diagnose
from fanin.diagnosis.diagnosis import Diagnosis
from fanin.diagnosis.one_batch import overfit_one_batch
from fanin.training.optimizers import adam

pytestmark = pytest.mark.usefixtures("one_thread")
Factory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def clusters() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 4
    return 2 * torch.randn(4, 10, generator=g)[y] + torch.randn(400, 10, generator=g), y


def found(dtype: torch.dtype, optimizer: Factory | None, steps: int = 60) -> Diagnosis:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 4)).to(dtype)
    x, y = clusters()
    return diagnose(model, (x.to(dtype), y), loss=nn.CrossEntropyLoss(), optimizer=optimizer, steps=steps)


def of(kind: Any, **options: Any) -> Factory:
    return lambda parameters: kind(parameters, **options)


def two_groups(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The first with an eps that can be held, the second without."""
    held = list(parameters)
    return torch.optim.Adam([{"params": held[:2], "eps": 1e-4}, {"params": held[2:]}], lr=1e-3)


FAULTY: dict[str, Factory] = {
    "Adam": of(torch.optim.Adam, lr=1e-3),
    "AdamW": of(torch.optim.AdamW, lr=1e-3),
    "RMSprop": of(torch.optim.RMSprop, lr=1e-3),
    "a second group": two_groups,
    "eps = 0": of(torch.optim.Adam, lr=1e-3, eps=0.0),
}
HEALTHY: dict[str, tuple[torch.dtype, Factory | None]] = {
    "float16, eps 1e-4": (torch.float16, of(torch.optim.AdamW, lr=1e-3, eps=1e-4)),
    "float16, SGD": (torch.float16, of(torch.optim.SGD, lr=0.1, momentum=0.9)),
    "float16, no optimiser given": (torch.float16, None),
    "bfloat16": (torch.bfloat16, of(torch.optim.Adam, lr=1e-3)),
    "float32": (torch.float32, of(torch.optim.Adam, lr=1e-3)),
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("steps", [0, 60])
def test_an_eps_that_is_0_in_float16_is_the_first_cause(name: str, steps: int) -> None:
    first = found(torch.float16, FAULTY[name], steps).findings[0]
    assert first.cause == "optimizer"
    assert "is 0 in torch.float16" in first.evidence
    assert first.fix is not None
    assert first.fix.options == {"eps": 1e-4}
    if steps:
        assert re.search(r"it has learnt (9\d|100) % of the task instead of 0 %", first.evidence)


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_half_precision_is_not_accused(name: str) -> None:
    assert not found(*HEALTHY[name]).findings


def test_what_is_said_of_float16_is_so() -> None:
    """Of a gradient of 1e-4 or 0, Adam's update is no number at eps = 1e-8, and one at 1e-4."""
    for eps, finite in ((1e-8, False), (1e-4, True)):
        weight = nn.Parameter(torch.ones(2, dtype=torch.float16))
        weight.grad = torch.tensor([1e-4, 0.0], dtype=torch.float16)
        torch.optim.Adam([weight], lr=1e-3, eps=eps, foreach=False).step()
        assert bool(weight.isfinite().all()) is finite
    assert torch.tensor(1e-8, dtype=torch.float16) == 0
    assert torch.tensor(1e-8, dtype=torch.bfloat16) > 0


def test_the_adam_of_experiments_fits_the_parameters() -> None:
    half, single = (nn.Linear(2, 2).to(dtype) for dtype in (torch.float16, torch.float32))
    assert adam(half.parameters()).defaults["eps"] == 1e-4
    assert adam(single.parameters(), lr=0.5).defaults == torch.optim.Adam(single.parameters(), lr=0.5).defaults
    x, y = clusters()
    learnt = overfit_one_batch(nn.Linear(10, 4).half(), (x.half(), y), loss=nn.CrossEntropyLoss(), steps=60)
    assert learnt.adam.learnt > 0.9
    assert "eps = 0.0001" in learnt.own.name
