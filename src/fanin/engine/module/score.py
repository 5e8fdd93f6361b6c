"""Loss and accuracy of a user's network: of a batch while it trains, of a whole data set in evaluation mode."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanin.engine.evaluate import Score
from fanin.engine.module.making import Form
from fanin.training.losses import main_output

_ROWS = 1000  # at a time, as in engine.evaluate


def mean_loss(outputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """The mean loss of a batch: nn.CrossEntropyLoss, or nn.MSELoss against one_hot(label)."""
    if loss == "cross_entropy":
        return functional.cross_entropy(outputs, labels)
    return functional.mse_loss(outputs, functional.one_hot(labels, outputs.shape[1]).to(outputs.dtype))


def losses(outputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Each example's own loss (N,), of which `mean_loss` is the mean."""
    if loss == "cross_entropy":
        return functional.cross_entropy(outputs, labels, reduction="none")
    targets = functional.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
    return functional.mse_loss(outputs, targets, reduction="none").mean(1)


def score(network: nn.Module, form: Form, rows: Tensor, labels: Tensor, loss: str, *, raw: bool = False) -> Score:
    """The network's score on stored rows (N, features), summed in float64; `raw` also feeds them unscaled.

    The network is left in evaluation mode.
    """
    network.eval()
    total = right = right_raw = 0.0
    with torch.no_grad():
        for start in range(0, len(labels), _ROWS):
            part, truth = rows[start : start + _ROWS], labels[start : start + _ROWS]
            outputs = main_output(network(form.inputs(part)))
            total += float(losses(outputs, truth, loss).sum(dtype=torch.float64))
            right += int((outputs.argmax(1) == truth).sum())
            if raw and form.scale != 1:
                outputs = main_output(network(form.inputs(part, raw=True)))
                right_raw += int((outputs.argmax(1) == truth).sum())
    count = len(labels)
    on_raw = (right_raw if form.scale != 1 else right) / count if raw else math.nan
    return Score(total / count, right / count, on_raw)
