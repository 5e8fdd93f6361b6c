"""What tells how well a model has trained, on data held out: numbers that are at best 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.diagnosis.bed.data import Split

WORST = -1.0  # of every score: diverged, raised, or worse than useless


@dataclass(frozen=True)
class Judge:
    """`score(model)` on held-out data, and the figure that a good model reaches there."""

    score: Callable[[nn.Module], float]
    reference: float


def itself(outputs: Any) -> Any:
    """The outputs as they are."""
    return outputs


def outputs_of(model: nn.Module, x: Tensor, pick: Callable[[Any], Tensor]) -> Tensor:
    """What the model answers in evaluation mode, which is put back."""
    mode = [module.training for module in model.modules()]
    model.eval()
    with torch.no_grad():
        outputs = pick(model(x))
    for module, was in zip(model.modules(), mode, strict=True):
        module.training = was
    return outputs.detach()


def classes_of(outputs: Tensor, cut: float) -> Tensor:
    """The most likely class along the last axis; with one output, whether it is above the cut."""
    return outputs.argmax(-1) if outputs.shape[-1] > 1 else (outputs.squeeze(-1) > cut).long()


def accuracy(
    split: Split, *, cut: float = 0.0, pick: Callable[[Any], Tensor] = itself, reference: float | None = None
) -> Judge:
    """Mean over classes of the share of their examples that are named rightly (equal weight, however rare)."""

    def score(model: nn.Module) -> float:
        outputs = outputs_of(model, split.x_test, pick)
        if not torch.isfinite(outputs).all():
            return WORST
        truth = split.y_test.reshape(-1)
        right = (classes_of(outputs, cut).reshape(-1) == truth).double()
        return torch.stack([right[truth == c].mean() for c in truth.unique()]).mean().item()

    return Judge(score, split.reference if reference is None else reference)


def rounded(split: Split) -> Judge:
    """Accuracy of one output that is to be the class's number."""

    def score(model: nn.Module) -> float:
        outputs = outputs_of(model, split.x_test, itself)
        return (outputs.squeeze(-1).round() == split.y_test).double().mean().item()

    return Judge(score, split.reference)


def r_squared(split: Split, *, pick: Callable[[Any], Tensor] = itself, reference: float | None = None) -> Judge:
    """1 - sum (o - y)^2 / sum (y - mean of its column)^2, and never under -1."""

    def score(model: nn.Module) -> float:
        y = split.y_test.double()
        error = (outputs_of(model, split.x_test, pick).reshape(y.shape).double() - y).square().sum()
        found = (1 - error / (y - y.mean(0)).square().sum()).item()
        return WORST if math.isnan(found) else max(found, WORST)

    return Judge(score, split.reference if reference is None else reference)


def labels_right(split: Split, *, cut: float = 0.0) -> Judge:
    """2 * share of right labels - 1, over all labels of all examples that are about balanced."""

    def score(model: nn.Module) -> float:
        outputs = outputs_of(model, split.x_test, itself)
        return ((outputs > cut) == (split.y_test > 0.5)).double().mean().item()

    return Judge(score, split.reference)
