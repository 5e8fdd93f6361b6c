"""A stack trained epoch by epoch, with what is watched: what `fanin pretrain` runs, so that it can show and keep it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from fanin.pretraining.autoencoder import StackedAutoencoder
from fanin.pretraining.boltzmann.epochs import WATCHED
from fanin.pretraining.boltzmann.rows import evenly
from fanin.pretraining.dbn import DBN


def epochs(model: DBN | StackedAutoencoder, X: Tensor, held_out: Tensor) -> Iterator[dict[str, Any]]:
    """Train in place what is left of all layers' epochs; after each one yields its entry, layer and epoch from 1.

    The weights are those of model.fit(X), bit for bit, wherever a model was loaded on the way; sets its warm_start.
    Entries hold reconstruction_error, the mean square of v - E[v | h] in the inputs of that layer, seconds, and: of a
    Boltzmann machine pseudo_likelihood and free_energy_gap = mean F(held_out) - mean F(X), of an autoencoder loss and
    held_out_error; each on at most 500 rows. DivergedError: the model is then as before that epoch. ValueError as
    fit's.
    """
    model.set_params(warm_start=True)
    if isinstance(model, DBN):
        yield from model.fit_epochs(X, held_out=held_out)
    else:
        yield from _autoencoders(model, X, held_out)


def _autoencoders(model: StackedAutoencoder, X: Tensor, held_out: Tensor) -> Iterator[dict[str, Any]]:
    watched = evenly(X, WATCHED), evenly(held_out, WATCHED)
    begun = time.perf_counter()
    for entry in model.fit_epochs(X):
        seconds = time.perf_counter() - begun
        errors = [layer_error(model, rows, entry["layer"]) for rows in watched]
        figures = dict(zip(("reconstruction_error", "held_out_error"), errors, strict=True))
        yield entry | {"seconds": seconds} | figures
        begun = time.perf_counter()


@torch.no_grad()
def layer_error(model: StackedAutoencoder, rows: Tensor, layer: int) -> float:
    """Mean of (v - y)^2, v the inputs of a layer (from 1) for these rows, uncorrupted, and y what it makes of them."""
    up, down = up_blocks(model), down_blocks(model)
    inputs = nn.Sequential(*up[: layer - 1])(rows)
    return float((down[layer - 1](up[layer - 1](inputs)) - inputs).square().mean())


def up_blocks(model: DBN | StackedAutoencoder) -> list[nn.Sequential]:
    """The layers upwards, bottom up, each Linear and activation: all of them in turn are `transform`."""
    return _blocks(model.to_sequential())


def down_blocks(model: DBN | StackedAutoencoder) -> list[nn.Sequential]:
    """The layers downwards, bottom up: block l leads from codes of layer l + 1 to its inputs."""
    return _blocks(model.decoder())[::-1]


def _blocks(network: nn.Sequential) -> list[nn.Sequential]:
    """A block for each Linear, with what follows it."""
    modules = list(network)
    starts = [i for i, module in enumerate(modules) if isinstance(module, nn.Linear)]
    ends = [*starts[1:], len(modules)]
    return [nn.Sequential(*islice(modules, a, b)) for a, b in zip(starts, ends, strict=True)]
