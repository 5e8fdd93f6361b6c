"""Probe: second moments of activations and gradients, dead and saturated units, on a fixed part of the training set.

The pass is a training-mode pass in float32 without dropout (batch statistics where there is batch normalisation, whose
running statistics it leaves alone), so that it shows what the next step's gradient would meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fanin.engine.data import Data, Gatherer
from fanin.engine.network import Gradients, Layer
from fanin.engine.passes import Passes
from fanin.engine.products import dense
from fanin.recipe import Recipe
from fanin.record import LayerSignal

PROBE_ROWS = 500
# The probe is not to cost more than the training: of a small training set an eighth, but of a tiny one 32 rows or all,
# since batch normalisation over one or two rows would leave no signal.
_SHARE = 8
_FEWEST = 32
_SATURATED = 0.05  # of the steepest slope


def probe_rows(examples: int) -> Tensor:
    """The training examples that signal is measured on: spread over the whole set, as a file may be sorted by class."""
    rows = min(PROBE_ROWS, max(_FEWEST, examples // _SHARE), examples)
    return torch.arange(rows) * examples // rows


class Probe:
    """Measures stacks shaped as `layers`; buffers are made once."""

    def __init__(self, layers: Sequence[Layer], recipe: Recipe, data: Data) -> None:
        members = len(layers[0].weight)
        index = probe_rows(len(data.train_labels)).to(data.train_labels.device)
        self._rows = len(index)
        self._passes = Passes(layers, recipe, self._rows, dense(len(layers), "fp32"))
        dtype = layers[0].weight.dtype
        gather = Gatherer(data.train_inputs, data.train_labels, data.scale, members, self._rows, dtype=dtype)
        gather.inputs(index.repeat(members), self._passes.inputs)
        gather.labels(index.repeat(members), self._passes.labels)
        self._gradients = [Gradients.like(layer) for layer in layers]

    def measure(self, layers: Sequence[Layer], epochs: Sequence[int]) -> list[list[LayerSignal]]:
        """Signal through every layer of each member; epochs[m] is the epoch that member m has just finished."""
        passes, last = self._passes, len(layers) - 1
        passes.forward(layers, dropout=False, update=False)
        moments = [_mean_square(h) for h in (*passes.post, passes.pre[last])]
        shares = [self._shares(i) for i in range(last)]
        passes.backward(layers, self._gradients, dropout=False)
        # deltas are of the mean loss; times the number of rows they are of each example's own
        gradients = [_mean_square(delta) * self._rows**2 for delta in passes.deltas]
        norms = [torch.linalg.vector_norm(g.weight, dim=(1, 2), dtype=torch.float64) for g in self._gradients]
        none = torch.full_like(norms[0], math.nan)
        by_layer = [
            torch.stack([moments[i], gradients[i], norms[i], *(shares[i] if i < last else (none, none))])
            for i in range(last + 1)
        ]
        table = torch.stack(by_layer).permute(2, 0, 1).tolist()  # one transfer: member, layer, quantity
        return [
            [self._signal(epoch, i, last, row) for i, row in enumerate(rows)]
            for epoch, rows in zip(epochs, table, strict=True)
        ]

    def _signal(self, epoch: int, i: int, last: int, row: Sequence[float]) -> LayerSignal:
        bounded = self._passes.activation.steepest is not None
        return LayerSignal(
            epoch=epoch,
            layer=i + 1,
            activation_second_moment=row[0],
            gradient_second_moment=row[1],
            weight_gradient_norm=row[2],
            dead=row[3] if i < last else None,
            saturated=row[4] if i < last and bounded else None,
        )

    def _shares(self, i: int) -> tuple[Tensor, Tensor]:
        """Dead and saturated shares of hidden layer i, from the derivative at each example and unit."""
        activation = self._passes.activation
        saved = self._passes.post[i] if activation.saved == "output" else self._passes.pre[i]
        slope = torch.ones_like(saved)
        activation.backward(slope, saved)
        dead = (slope == 0).all(1).double().mean(1)
        if activation.steepest is None:
            return dead, torch.full_like(dead, math.nan)
        return dead, (slope < _SATURATED * activation.steepest).double().mean((1, 2))


def _mean_square(t: Tensor) -> Tensor:
    # in double precision: a gradient that has vanished has squares under the smallest float32
    return t.double().square().mean((1, 2))
