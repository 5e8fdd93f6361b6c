"""Network: the parameters of a stack of M equal multilayer perceptrons, flat, with views by layer; and their start.

Member m's parameters are one contiguous row, so that one optimiser call moves all of them; every tensor in it starts
and ends on whole vector registers (see engine.buffers). The first hidden layer's weight lies there input by input, so
that what belongs to one input can be read as a row (see engine.sparse).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fanin.engine.buffers import pitch
from fanin.initializers.draw import start
from fanin.recipe import Recipe, Trial


@dataclass(frozen=True)
class Affine:
    """Scale and shift of a normalised layer, or their gradients, (M, 1, out)."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Norm(Affine):
    """Batch normalisation of all M members: scale, shift and running statistics, (M, 1, out)."""

    running_mean: Tensor
    running_var: Tensor


@dataclass(frozen=True)
class Layer:
    """One layer of all M members: weight (M, out, in), bias (M, 1, out)."""

    weight: Tensor
    bias: Tensor
    norm: Norm | None = None

    def member(self, m: int) -> Layer:
        """The same layer of member m alone, as a stack of one."""
        norm = self.norm and Norm(*(t[m : m + 1] for t in _tensors(self.norm)))
        return Layer(self.weight[m : m + 1], self.bias[m : m + 1], norm)


@dataclass(frozen=True)
class Gradients:
    """The gradients of one layer's parameters, shaped as they are."""

    weight: Tensor
    bias: Tensor
    norm: Affine | None = None

    @classmethod
    def like(cls, layer: Layer) -> Gradients:
        """Zeros for a layer's parameters."""
        norm = layer.norm and Affine(torch.zeros_like(layer.norm.scale), torch.zeros_like(layer.norm.shift))
        return cls(torch.zeros_like(layer.weight), torch.zeros_like(layer.bias), norm)


def _tensors(norm: Norm) -> Iterable[Tensor]:
    return norm.scale, norm.shift, norm.running_mean, norm.running_var


def widths(recipe: Recipe, features: int, classes: int) -> list[int]:
    """Layer widths from input to output."""
    return [features, *recipe.hidden, recipe.outputs or classes]


class Network:
    """M networks of one shape: `parameters` and `gradients` (M, P), and both by layer as views."""

    def __init__(
        self, recipe: Recipe, sizes: Sequence[int], members: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        shapes = [_shapes(recipe, pair, last=i == len(sizes) - 2) for i, pair in enumerate(pairwise(sizes))]
        length = sum(pitch(shape.numel()) for layer in shapes for shape in layer.values())
        self.parameters = torch.zeros(members, length, dtype=dtype, device=device)
        self.gradients = torch.zeros_like(self.parameters)
        self.layers = [_layer(views) for views in _views(self.parameters, shapes)]
        self.layer_gradients = [_gradients(views) for views in _views(self.gradients, shapes)]

    def initialize(self, trials: Sequence[Trial]) -> None:
        """Draw each member's start from its own trial's streams, one member at a time."""
        for m, trial in enumerate(trials):
            self.begin(m, trial)

    def begin(self, m: int, trial: Trial) -> None:
        """Draw member m's start from the trial's streams."""
        for i, layer in enumerate(self.layers):
            _, fan_out, fan_in = layer.weight.shape
            layer.weight[m], layer.bias[m, 0] = start(trial.recipe, trial.seed, i, fan_in, fan_out)
            if layer.norm is not None:
                layer.norm.scale[m], layer.norm.shift[m] = 1, 0
                layer.norm.running_mean[m], layer.norm.running_var[m] = 0, 1

    def reset(self) -> None:
        """Put every number of every member back to zero, and running variances to one."""
        self.parameters.zero_()
        self.gradients.zero_()
        for norm in (layer.norm for layer in self.layers if layer.norm is not None):
            norm.running_mean.zero_()
            norm.running_var.fill_(1)

    def moving(self) -> list[Tensor]:
        """Every tensor that training moves, of all members at once: the parameters, and running statistics by layer."""
        norms = (layer.norm for layer in self.layers if layer.norm is not None)
        return [self.parameters, *(t for norm in norms for t in (norm.running_mean, norm.running_var))]

    def state(self, m: int) -> dict[str, Tensor]:
        """Copies of member m's tensors, by names that `engine.export` turns into an nn.Sequential."""
        out: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            out[f"layers.{i}.weight"] = layer.weight[m].clone(memory_format=torch.contiguous_format)
            out[f"layers.{i}.bias"] = layer.bias[m, 0].clone()
            if layer.norm is not None:
                names = ("scale", "shift", "running_mean", "running_var")
                for name, tensor in zip(names, _tensors(layer.norm), strict=True):
                    out[f"layers.{i}.{name}"] = tensor[m, 0].clone()
        return out


def _shapes(recipe: Recipe, fans: tuple[int, int], *, last: bool) -> dict[str, torch.Size]:
    """Shapes of one layer's parameters in one member."""
    fan_in, fan_out = fans
    shapes = {"weight": torch.Size((fan_out, fan_in)), "bias": torch.Size((1, fan_out))}
    if recipe.normalization == "batch" and not last:
        shapes |= {"scale": torch.Size((1, fan_out)), "shift": torch.Size((1, fan_out))}
    return shapes


def _views(flat: Tensor, shapes: Sequence[dict[str, torch.Size]]) -> list[dict[str, Tensor]]:
    """Views (M, ...) into the rows of `flat`, layer by layer."""
    layers, start = [], 0
    for layer in shapes:
        views = {}
        for name, shape in layer.items():
            view = flat[:, start : start + shape.numel()]
            if name == "weight" and not layers and len(shapes) > 1:  # the first hidden layer's: input by input
                views[name] = view.view(len(flat), *shape[::-1]).transpose(1, 2)
            else:
                views[name] = view.view(len(flat), *shape)
            start += pitch(shape.numel())
        layers.append(views)
    return layers


def _layer(views: dict[str, Tensor]) -> Layer:
    if "scale" not in views:
        return Layer(views["weight"], views["bias"])
    scale, shift = views["scale"], views["shift"]
    norm = Norm(scale, shift, torch.zeros(shift.shape).to(shift), torch.ones(shift.shape).to(shift))
    return Layer(views["weight"], views["bias"], norm)


def _gradients(views: dict[str, Tensor]) -> Gradients:
    norm = Affine(views["scale"], views["shift"]) if "scale" in views else None
    return Gradients(views["weight"], views["bias"], norm)
