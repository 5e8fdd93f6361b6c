"""Training: everything that defines how a user's network is trained, but the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from fanin.errors import FaninError
from fanin.training.batches import Batch, Batches
from fanin.training.copying import copy_of
from fanin.training.losses import Loss, call, choose_loss, name_of, refused, targets_of
from fanin.training.optimizers import OptimizerSpec
from fanin.training.randomness import RandomState, seed_all
from fanin.training.wrappers import alone

BatchChange = Callable[[Batch], Batch]


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    make: a new network, called with torch's generators seeded; batches: what it sees; change: what is done to every
    batch first; loss: what it is judged by, called loss(outputs, targets); optimizer: what moves it. loss_words: what
    the loss is called.
    """

    make: Callable[[], nn.Module]
    batches: Batches
    loss: Loss
    optimizer: OptimizerSpec
    loss_words: str
    change: BatchChange | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module | Callable[[], nn.Module],
        data: Any,
        *,
        loss: Any = None,
        optimizer: Any = None,
        batch_size: int | None = None,
    ) -> Self:
        """From what a user has: a module (copied for every run) or a factory; see Batches.of and OptimizerSpec.of.

        Of a module that is compiled, or wrapped for several processes, the one within is taken (see `alone`).
        Without a loss the one that the first batch's targets call for is taken.
        """
        model = alone(model) if isinstance(model, nn.Module) else model
        sample = model if isinstance(model, nn.Module) else seeded(model, 0)
        batches = batches_for(sample, data, batch_size=batch_size)
        words = name_of(loss)
        if loss is None:
            loss, words = _default_loss(copy_of(sample), next(batches.endless(0)))
        make = model if not isinstance(model, nn.Module) else (lambda: copy_of(model))
        return cls(make, batches, loss, OptimizerSpec.of(optimizer, sample), words)

    def new(self, seed: int) -> nn.Module:
        """A network as `make` gives it under this seed."""
        return seeded(self.make, seed)

    def stream(self, seed: int) -> Any:
        """Batches without end, in the order of this seed."""
        found = self.batches.endless(seed)
        return found if self.change is None else map(self.change, found)

    def changed(self, **fields: Any) -> Self:
        """The same with other fields."""
        return replace(self, **fields)


def batches_for(model: nn.Module, data: Any, *, batch_size: int | None = None) -> Batches:
    """Batches.of(data), arrays as this network takes them: floats of its dtype, integers kept where it embeds."""
    embeds = any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in model.modules())
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    return Batches.of(data, batch_size=batch_size, float_inputs=not embeds, dtype=dtype)


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """make() under a seed; global random states are put back. FaninError if it makes no module."""
    if not callable(make):
        raise FaninError(f"model: expected an nn.Module, or a function that makes one; got {type(make).__name__}")
    before = RandomState.now()
    try:
        seed_all(seed)
        found = make()
    finally:
        before.restore()
    if not isinstance(found, nn.Module):
        raise FaninError(f"model: expected an nn.Module, or a function that makes one; got {type(found).__name__}")
    return found


def _default_loss(model: nn.Module, batch: Batch) -> tuple[Loss, str]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    batch = batch.to(device)
    with torch.no_grad():
        try:
            model.eval()
            outputs = call(model, batch)
        except Exception as error:  # a user's code may raise anything
            raise refused(batch, error, model) from error
    chosen = choose_loss(outputs, targets_of(batch))
    return chosen.loss, chosen.words
