"""Greedy training of one layer on the clean codes of those below: the hot loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fanin.activations import Activation
from fanin.pretraining.autoencoder.layer import Layer, Loss, Passes
from fanin.pretraining.corruption import Corruption
from fanin.pretraining.divergence import NotFiniteError
from fanin.streams import Stream


@dataclass(frozen=True)
class Task:
    """What a layer learns to do: its functions, its loss, and what corrupts its inputs, which lie in [low, high].

    place: of the layer, from 0; it keys the streams.
    """

    place: int
    activation: Activation
    output: Activation
    loss: Loss
    corruption: str
    amount: float
    low: float
    high: float

    def corrupts(self, batch: int, rows: Tensor) -> Corruption:
        """Its corruption on batches of so many of these rows."""
        shape = (batch, rows.shape[1])
        return Corruption(self.corruption, self.amount, shape, like=rows, low=self.low, high=self.high)


class Epochs:
    """Epochs of stochastic gradient descent with momentum on one layer, in buffers that are allocated once.

    velocity = momentum * velocity + gradient; parameter -= lr * velocity, as torch.optim.SGD.
    """

    def __init__(self, layer: Layer, velocity: Layer, rows: Tensor, task: Task, *, batch: int, seed: int) -> None:
        self._layer, self._velocity, self._rows, self._task, self._seed = layer, velocity, rows, task, seed
        self._corruption = task.corrupts(batch, rows)
        self._passes = Passes(
            layer,
            batch,
            activation=task.activation,
            output=task.output,
            loss=task.loss,
            corrupted=self._corruption.active,
        )

    def run(self, epoch: int, *, lr: float, momentum: float) -> float:
        """The mean loss of an epoch's steps while weights move; NotFiniteError before a step would spoil them."""
        passes, layer, velocity = self._passes, self._layer, self._velocity
        moving = list(zip(layer.tensors(), velocity.tensors(), strict=True))
        place, losses = self._task.place, []
        steps = batches(
            self._rows, self._corruption, passes.clean, passes.inputs, seed=self._seed, epoch=epoch, place=place
        )
        for step in steps:
            loss = passes.forward(layer)
            if not math.isfinite(loss):
                raise NotFiniteError(step, f"loss {loss}")
            losses.append(loss)
            passes.backward(layer, velocity, momentum)
            for parameter, speed in moving:
                parameter.sub_(speed, alpha=lr)
        return math.fsum(losses) / len(losses)


def batches(
    rows: Tensor, corruption: Corruption, clean: Tensor, inputs: Tensor, *, seed: int, epoch: int, place: int
) -> Iterator[int]:
    """Fill `clean` and the corrupted `inputs` with one batch after the other; yields the step, from 1.

    Rows come in the order of stream ("pretraining order", seed, epoch, layer=place), the last incomplete batch dropped;
    noise is from stream ("corruption", seed, epoch, step, layer=place). `inputs` may be `clean` if nothing corrupts.
    """
    batch = len(clean)
    words = Stream(seed, "pretraining order", epoch=epoch, layer=place).permutation(len(rows))
    order = torch.from_numpy(words).to(rows.device)
    for step in range(1, len(rows) // batch + 1):
        torch.index_select(rows, 0, order[(step - 1) * batch : step * batch], out=clean)
        if corruption.active:
            noise = Stream(seed, "corruption", epoch=epoch, step=step, layer=place)
            corruption.apply(clean, inputs, noise)
        yield step
