"""Experiments: changes of a training whose effect tells a cause. Each makes a Training of a Training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from fanin.diagnosis.sample import Sample
from fanin.training import Batch, OptimizerSpec, Training

Change = Callable[[Training], Training]


def rate(factor: float) -> Change:
    """The learning rate times a factor, in every group."""
    return lambda training: training.changed(optimizer=training.optimizer.scaled(factor))


def adam(training: Training, lr: float = 1e-3) -> Training:
    """Adam at its defaults, over all parameters that have gradients."""
    return training.changed(optimizer=OptimizerSpec(f"Adam at {lr:g}", factory=partial(_adam, lr=lr)))


def _adam(parameters: object, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr)  # type: ignore[arg-type] - what a network's parameters() is


def without_decay(training: Training) -> Training:
    """No weight decay."""
    return training.changed(optimizer=training.optimizer.with_options(weight_decay=0.0))


def standardized(sample: Sample) -> Change:
    """Inputs shifted and scaled to mean 0 and deviation 1: each feature of rows, all together of anything else."""
    x = sample.inputs
    if x.feature_stds is not None and x.feature_means is not None:
        mean, std = x.feature_means, x.feature_stds
        std = torch.where(std > 1e-12 * max(float(std.max()), 1e-300), std, torch.ones_like(std))
    else:
        mean, std = torch.tensor(x.mean), torch.tensor(x.std or 1.0)

    def change(batch: Batch) -> Batch:
        return _with_first(batch, lambda t: ((t.double() - mean.to(t.device)) / std.to(t.device)).to(t.dtype))

    return lambda training: training.changed(change=_after(training.change, change))


def standardized_targets(sample: Sample) -> Change:
    """The loss sees real targets shifted and scaled to mean 0 and deviation 1 by column; see `in_deviations`."""
    mean, std = _moments(sample)

    def make(training: Training) -> Training:
        def loss(outputs: object, targets: Tensor) -> Tensor:
            scaled = (targets.double() - mean.to(targets.device)) / std.to(targets.device)
            return training.loss(outputs, scaled.to(targets.dtype))

        return training.changed(loss=loss)

    return make


def in_deviations(sample: Sample) -> Sample:
    """The sample with its targets standardised likewise: what outputs of such a training are held against."""
    assert sample.targets.tensor is not None
    mean, std = _moments(sample)
    return replace(sample, targets=replace(sample.targets, tensor=(sample.targets.tensor.double() - mean) / std))


def _moments(sample: Sample) -> tuple[Tensor, Tensor]:
    assert sample.targets.tensor is not None
    y = sample.targets.tensor.double()
    return y.mean(0), y.std(0, correction=0).clamp_min(1e-12)


def initialized(scheme: str) -> Change:
    """All weights drawn anew by fanin.init_."""
    from fanin.initializers.module import init_

    def change(training: Training) -> Training:
        def make() -> nn.Module:
            model = training.make()
            init_(model, scheme)  # under the run's seed
            return model

        return training.changed(make=make)

    return change


def batches_of(size: int) -> Change:
    """Mini-batches of another size."""
    return lambda training: training.changed(batches=training.batches.with_batch_size(size))


def _with_first(batch: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with its first tensor changed; targets that were the inputs stay what they are."""
    first = batch.first
    targets = first if batch.targets is None else batch.targets
    inputs = tuple(function(x) if x is first else x for x in batch.inputs)
    named = {k: function(x) if x is first else x for k, x in batch.named.items()}
    return replace(batch, inputs=inputs, named=named, targets=targets)


def _after(first: Callable[[Batch], Batch] | None, second: Callable[[Batch], Batch]) -> Callable[[Batch], Batch]:
    return second if first is None else lambda batch: second(first(batch))


def references(sample: Sample) -> dict[str, Change]:
    """Usual ways to train: what a network and its data can be expected to do in so many steps."""
    found: dict[str, Change] = {"lr x 10": rate(10), "lr / 10": rate(0.1), "Adam at 1e-3": adam}
    found["initialised anew, Adam"] = lambda training: adam(initialized("kaiming_normal")(training))
    if not sample.inputs.tokens and not sample.inputs.broken and sample.inputs.std:
        scaled = standardized(sample)
        found |= {"inputs standardised": scaled, "inputs standardised, Adam at 1e-2": lambda t: adam(scaled(t), 1e-2)}
    else:
        found["Adam at 1e-2"] = partial(adam, lr=1e-2)
    return found


def unfrozen(training: Training) -> Training:
    """Every parameter has a gradient and is the optimiser's."""

    def make() -> nn.Module:
        model = training.make()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model

    spec = training.optimizer
    if spec.kind is not None and spec.groups:
        options = dict(spec.groups[0][0])
        names = tuple(name for name, _ in make().named_parameters())
        spec = replace(spec, groups=((options, names),))
    return training.changed(make=make, optimizer=spec)
