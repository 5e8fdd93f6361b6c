"""A stack of layers: its start, its codes and its reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fanin.activations import Activation
from fanin.pretraining.autoencoder.layer import Layer
from fanin.streams import Stream

if TYPE_CHECKING:
    from fanin.choice import Choice

_BLOCK = 1024  # rows that are encoded at once


def start(
    init: Choice, widths: Sequence[int], *, tied: bool, activation: Choice, seed: int, like: Tensor
) -> list[Layer]:
    """Layers of these widths, bottom up from the data's, drawn by a scheme of the catalogue; all biases 0.

    Layer l, from 0, has the noise of stream ("weight", seed, l), as a recipe's network has; a decoder of its own has
    that of ("decoder weight", seed, l).
    """
    from fanin.initializers import Keyed, Place, initialize

    layers = []
    for i, (visible, hidden) in enumerate(pairwise(widths)):
        fans, place = {"fan_in": visible, "fan_out": hidden}, Place(activation=activation, first=i == 0)
        noise = Keyed(Stream(seed, "weight", layer=i))
        weight = initialize(init, noise, (hidden, visible), **fans, place=place).to(like).contiguous()
        decoder = weight
        if not tied:
            fans, noise = {"fan_in": hidden, "fan_out": visible}, Keyed(Stream(seed, "decoder weight", layer=i))
            decoder = initialize(init, noise, (visible, hidden), **fans, place=place).T.to(like).contiguous()
        layers.append(Layer(weight, like.new_zeros(hidden), decoder, like.new_zeros(visible)))
    return layers


def encode(rows: Tensor, layers: Sequence[Layer], activation: Activation) -> Tensor:
    """h_l = f(h_{l-1} W_l^T + b_l), h_0 = rows; rows themselves for no layers."""
    for layer in layers:
        rows = affine_map(rows, layer.weight, layer.bias, activation)
    return rows


def scores(codes: Tensor, layers: Sequence[Layer], activation: Activation) -> Tensor:
    """z of the lowest layer's reconstruction g(z): h_{l-1} = f(h_l D_l + c_l) down to it, without g."""
    for layer in reversed(layers[1:]):
        codes = affine_map(codes, layer.decoder.T, layer.decoder_bias, activation)
    return affine_map(codes, layers[0].decoder.T, layers[0].decoder_bias, None)


def affine_map(rows: Tensor, weight: Tensor, bias: Tensor, activation: Activation | None) -> Tensor:
    """f(rows @ weight^T + bias), new, block by block."""
    result = rows.new_empty(len(rows), len(weight))
    for block, out in zip(rows.split(_BLOCK), result.split(_BLOCK), strict=True):
        torch.addmm(bias, block, weight.T, out=out)
        if activation is not None:
            activation.apply(out, out)
    return result
