"""The one loop: a network takes steps on batches; what it left at every step is its curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from fanin.training.batches import Batch
from fanin.training.losses import Loss, call, value_of

Look = Callable[[int, nn.Module, torch.optim.Optimizer], None]


@dataclass
class Curve:
    """losses: of each step's batch, before its update; sizes: of these batches.

    stopped: the step, from 1, whose loss was not finite, None if all were.
    """

    losses: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    stopped: int | None = None


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    before_update: Look | None = None,
    after_update: Look | None = None,
) -> Curve:
    """Take so many steps, in the mode in which the network is; it stops where the loss is not finite.

    before_update, after_update: called at each step (from 1), with gradients there.
    """
    curve = Curve()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for step, batch in zip(range(1, steps + 1), batches, strict=False):
        here = batch.to(device)

        def closure(batch: Batch = here) -> torch.Tensor:
            optimizer.zero_grad()
            value = value_of(loss, call(model, batch), batch)
            if value.requires_grad and math.isfinite(value.item()):
                value.backward()
            return value

        asked = cast(Any, optimizer).step(closure) if _asks_again(optimizer) else closure()
        value = asked.item()
        curve.losses.append(value)
        curve.sizes.append(batch.size)
        if not math.isfinite(value):
            curve.stopped = step
            return curve
        if _asks_again(optimizer):
            continue
        if before_update is not None:
            before_update(step, model, optimizer)
        optimizer.step()
        if after_update is not None:
            after_update(step, model, optimizer)
    return curve


def _asks_again(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step evaluates the loss several times."""
    return isinstance(optimizer, torch.optim.LBFGS)
