"""Evaluation: loss and accuracy of one member on a whole data set, in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fanin.activations import resolve
from fanin.engine.network import Layer
from fanin.engine.passes import BATCHNORM_EPS
from fanin.recipe import Recipe

_CHUNK = 1000  # rows at a time: large enough for the products' full speed, small enough for the cache


@dataclass(frozen=True)
class Score:
    """Mean loss and accuracy on scaled inputs; accuracy on the inputs as stored (NaN if not asked for)."""

    loss: float
    accuracy: float
    accuracy_on_raw_pixels: float


def evaluate(
    layers: Sequence[Layer], recipe: Recipe, inputs: Tensor, labels: Tensor, scale: float, *, raw: bool = False
) -> Score:
    """Score of a stack of one on stored `inputs` (N, D); `raw` also feeds them unscaled, as the lab did."""
    activation = resolve(recipe.activation)
    first = layers[0]
    loss, right, right_raw = 0.0, 0, 0
    for rows, truth in _chunks(inputs, labels):
        # unscaled inputs differ from scaled ones by a factor in the first product: it is computed once for both
        product = torch.mm(rows.to(first.weight.dtype, copy=True).mul_(scale), first.weight[0].T)
        outputs = _rest(product + first.bias[0], layers, activation.apply)
        loss += _loss_sum(outputs, truth, recipe.loss)
        right += int((outputs.argmax(1) == truth).sum())
        if raw and scale != 1:
            outputs = _rest(product.div_(scale).add_(first.bias[0]), layers, activation.apply)
            right_raw += int((outputs.argmax(1) == truth).sum())
    count = len(labels)
    raw_accuracy = (right_raw if scale != 1 else right) / count if raw else math.nan
    return Score(loss / count, right / count, raw_accuracy)


def _chunks(inputs: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(inputs.split(_CHUNK), labels.split(_CHUNK), strict=True)


def _rest(z: Tensor, layers: Sequence[Layer], apply: Callable[[Tensor, Tensor], object]) -> Tensor:
    """Outputs from the first layer's pre-activations z, which are overwritten."""
    last = len(layers) - 1
    for i, layer in enumerate(layers):
        if i > 0:
            z = torch.addmm(layer.bias[0], z, layer.weight[0].T)
        if i < last:
            if (norm := layer.norm) is not None:
                # running statistics make normalisation one factor and one offset per unit
                factor = norm.scale[0] * torch.rsqrt(norm.running_var[0] + BATCHNORM_EPS)
                z.sub_(norm.running_mean[0]).mul_(factor).add_(norm.shift[0])
            apply(z, z)
    return z


def _loss_sum(outputs: Tensor, labels: Tensor, loss: str) -> float:
    if loss == "cross_entropy":
        return float(functional.cross_entropy(outputs, labels, reduction="sum"))
    target = functional.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
    return float((outputs - target).square().mean(1).sum())
