"""Fine-tuning a whole stack end to end as one deep autoencoder, by plain autograd."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fanin.pretraining.autoencoder.greedy import Task, batches
from fanin.pretraining.autoencoder.layer import Layer
from fanin.pretraining.divergence import NotFiniteError

# Autograd, not explicit gradients: fine-tuning is a few epochs of one network, and any depth, activation and tying is
# right by construction; the layers' explicit passes, where most time goes, stay simple.


def tune(
    layers: Sequence[Layer], rows: Tensor, task: Task, *, lr: float, momentum: float, batch: int, seed: int, done: int
) -> Iterator[float]:
    """Train the stack in place on L(x, y(x~)), of its own input and output; yields the mean loss of each epoch.

    Epochs are numbered from done + 1, their streams keyed by the place above the top layer. NotFiniteError leaves the
    layers as they were before the epoch. (Hinton and Salakhutdinov, 2006, "unrolling".)
    """
    leaves = [layer.like([p.clone().requires_grad_() for p in layer.tensors()]) for layer in layers]
    optimizer = torch.optim.SGD([p for leaf in leaves for p in leaf.tensors()], lr=lr, momentum=momentum)
    corruption = task.corrupts(batch, rows)
    clean = rows.new_empty(batch, rows.shape[1])
    inputs = torch.empty_like(clean) if corruption.active else clean
    epoch = done
    while True:
        epoch += 1
        losses = []
        for step in batches(rows, corruption, clean, inputs, seed=seed, epoch=epoch, place=len(layers)):
            loss = unrolled_loss(leaves, inputs, clean, task)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise NotFiniteError(step, f"loss {losses[-1]}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            for layer, leaf in zip(layers, leaves, strict=True):
                layer.assign(leaf)
        yield math.fsum(losses) / len(losses)


def unrolled_loss(layers: Sequence[Layer], inputs: Tensor, clean: Tensor, task: Task) -> Tensor:
    """The mean over rows of L(x, y), y what the stack makes of the corrupted inputs, up and down again."""
    activation, codes = task.activation.module(), inputs
    for layer in layers:
        codes = activation(nn.functional.linear(codes, layer.weight, layer.bias))
    for layer in reversed(layers[1:]):
        codes = activation(torch.addmm(layer.decoder_bias, codes, layer.decoder))
    z = torch.addmm(layers[0].decoder_bias, codes, layers[0].decoder)
    if task.loss == "cross_entropy":
        return nn.functional.binary_cross_entropy_with_logits(z, clean, reduction="sum") / len(clean)
    return nn.functional.mse_loss(task.output.module()(z), clean, reduction="sum") / (2 * len(clean))
