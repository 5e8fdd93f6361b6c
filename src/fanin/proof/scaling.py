"""Inputs and targets in units of their own mean and deviation, as a change of a Training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from fanin.errors import FaninError
from fanin.training import Batch, Training
from fanin.training.losses import main_output

MOST_BATCHES = 1000  # of a source that does not say how many it has


def scale_inputs(training: Training, *, examples: int | None = None) -> Training:
    """(x - mean) / deviation for the first input, moments over the training data, in training and evaluation.

    examples: only about so many are looked at for the moments.

    Inputs (N, F) have moments for each feature, images (N, C, H, W) for each channel, all others one pair. What does
    not vary keeps its scale. Integers (token ids) are refused, and data without targets, whose inputs are the targets.
    """
    batch = next(training.stream(0))
    if not batch.first.is_floating_point():
        raise FaninError(f"remedy input-scaling: expected inputs of real numbers; got {batch.first.dtype}")
    if batch.targets is None:
        raise FaninError("remedy input-scaling: the inputs are the targets too; scale the data themselves")
    mean, deviation = moments(one.first for one in _once(training, examples))

    def scaled(batch: Batch) -> Batch:
        return _with_first(batch, _standard(batch.first, mean, deviation))

    return training.changed(change=_then(training, scaled))


def scale_targets(training: Training, *, examples: int | None = None) -> Training:
    """(y - mean) / deviation in training; evaluated networks put out deviation * z + mean, the targets' own units.

    examples: only about so many are looked at for the moments.
    """
    batch = next(training.stream(0))
    targets = batch.targets
    if not isinstance(targets, Tensor) or not targets.is_floating_point():
        what = "none" if targets is None else str(getattr(targets, "dtype", type(targets).__name__))
        raise FaninError(f"remedy target-scaling: expected targets of real numbers; got {what}")
    mean, deviation = moments(one.targets for one in _once(training, examples))

    def scaled(batch: Batch) -> Batch:
        return replace(batch, targets=_standard(batch.targets, mean, deviation))

    def make() -> nn.Module:
        return InUnits(training.make(), mean, deviation)

    spec = training.optimizer.renamed(lambda name: f"network.{name}")
    return training.changed(make=make, change=_then(training, scaled), optimizer=spec)


class InUnits(nn.Module):
    """A network trained on standardised targets: z in training mode, deviation * z + mean in evaluation mode."""

    def __init__(self, network: nn.Module, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.network = network
        self.training = network.training
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The network's outputs."""
        outputs = self.network(*inputs, **named)
        if self.training:
            return outputs
        z = main_output(outputs)
        mean, deviation = (_fitting(t, z) for t in (self.mean, self.deviation))
        return z * deviation + mean


def moments(parts: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation over all examples, in float64: by feature, by channel, or one pair (see scale_inputs).

    They have the shape to be broadcast against a batch, without its first axis. A deviation of rounding's size is 1.
    """
    count, total, square, shift = 0.0, None, None, None
    for part in parts:
        x = part.detach().to("cpu", torch.float64)
        axes = tuple(i for i in range(x.dim()) if i != 1) if x.dim() in (2, 4, 5) else tuple(range(x.dim()))
        shift = x.mean(axes, keepdim=True) if shift is None else shift  # a shift near the mean keeps all digits
        x = x - shift
        count += x.numel() / shift.numel()
        total = x.sum(axes, keepdim=True) + (0 if total is None else total)
        square = (x * x).sum(axes, keepdim=True) + (0 if square is None else square)
    if total is None or square is None or shift is None:
        raise FaninError("data: expected at least one batch; got none")
    offset = total / count
    mean, variance = shift + offset, (square / count - offset**2).clamp(min=0)
    deviation = variance.sqrt()
    flat = deviation <= 1e-7 * mean.abs()
    return mean.squeeze(0), torch.where(flat, torch.ones_like(deviation), deviation).squeeze(0)


def _once(training: Training, examples: int | None) -> Iterator[Batch]:
    """The training data once, as they are before this change; in some order where only a part is wanted."""
    if examples is not None:
        size = training.batches.batch_size or 1
        found = islice(training.batches.epoch(0), -(-examples // size))
    else:
        most = MOST_BATCHES if training.batches.examples is None else None
        found = islice(training.batches.in_order().epoch(0), most)
    return found if training.change is None else map(training.change, found)


def _then(training: Training, change: Any) -> Any:
    """The change after those that there are."""
    before = training.change
    return change if before is None else lambda batch: change(before(batch))


def _standard(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return (x - mean.to(x)) / deviation.to(x)


def _fitting(moment: Tensor, z: Tensor) -> Tensor:
    """Moments of targets (N, 1) beside outputs (N,), and the other way round."""
    return (moment.reshape(()) if moment.numel() == 1 else moment).to(z)


def _with_first(batch: Batch, x: Tensor) -> Batch:
    """The batch with another first tensor."""
    for i, value in enumerate(batch.inputs):
        if value is batch.first:
            return replace(batch, inputs=(*batch.inputs[:i], x, *batch.inputs[i + 1 :]))
    return replace(batch, named={k: x if v is batch.first else v for k, v in batch.named.items()})
