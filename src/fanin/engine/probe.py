"""Probe: second moments of activations and gradients, dead and saturated units, on a fixed part of the training set.

The pass is a training-mode pass without dropout (batch statistics where there is batch normalisation, whose running
statistics it leaves alone), so that it shows what the next step's gradient would meet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fanin.engine.data import Data, Gatherer
from fanin.engine.network import Gradients, Network
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


class Probe:
    """Measures one member at a time; buffers are made once for a stack."""

    def __init__(self, network: Network, recipe: Recipe, data: Data) -> None:
        examples = len(data.train_labels)
        self._rows = min(PROBE_ROWS, max(_FEWEST, examples // _SHARE), examples)
        alone = [layer.member(0) for layer in network.layers]
        self._passes = Passes(alone, recipe, self._rows, dense(len(alone), "fp32"))
        dtype = network.parameters.dtype
        gather = Gatherer(data.train_inputs, data.train_labels, data.scale, 1, self._rows, dtype=dtype)
        # spread over the whole set: a file sorted by class would else show one class
        index = (torch.arange(self._rows) * examples // self._rows).to(data.train_labels.device)
        gather(index, self._passes.inputs, self._passes.labels)
        self._gradients = [Gradients.like(layer) for layer in alone]

    def measure(self, network: Network, m: int, epoch: int) -> list[LayerSignal]:
        """Signal through every layer of member m."""
        layers = [layer.member(m) for layer in network.layers]
        passes, last = self._passes, len(layers) - 1
        passes.forward(layers, dropout=False, update=False)
        moments = [_mean_square(h) for h in (*passes.post, passes.pre[last])]
        shares = [self._shares(i) for i in range(last)] + [(None, None)]
        passes.backward(layers, self._gradients, dropout=False)
        return [
            LayerSignal(
                epoch=epoch,
                layer=i + 1,
                activation_second_moment=moments[i],
                # deltas are of the mean loss; times the number of rows they are of each example's own
                gradient_second_moment=_mean_square(passes.deltas[i]) * self._rows**2,
                weight_gradient_norm=float(self._gradients[i].weight.double().norm()),
                dead=shares[i][0],
                saturated=shares[i][1],
            )
            for i in range(len(layers))
        ]

    def _shares(self, i: int) -> tuple[float, float | None]:
        """Dead and saturated shares of hidden layer i, from the derivative at each example and unit."""
        activation = self._passes.activation
        saved = self._passes.post[i] if activation.saved == "output" else self._passes.pre[i]
        slope = torch.ones_like(saved)
        activation.backward(slope, saved)
        dead = float((slope == 0).all(1).double().mean())
        if activation.steepest is None:
            return dead, None
        return dead, float((slope < _SATURATED * activation.steepest).double().mean())


def _mean_square(t: Tensor) -> float:
    # in double precision: a gradient that has vanished has squares under the smallest float32
    return float(t.double().square().mean())
