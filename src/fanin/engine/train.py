"""The one training loop: a cohort of trials in, their records and trained parameters out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fanin.engine.data import Data, Gatherer
from fanin.engine.environment import environment
from fanin.engine.ledger import Ledger, Outcome
from fanin.engine.network import Network, widths
from fanin.engine.optimizers import Optimizer
from fanin.engine.passes import Passes
from fanin.engine.products import LiveColumns, dense
from fanin.recipe import Trial, check_against
from fanin.streams import Stream


def train(
    trials: Sequence[Trial],
    ids: Sequence[str],
    data: Data,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_epoch: Callable[[int], object] | None = None,
) -> list[Outcome]:
    """Train a cohort: trials whose recipes differ in numbers only. Each result is that of the trial alone.

    `on_epoch(epoch)` is called after each epoch. A member whose loss is not finite is frozen and recorded as diverged;
    its neighbours go on untouched.
    """
    recipe, members, batch = trials[0].recipe, len(trials), trials[0].recipe.batch_size
    check_against(recipe, examples=len(data.train_labels), classes=data.classes)
    steps = len(data.train_labels) // batch
    sizes = widths(recipe, data.features, data.classes)
    network = Network(recipe, sizes, members, dtype=dtype, device=torch.device(device))
    network.initialize(trials)
    layers, gradients = network.layers, network.layer_gradients
    optimizer = Optimizer(trials, network)
    products = dense(len(layers), recipe.precision)
    columns = data.columns(batch, recipe.hidden[0]) if recipe.hidden else None
    first = LiveColumns(layers[0].weight, batch, recipe.precision)
    if columns:
        products[0] = first
    passes = Passes(layers, recipe, batch, products)
    gather = Gatherer(data.train_inputs, data.train_labels, data.scale, members, batch, dtype=dtype)
    ledger = Ledger(trials, network, optimizer, data)
    dropout = recipe.dropout > 0

    def again() -> float:
        """Loss and gradients of the same batch at the parameters as they are now (LBFGS asks for them)."""
        passes.forward(layers, dropout=dropout, update=True)
        passes.backward(layers, gradients, dropout=dropout)
        return float(passes.losses[0])

    for epoch in range(1, recipe.epochs + 1):
        begun = time.perf_counter()
        batches = _batches(trials, epoch, data.train_labels, steps, batch)
        live = columns.of(batches, members) if columns else None
        costs: list[list[float]] = []
        for step in range(steps):
            gather(batches[step], passes.inputs, passes.labels)
            if live:
                first.choose(next(live))
            if dropout:
                draw_masks(trials, passes.masks, epoch, step)
            passes.forward(layers, dropout=dropout, update=True)
            costs.append(passes.losses.tolist())
            if not all(map(math.isfinite, costs[step])) and not ledger.freeze_diverged(
                passes, costs[step], epoch, step
            ):
                break
            passes.backward(layers, gradients, dropout=dropout)
            optimizer.step(passes.losses, again)
        ledger.close_epoch(epoch, costs, time.perf_counter() - begun)
        if not ledger.alive:
            break
        if on_epoch is not None:
            on_epoch(epoch)
    return ledger.outcomes(ids, environment(torch.device(device), members=members))


def _batches(trials: Sequence[Trial], epoch: int, labels: Tensor, steps: int, batch: int) -> Tensor:
    """Row s, (M * B,): the examples of step s, the first member's, then the second's, and so on."""
    orders = [torch.from_numpy(Stream(t.seed, "order", epoch=epoch).permutation(len(labels))) for t in trials]
    kept = torch.stack([order[: steps * batch] for order in orders])
    return kept.view(len(trials), steps, batch).transpose(0, 1).reshape(steps, -1).to(labels.device)


def draw_masks(trials: Sequence[Trial], masks: Sequence[Tensor], epoch: int, step: int) -> None:
    """Fill `masks` with 0 (with probability p) and 1 / (1 - p); p is rounded to a multiple of 2^-16.

    Noise u is keyed by seed, epoch, step and layer, and an activation is dropped where u < p: of two arms with equal
    seeds, the one with the larger p drops what the other drops, and more.
    """
    for m, trial in enumerate(trials):
        cut = min(round(trial.recipe.dropout * 2**16), 2**16 - 1)
        keep = 2**16 / (2**16 - cut)
        for i, mask in enumerate(masks):
            noise = Stream(trial.seed, "dropout", epoch=epoch, step=step, layer=i).uint16(mask[m].numel())
            kept = torch.from_numpy(noise >= cut).view(mask[m].shape)
            mask[m].copy_(kept).mul_(keep)
