"""The way down a deep belief network: its weights, the means and draws they lead to, layers for fine-tuning.

Machines that are trained go down by the weights they go up by; fine-tuning gives all but the top one weights of their
own for this direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fanin.pretraining.boltzmann.energy import visible_input
from fanin.pretraining.boltzmann.rbm import RBM
from fanin.pretraining.boltzmann.uniforms import Uniforms
from fanin.pretraining.boltzmann.units import Units
from fanin.pretraining.stacking import tensors, units
from fanin.pretraining.updown import Directed


@dataclass(frozen=True)
class Downward:
    """One layer downwards: p(v | h) of `units` with the inputs b + h W; weight W (hidden, visible), bias b."""

    weight: Tensor
    bias: Tensor
    units: Units

    def inputs(self, h: Tensor) -> Tensor:
        """b + h W, (rows, visible)."""
        return visible_input(h, self.weight, self.bias)


def downward(machines: Sequence[RBM], tuned: Sequence[tuple[Tensor, Tensor]]) -> list[Downward]:
    """All layers, bottom up, by `tuned` (weight, bias) where fine-tuning left some, else by the machine's own."""
    own = [(weight, visible) for weight, _, visible in map(tensors, machines[len(tuned) :])]
    return [Downward(*pair, units(machine)) for pair, machine in zip([*tuned, *own], machines, strict=True)]


def down_means(layers: Sequence[Downward], codes: Tensor) -> Tensor:
    """v_{l-1} = E[v | h = v_l] from codes (rows, hidden of the last layer) down through all layers."""
    for layer in reversed(layers):
        codes = layer.units.mean_(layer.inputs(codes))
    return codes


def down_draws(layers: Sequence[Downward], values: Tensor, *, seed: int, number: int, last_means: bool) -> Tensor:
    """v_{l-1} ~ p(v | h = v_l), down through all layers, by stream ("descent", seed, number, place).

    last_means: E[v | h] of the lowest layer instead of a draw.
    """
    for place in reversed(range(len(layers))):
        layer = layers[place]
        uniforms = Uniforms(seed, "descent", device=values.device).at(epoch=number, step=place)
        inputs = layer.inputs(values)
        drawn = layer.units.sample_(inputs, uniforms.fill_(torch.empty_like(inputs)))
        values = inputs if last_means and place == 0 else drawn  # inputs have become means
    return values


def directed(machines: Sequence[RBM], layers: Sequence[Downward]) -> list[Directed]:
    """Copies of all layers with weights for both directions; those of the top one are one tensor."""
    copies = []
    for machine, layer in zip(machines, layers, strict=True):
        components, hidden, _ = tensors(machine)
        recognition = components.clone()
        generative = recognition if machine is machines[-1] else layer.weight.clone()
        copies.append(Directed(recognition, hidden.clone(), generative, layer.bias.clone()))
    return copies
