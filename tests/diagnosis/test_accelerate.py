"""Hugging Face Accelerate, where it is installed: what it has prepared is watched and diagnosed, and left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fanin.diagnosis import diagnose
from fanin.diagnosis.lr_find import lr_find
from fanin.diagnosis.one_batch import overfit_one_batch
from fanin.diagnosis.watch import watch

accelerate = pytest.importorskip("accelerate", reason="Accelerate is no dependency of fanin; pip install accelerate")
pytestmark = pytest.mark.usefixtures("one_thread")

Prepared = tuple[nn.Module, Any, DataLoader]
X = torch.randn(256, 6, generator=torch.Generator().manual_seed(7))
Y = X[:, :3].argmax(1)


@pytest.fixture(params=["no", "bf16"])
def accelerator(request: pytest.FixtureRequest) -> Any:
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)  # a process has one
    return accelerate.Accelerator(cpu=True, mixed_precision=request.param)


def prepared(accelerator: Any) -> Prepared:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return accelerator.prepare(model, optimizer, DataLoader(TensorDataset(X, Y), 32, shuffle=True))


def train(accelerator: Any, parts: Prepared, criterion: nn.Module) -> list[Tensor]:
    """Two epochs, as Accelerate's users write them; the state that they lead to."""
    model, optimizer, loader = parts
    torch.manual_seed(1)
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            accelerator.backward(criterion(model(x), y))
            optimizer.step()
    return [t.clone() for t in model.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_a_watched_training_is_bit_for_bit_the_unwatched_one(accelerator) -> None:
    criterion = nn.CrossEntropyLoss()
    plain = train(accelerator, prepared(accelerator), criterion)
    model, optimizer, loader = prepared(accelerator)
    with watch(model, optimizer, every=2, loss=criterion) as w:
        watched = train(accelerator, (model, optimizer, loader), criterion)
    assert same(plain, watched)
    assert not same(plain, [t + 1 for t in watched])
    assert w.steps == 16
    assert w.unseen == ()
    assert [row["name"] for row in w.to_dict()["layers"]] == ["0", "2", "3"]
    assert all(row["gradient"] for row in w.to_dict()["weights"] if row["name"] != "0.bias")


def _diagnosed(model: nn.Module, data: Any, **given: Any) -> str:
    return str(diagnose(model, data, steps=10, **given))


def _by_heart(model: nn.Module, data: Any, **given: Any) -> str:
    return str(overfit_one_batch(model, data, steps=20, **given))


def _rates(model: nn.Module, data: Any, **given: Any) -> str:
    return str(lr_find(model, data, steps=20, seeds=1, **given))


@pytest.mark.parametrize(
    ("look", "words"), [(_diagnosed, "Nothing found"), (_by_heart, "It learns"), (_rates, "optimiser: Adam, lr = 0.01")]
)
def test_what_is_prepared_is_looked_at_and_left_as_it_was(accelerator, look: Callable[..., str], words: str) -> None:
    criterion = nn.CrossEntropyLoss()
    plain = train(accelerator, prepared(accelerator), criterion)
    parts = prepared(accelerator)
    state, random = repr(accelerator.gradient_state), torch.get_rng_state()
    found = look(parts[0], parts[2], loss=criterion, optimizer=parts[1])
    assert words in found, found
    assert torch.equal(torch.get_rng_state(), random)
    assert repr(accelerator.gradient_state) == state
    assert accelerator.gradient_state.active_dataloader is None
    assert same(plain, train(accelerator, parts, criterion))
