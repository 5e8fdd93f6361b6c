"""Evaluation: loss and accuracy of every member of a stack on a whole data set, in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fanin.activations import resolve
from fanin.engine.buffers import buffer, whole
from fanin.engine.network import Layer
from fanin.engine.passes import BATCHNORM_EPS
from fanin.engine.sparse import SparseInputs
from fanin.recipe import Recipe

# Rows at a time: enough for the products' full speed, few enough for a CPU's cache, and for a card's memory when many
# wide members share it.
_ROWS = 1000
_ENTRIES = 2**27


@dataclass(frozen=True)
class Score:
    """Mean loss and accuracy on scaled inputs; accuracy on the inputs as stored (NaN if not asked for)."""

    loss: float
    accuracy: float
    accuracy_on_raw_pixels: float


def evaluate(
    layers: Sequence[Layer],
    recipe: Recipe,
    inputs: Tensor,
    labels: Tensor,
    scale: float,
    *,
    raw: bool = False,
    sparse: SparseInputs | None = None,
) -> list[Score]:
    """Each member's score on stored `inputs` (N, D); `raw` also feeds them unscaled, as the lab did.

    sparse: the same inputs, for a stack of one whose first product is cheaper so.
    """
    activation, first = resolve(recipe.activation), layers[0]
    members = len(first.weight)
    loss = torch.zeros(members, dtype=torch.float64, device=inputs.device)
    right, right_raw = torch.zeros_like(loss), torch.zeros_like(loss)
    rows_at_once = _chunk(layers)
    for start in range(0, len(labels), rows_at_once):
        stop = min(start + rows_at_once, len(labels))
        truth = labels[start:stop]
        # unscaled inputs differ from scaled ones by a factor in the first product: it is computed once for both
        if sparse is not None:
            product = _copy(sparse.block(start, stop, first.weight.dtype).times(first.weight[0].T).unsqueeze(0))
        else:
            scaled = inputs[start:stop].to(first.weight.dtype, copy=True).mul_(scale)
            product = _product(scaled.expand(members, *scaled.shape), first)
        outputs = _rest(_copy(product).add_(first.bias), layers, activation.apply)
        loss += _loss_sum(outputs, truth, recipe.loss)
        right += (outputs.argmax(2) == truth).sum(1)
        if raw and scale != 1:
            outputs = _rest(product.div_(scale).add_(first.bias), layers, activation.apply)
            right_raw += (outputs.argmax(2) == truth).sum(1)
    raw_share = (right_raw if scale != 1 else right) / len(labels) if raw else torch.full_like(loss, math.nan)
    columns = torch.stack([loss / len(labels), right / len(labels), raw_share], 1)
    return [Score(*row) for row in columns.tolist()]


def _chunk(layers: Sequence[Layer]) -> int:
    widest = max(max(layer.weight.shape[1:]) for layer in layers)
    return max(1, min(_ROWS, _ENTRIES // (len(layers[0].weight) * widest)))


def _rest(z: Tensor, layers: Sequence[Layer], apply: Callable[[Tensor, Tensor], object]) -> Tensor:
    """Outputs (M, n, C) from the first layer's pre-activations z, which are overwritten."""
    last = len(layers) - 1
    for i, layer in enumerate(layers):
        if i > 0:
            z = _product(z, layer).add_(layer.bias)
        if i < last:
            if (norm := layer.norm) is not None:
                # running statistics make normalisation one factor and one offset per unit
                factor = norm.scale * torch.rsqrt(norm.running_var + BATCHNORM_EPS)
                z.sub_(norm.running_mean).mul_(factor).add_(norm.shift)
            apply(whole(z), whole(z))  # padding and all: bits are not to depend on the slot (see engine.buffers)
    return z


def _product(inputs: Tensor, layer: Layer) -> Tensor:
    """inputs (M, n, in) @ weight^T, in a buffer."""
    out = buffer(layer.weight, len(inputs), inputs.shape[1], layer.weight.shape[1])
    return torch.bmm(inputs, layer.weight.transpose(1, 2), out=out)


def _copy(z: Tensor) -> Tensor:
    return buffer(z, *z.shape).copy_(z)


def _loss_sum(outputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Each member's summed loss (M,), in float64."""
    index = labels.expand(len(outputs), -1).unsqueeze(2)
    if loss == "cross_entropy":
        return -torch.log_softmax(outputs, 2).gather(2, index).sum((1, 2), dtype=torch.float64)
    target = torch.zeros_like(outputs).scatter_(2, index, 1)
    return (outputs - target).square().mean(2).sum(1, dtype=torch.float64)
