"""Philox words and dropout masks on tensors: the very bits that the host's streams draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fanin.engine.card import philox
from fanin.engine.card.device_masks import DeviceMasks
from fanin.engine.masks import draw_masks
from fanin.recipe import Recipe, Trial
from fanin.streams import Stream

SEEDS = [0, 1, 2**62 + 3]


@pytest.mark.parametrize(("layer", "step", "count"), [(0, 0, 1), (3, 599, 1003), (1, 2**40, 8)])
def test_words_are_the_streams(layer: int, step: int, count: int) -> None:
    epochs = [1, 15, 10**6]
    key = philox.keys(SEEDS, "dropout")
    found = philox.words(key, count, layer=layer, step=torch.tensor([step]), epoch=torch.tensor(epochs))
    assert found.shape == (3, count)
    for row, seed, epoch in zip(found, SEEDS, epochs, strict=True):
        drawn = Stream(seed, "dropout", epoch=epoch, step=step, layer=layer).words(count)
        assert np.array_equal(row.numpy().view(np.uint64), drawn)


@pytest.mark.parametrize("word", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_signed_keeps_the_bits(word: int) -> None:
    assert philox.signed(word) % 2**64 == word
    assert -(2**63) <= philox.signed(word) < 2**63


@pytest.mark.parametrize("p", [1e-9, 0.2, 0.5, 0.999999])
def test_masks_drawn_on_the_device_are_the_hosts(p: float) -> None:
    trials = [Trial(Recipe(dropout=p), seed) for seed in SEEDS]
    hosts = [torch.zeros(3, 7, width) for width in (5, 64)]
    devices = [torch.full_like(mask, 9) for mask in hosts]
    drawn = DeviceMasks(devices)
    for m, trial in enumerate(trials):
        drawn.admit(m, trial)
    epochs = [2, 4, 1]
    drawn.draw(torch.tensor(epochs), torch.tensor([3]))
    for m, (trial, epoch) in enumerate(zip(trials, epochs, strict=True)):
        draw_masks([trial], [mask[m : m + 1] for mask in hosts], epoch, 3)
    assert all(torch.equal(a, b) for a, b in zip(hosts, devices, strict=True))
