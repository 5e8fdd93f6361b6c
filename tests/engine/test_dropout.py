"""Dropout masks: their definition by streams, their share, and that arms with equal seeds are nested."""

from __future__ import annotations

import oracle
import pytest
import torch
from torch import Tensor

from fanin.engine.train import draw_masks, train
from fanin.recipe import Recipe, Trial


def drawn(
    p: float, *, seed: int = 1, epoch: int = 1, step: int = 0, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    masks = [torch.empty(1, 20, 50, dtype=dtype), torch.empty(1, 20, 33, dtype=dtype)]
    draw_masks([Trial(Recipe(dropout=p), seed)], masks, epoch, step)
    return [m[0] for m in masks]


@pytest.mark.parametrize("p", [0.1, 0.25, 0.3, 0.5, 0.8, 0.99])
def test_the_definition(p: float) -> None:
    for layer, mask in enumerate(drawn(p, epoch=3, step=4)):
        expected = oracle.mask(Trial(Recipe(dropout=p), 1), 3, 4, layer, (mask.shape[0], mask.shape[1]))
        assert torch.equal(mask == 0, expected == 0)
        assert torch.allclose(mask, expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_expectation(p: float) -> None:
    masks = torch.cat([m.flatten() for step in range(40) for m in drawn(p, step=step)])
    share = float((masks == 0).double().mean())
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / len(masks)) ** 0.5)
    assert masks.unique().tolist() == [0.0, pytest.approx(1 / (1 - p), rel=1e-4)]


def test_arms_with_equal_seeds_are_nested() -> None:
    small, large = drawn(0.2), drawn(0.6)
    for a, b in zip(small, large, strict=True):
        assert bool((b[a == 0] == 0).all())


def test_masks_of_other_places_differ() -> None:
    usual = drawn(0.5)
    assert not torch.equal(usual[0][:, :33], usual[1])
    for other in (drawn(0.5, seed=2), drawn(0.5, epoch=2), drawn(0.5, step=1)):
        assert not torch.equal(usual[0], other[0])


@pytest.mark.parametrize("p", [1e-9, 1e-6, 0.99999, 0.999995, 1 - 1e-9])
def test_probabilities_near_the_ends_train(p: float) -> None:
    """Every p that a recipe accepts: rounded to 2^-16, but never to 1."""
    recipe = Recipe(hidden=(8,), dropout=p, batch_size=16, epochs=1)
    record = train([Trial(recipe, 1)], ["x"], oracle.problem(examples=64))[0].record
    assert record.status in {"done", "diverged"}
