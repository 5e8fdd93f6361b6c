"""The bound: a recipe's matrix products and nothing else, on the path and with the shapes fanin uses."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from fanin.driver.plan import stack_size
from fanin.engine import matmul
from fanin.engine.network import widths
from stopwatch import Done, Stopwatch
from ways import WARM_UP, Way, in_memory

Product = tuple[Tensor, Tensor, Tensor]  # left, right, out


def bound(way: Way, watch: Stopwatch) -> Done:
    """One epoch's products: forward, weight gradients, and gradients by every hidden layer."""
    matmul.use(way.path)
    inputs, labels = in_memory()
    classes = int(labels.max()) + 1
    members = stack_size(way.recipe, inputs.shape[1], classes)
    products = step_products(widths(way.recipe, inputs.shape[1], classes), way.recipe.batch_size, members)
    _repeat(products, WARM_UP)
    watch.start()
    _repeat(products, way.steps)
    watch.stop()
    return Done(members, None)


def step_products(sizes: list[int], batch: int, members: int) -> list[Product]:
    """One step's products, first to last, on buffers that keep their places as the engine's do."""
    activations = [torch.randn(members, batch, width) for width in sizes]
    deltas = [torch.randn(members, batch, width) for width in sizes]
    weights = [torch.randn(members, fan_out, fan_in) for fan_in, fan_out in pairwise(sizes)]
    gradients = [torch.empty_like(weight) for weight in weights]
    outs = [torch.empty_like(activation) for activation in activations]  # not fed on: values are to stay tame
    forward, backward = [], []
    for i, weight in enumerate(weights):
        forward.append((activations[i], weight.transpose(1, 2), outs[i + 1]))
        if i > 0:
            backward.append((deltas[i + 1], weight, outs[i]))
        backward.append((deltas[i + 1].transpose(1, 2), activations[i], gradients[i]))
    return forward + backward[::-1]


def _repeat(products: list[Product], steps: int) -> None:
    for _ in range(steps):
        for left, right, out in products:
            torch.bmm(left, right, out=out)
