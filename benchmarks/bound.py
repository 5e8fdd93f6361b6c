"""The bounds: a recipe's matrix products and nothing else, on the path and with the shapes fanin uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, pairwise

import torch
from torch import Tensor

from fanin.driver.plan import stack_size
from fanin.engine import matmul
from fanin.engine.data import Data
from fanin.engine.network import widths
from stopwatch import Done, Stopwatch
from way import WARM_UP, Way, dataset, in_memory

Product = tuple[Tensor, Tensor, Tensor]  # left, right, out
_BATCHES = 16  # as many as fanin makes at a time


def bound(way: Way, watch: Stopwatch) -> Done:
    """One epoch's products: forward, weight gradients, and gradients by every hidden layer."""
    matmul.use(way.path)
    inputs, labels = in_memory()
    classes = int(labels.max()) + 1
    members = stack_size(way.recipe, inputs.shape[1], classes)
    products = step_products(widths(way.recipe, inputs.shape[1], classes), way.recipe.batch_size, members)
    return _timed(lambda: _multiply(products), way, watch, members)


def own(way: Way, watch: Stopwatch) -> Done:
    """The same with the products fanin does: the first layer's by the entries of batches that were made beforehand."""
    matmul.use(way.path)
    data = Data.of(dataset(), torch.device("cpu"))
    batch, hidden = way.recipe.batch_size, way.recipe.hidden
    members = stack_size(way.recipe, data.features, data.classes)
    sparse = data.sparse(way.recipe)
    if sparse is None:
        raise RuntimeError(f"{dataset().name} is not sparse: fanin's products are the dense ones")
    index = torch.randint(len(data.train_labels), (_BATCHES, members * batch))
    batches = cycle(list(sparse.train.batches(index, members, torch.float32)))
    weight, deltas = torch.randn(data.features, hidden[0]), torch.randn(batch, hidden[0])
    above = step_products(widths(way.recipe, data.features, data.classes), batch, members)[1:-1]

    def step() -> None:
        chosen = next(batches)
        for each in chosen:
            each.inputs.times(weight)
        _multiply(above)
        for each in chosen:
            each.transposed.times(deltas)

    return _timed(step, way, watch, members)


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


def _multiply(products: Sequence[Product]) -> None:
    for left, right, out in products:
        torch.bmm(left, right, out=out)


def _timed(step: Callable[[], None], way: Way, watch: Stopwatch, members: int) -> Done:
    for _ in range(WARM_UP):
        step()
    watch.start()
    for _ in range(way.steps):
        step()
    watch.stop()
    return Done(members, None)
