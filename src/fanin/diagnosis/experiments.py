"""Experiments: changes of a training whose effect tells a cause; they are the remedies that fanin.prove applies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fanin.diagnosis.sample import MOST, Sample
from fanin.proof.remedies import draw, set_batch_size, set_lr, set_optimizer
from fanin.proof.scaling import scale_inputs, scale_targets
from fanin.training import Training, optimizers

Change = Callable[[Training], Training]

standardized: Change = partial(scale_inputs, examples=MOST)
standardized_targets: Change = partial(scale_targets, examples=MOST)
without_decay: Change = partial(set_optimizer, weight_decay=0.0)
initialized: Change = partial(draw, scheme="kaiming_normal")


def rate(factor: float) -> Change:
    """The learning rate times a factor, in every group."""
    return partial(set_lr, factor=factor)


def adam(training: Training, lr: float = 1e-3) -> Training:
    """Adam, over all parameters, with an eps that their format can hold."""
    return set_optimizer(training, optimizers.adam, lr=lr)


def batches_of(size: int) -> Change:
    """Mini-batches of another size."""
    return partial(set_batch_size, size=size)


def references(sample: Sample) -> dict[str, Change]:
    """Usual ways to train: what a network and its data can be expected to do in so many steps."""
    found: dict[str, Change] = {"lr x 10": rate(10), "lr / 10": rate(0.1), "Adam at 1e-3": adam}
    found["initialised anew, Adam"] = lambda training: adam(initialized(training))
    if not sample.inputs.tokens and not sample.inputs.broken and sample.inputs.std and not sample.targets.like_inputs:
        found["inputs standardised"] = standardized
        found["inputs standardised, Adam at 1e-2"] = lambda training: adam(standardized(training), 1e-2)
    else:
        found["Adam at 1e-2"] = partial(adam, lr=1e-2)
    return found
