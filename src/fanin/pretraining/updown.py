"""The up-down algorithm: fine-tuning a deep belief network as the generative model it is, by contrastive wake-sleep."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean

import torch
from torch import Tensor

from fanin.pretraining.autoencoder.greedy import batches
from fanin.pretraining.boltzmann.uniforms import Uniforms
from fanin.pretraining.corruption import Corruption
from fanin.pretraining.divergence import NotFiniteError


@dataclass(frozen=True)
class Directed:
    """A lower layer with weights of its own for each direction, both (hidden, visible), all Bernoulli.

    q(h | v) = sigmoid(v recognition^T + bias_hidden) and p(v | h) = sigmoid(h generative + bias_visible).
    """

    recognition: Tensor
    bias_hidden: Tensor
    generative: Tensor
    bias_visible: Tensor

    def finite(self) -> bool:
        """Whether every weight and bias is."""
        parts = (self.recognition, self.bias_hidden, self.generative, self.bias_visible)
        return all(bool(p.isfinite().all()) for p in parts)

    def up(self, v: Tensor) -> Tensor:
        """q(h = 1 | v)."""
        return torch.addmm(self.bias_hidden, v, self.recognition.T).sigmoid_()

    def down(self, h: Tensor) -> Tensor:
        """p(v = 1 | h)."""
        return torch.addmm(self.bias_visible, h, self.generative).sigmoid_()


def up_down(
    v: Tensor, lower: Sequence[Directed], top: Directed, *, k: int, lr: float, uniforms: Uniforms
) -> tuple[float, float]:
    """One update of all weights, in place, for a batch v (B, V) in [0, 1] (Hinton, Osindero and Teh, 2006, appendix B).

    Wake: states s_0 = v, s_{l+1} ~ q(. | s_l); generative weights learn to give s_l back, lr (s_l - p(s_l | s_{l+1}))
    s_{l+1}^T. The top machine, whose `recognition` and `generative` are one tensor, learns by k sweeps from s_L. Sleep:
    from where these end down, x_l ~ p(. | x_{l+1}), x_0 the means; recognition weights learn to give x_{l+1} back.
    Returns the batch's mean squared errors, summed over layers: of the wake's predictions and of the sleep's.
    """
    rate = lr / len(v)
    awake = [v]
    for layer in lower:
        awake.append(_draw(layer.up(awake[-1]), uniforms))
    asleep = [_train_top(awake[-1], top, k=k, rate=rate, uniforms=uniforms)]
    for layer in reversed(lower):
        means = layer.down(asleep[0])
        asleep.insert(0, means if layer is lower[0] else _draw(means, uniforms))
    wake_error = sleep_error = 0.0
    for i, layer in enumerate(lower):
        missed = awake[i] - layer.down(awake[i + 1])
        unseen = asleep[i + 1] - layer.up(asleep[i])
        layer.generative.addmm_(awake[i + 1].T, missed, alpha=rate)
        layer.bias_visible.add_(missed.sum(0), alpha=rate)
        layer.recognition.addmm_(unseen.T, asleep[i], alpha=rate)
        layer.bias_hidden.add_(unseen.sum(0), alpha=rate)
        wake_error += float(missed.square().sum()) / len(v)
        sleep_error += float(unseen.square().sum()) / len(v)
    return wake_error, sleep_error


def tune(
    lower: Sequence[Directed], top: Directed, rows: Tensor, *, batch: int, k: int, lr: float, seed: int, done: int
) -> Iterator[tuple[float, float]]:
    """Epochs of `up_down` on all rows, numbered from done + 1; yields each one's mean errors, of wake and of sleep.

    Rows come in the order of stream ("pretraining order", seed, epoch, layer), the layer being one above the top.
    NotFiniteError where numbers no longer are finite; the layers are then spoilt.
    """
    v = rows.new_empty(batch, rows.shape[1])
    clean = Corruption("none", 0.0, tuple(v.shape), like=v)
    uniforms = Uniforms(seed, "up-down", device=rows.device)
    for epoch in count(done + 1):
        steps = batches(rows, clean, v, v, seed=seed, epoch=epoch, place=len(lower) + 1)
        errors = []
        for step in steps:
            errors.append(up_down(v, lower, top, k=k, lr=lr, uniforms=uniforms.at(epoch=epoch, step=step)))
            if not math.isfinite(sum(errors[-1])):
                raise NotFiniteError(step, "errors not finite")
        if not all(layer.finite() for layer in (*lower, top)):
            raise NotFiniteError(len(errors), "weights not finite")
        wake, sleep = (fmean(e) for e in zip(*errors, strict=True))
        yield wake, sleep


def _train_top(v: Tensor, top: Directed, *, k: int, rate: float, uniforms: Uniforms) -> Tensor:
    """Contrastive divergence with k sweeps from v on the top machine; where they end, of the visible side."""
    first = last = top.up(v)
    x = v
    for _ in range(k):
        x = _draw(top.down(_draw(last, uniforms)), uniforms)
        last = top.up(x)
    top.recognition.addmm_(first.T, v, alpha=rate).addmm_(last.T, x, alpha=-rate)
    top.bias_hidden.add_((first - last).sum(0), alpha=rate)
    top.bias_visible.add_((v - x).sum(0), alpha=rate)
    return x


def _draw(means: Tensor, uniforms: Uniforms) -> Tensor:
    """1 with these probabilities, else 0, new."""
    return uniforms.fill_(torch.empty_like(means)).lt_(means)
