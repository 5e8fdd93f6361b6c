"""Dropout masks drawn on a card: those that the host would draw (engine.masks)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fanin.engine.card import philox
from fanin.engine.masks import LEVELS, threshold
from fanin.recipe import Trial
from fanin.streams import BLOCK

_PER_BLOCK = 4 * BLOCK  # 16-bit numbers in a block of 64-bit words


class DeviceMasks:
    """Draws the masks (M, B, H) of M slots where they lie, each slot at its own epoch."""

    def __init__(self, masks: Sequence[Tensor], *, kernels: bool | None = None) -> None:
        self._masks, device, members = masks, masks[0].device, len(masks[0])
        self._keys = torch.zeros(members, 2, dtype=torch.int64, device=device)
        # 16-bit numbers are compared as signed ones, with their highest bit turned
        self._cut = torch.zeros(members, 1, dtype=torch.int16, device=device)
        self._keep = torch.zeros(members, 1, dtype=masks[0].dtype, device=device)
        blocks = max(-(-mask[0].numel() // _PER_BLOCK) for mask in masks)
        self._words = torch.zeros(members * blocks * BLOCK, dtype=torch.int64, device=device)
        self._draw = philox.drawer(device, kernels=kernels)

    def admit(self, m: int, trial: Trial) -> None:
        """Slot m draws for this trial from now on."""
        cut, keep = threshold(trial.recipe.dropout)
        self._keys[m] = philox.keys([trial.seed], "dropout")[0]
        self._cut[m], self._keep[m] = cut - LEVELS // 2, keep

    def draw(self, epoch: Tensor, step: Tensor) -> None:
        """Fill the masks of one step, a tensor of one, at the slots' epochs (M,)."""
        for i, mask in enumerate(self._masks):
            count = mask[0].numel()
            noise = self._noise(-(-count // _PER_BLOCK) * BLOCK, i, epoch, step)
            kept = (noise[:, :count] ^ -(LEVELS // 2)) >= self._cut
            mask.copy_((kept * self._keep).view(mask.shape))

    def _noise(self, count: int, layer: int, epoch: Tensor, step: Tensor) -> Tensor:
        """16-bit numbers (M, 4 * count), as int16."""
        out = self._words[: len(self._keys) * count].view(-1, count)
        self._draw(self._keys, out, layer=layer, step=step, epoch=epoch)
        return out.view(torch.int16)
