"""Dropout masks of a stack: 0 with probability p, else 1 / (1 - p); p is rounded to a multiple of 2^-16.

Noise u is keyed by seed, epoch, step and layer, and an activation is dropped where u < p: of two arms with equal seeds,
the one with the larger p drops what the other drops, and more. Drawn on the host or on a card, the masks are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fanin.recipe import Trial
from fanin.streams import Stream

LEVELS = 2**16


def draw_masks(trials: Sequence[Trial], masks: Sequence[Tensor], epoch: int, step: int) -> None:
    """Fill the masks (M, B, H) of one step on the host, layer by layer."""
    for m, trial in enumerate(trials):
        cut, keep = threshold(trial.recipe.dropout)
        for i, mask in enumerate(masks):
            noise = Stream(trial.seed, "dropout", epoch=epoch, step=step, layer=i).uint16(mask[m].numel())
            kept = torch.from_numpy(noise >= cut).view(mask[m].shape)
            mask[m].copy_(kept).mul_(keep)


def threshold(p: float) -> tuple[int, float]:
    """What 16 bits must reach to be kept, and by how much a kept activation grows."""
    cut = min(round(p * LEVELS), LEVELS - 1)
    return cut, LEVELS / (LEVELS - cut)
