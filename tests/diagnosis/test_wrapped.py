"""Networks that are compiled or in DataParallel: the one within is diagnosed, by the names that users know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fanin.diagnosis import diagnose
from fanin.diagnosis.lr_find import lr_find
from fanin.diagnosis.one_batch import overfit_one_batch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _compiler() -> Iterator[None]:
    """What one test has compiled is no other's."""
    yield
    torch.compiler.reset()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def task() -> tuple[Tensor, Tensor]:
    x = torch.randn(256, 6, generator=torch.Generator().manual_seed(7))
    return x, x[:, :3].argmax(1)


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


WRAPS: dict[str, Callable[[nn.Module], Any]] = {
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "compiled in place": in_place,
    "DataParallel": nn.DataParallel,
    "both": lambda model: nn.DataParallel(in_place(model)),
}
LOOKS: dict[str, Callable[..., Any]] = {
    "diagnose": lambda model, data, **given: diagnose(model, data, steps=10, **given),
    "diagnose, one batch": lambda model, data, **given: diagnose(model, data, steps=0, **given),
    "overfit_one_batch": lambda model, data, **given: overfit_one_batch(model, data, steps=20, **given),
    "lr_find": lambda model, data, **given: lr_find(model, data, steps=12, seeds=1, **given),
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("look", LOOKS)
def test_it_is_looked_at_as_without_the_wrapping_and_left_as_it_was(wrap: str, look: str) -> None:
    plain, within = net(), net()
    expected = LOOKS[look](plain, task(), optimizer=torch.optim.Adam(plain.parameters(), lr=0.01))
    model, optimizer = WRAPS[wrap](within), torch.optim.Adam(within.parameters(), lr=0.01)
    random = torch.get_rng_state()
    found = LOOKS[look](model, task(), optimizer=optimizer)
    assert str(found) == str(expected)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(
        torch.equal(a, b) for a, b in zip(within.state_dict().values(), net().state_dict().values(), strict=True)
    )
    assert all(part.training and not part._forward_hooks for part in model.modules())
    assert all(p.grad is None for p in within.parameters())
    assert not optimizer.state


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_fault_has_the_path_that_users_know(wrap: str) -> None:
    model = net()
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    (finding, *_) = diagnose(WRAPS[wrap](model), task(), steps=0).findings
    assert (finding.cause, finding.layer) == ("symmetry", "0")
