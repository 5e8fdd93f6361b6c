"""The losses of a stack and their gradients against torch.nn.functional, one member at a time."""

from __future__ import annotations

import oracle
import pytest
import torch
from torch import Tensor

from fanin.catalogue import LOSSES as CATALOGUE
from fanin.engine.losses import LOSSES
from fanin.recipe import Recipe


def ours(loss: str, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    members, batch, classes = outputs.shape
    buffers = LOSSES[loss](members, classes, batch, like=outputs)
    buffers.scores.copy_(outputs.transpose(1, 2))
    buffers.labels.copy_(labels)
    buffers.compute()
    assert torch.equal(buffers.scores.nan_to_num(), outputs.transpose(1, 2).nan_to_num())
    return buffers.losses, buffers.deltas.transpose(1, 2)


def test_every_name_has_a_function() -> None:
    assert set(LOSSES) == set(CATALOGUE)


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 7, 5), (4, 16, 10), (2, 5, 1)], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradient(loss: str, shape: tuple[int, int, int], spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, shape[2], shape[:2], generator=generator)
    losses, gradient = ours(loss, outputs, labels)
    for m in range(shape[0]):
        z = outputs[m].clone().requires_grad_()
        value = oracle.loss_of(Recipe(loss=loss), z, labels[m])
        value.backward()  # each member's own mean: no 1 / M
        assert float(losses[m]) == pytest.approx(float(value.detach()), rel=1e-12, abs=1e-15)
        assert torch.allclose(gradient[m], z.grad, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("loss", LOSSES)
def test_one_members_nan_stays_its_own(loss: str, value: float) -> None:
    outputs = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(3, 7, dtype=torch.int64)
    clean_losses, clean_gradient = ours(loss, outputs, labels)
    outputs[1, 2, 3] = value
    losses, gradient = ours(loss, outputs, labels)
    assert not losses[1].isfinite()
    for m in (0, 2):
        assert torch.equal(losses[m], clean_losses[m])
        assert torch.equal(gradient[m], clean_gradient[m])
