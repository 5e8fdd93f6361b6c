"""Losses: a user's own, or the one that targets call for; calling it, and saying what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fanin.errors import FaninError
from fanin.training.batches import Batch

Loss = Callable[[Any, Any], Tensor]


def call(model: nn.Module, batch: Batch) -> Any:
    """model(*inputs, **named): what it puts out, as it is."""
    return model(*batch.inputs, **batch.named)


def refused(batch: Batch, error: Exception) -> FaninError:
    """What is said where a forward raises on a batch."""
    first = batch.first
    return FaninError(
        f"model: forward raised {type(error).__name__} on a batch of inputs {tuple(first.shape)}, {first.dtype} on "
        f"{first.device}: {error}"
    )


def main_output(outputs: Any) -> Tensor:
    """The tensor among the outputs that targets are compared to: it alone, `.logits`, or the first of real numbers.

    FaninError if there is none.
    """
    if isinstance(outputs, Tensor):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list | tuple) else ()
    for part in parts:
        if isinstance(part, Tensor) and part.is_floating_point():
            return part
    raise FaninError(
        f"model: expected outputs that are a tensor, or a tuple or mapping with one of real numbers; got "
        f"{type(outputs).__name__}"
    )


def targets_of(batch: Batch) -> Any:
    """The batch's targets; its first input where it has none, as for an autoencoder."""
    return batch.first if batch.targets is None else batch.targets


def value_of(loss: Loss, outputs: Any, batch: Batch) -> Tensor:
    """The loss as a scalar; FaninError if it is none."""
    found = loss(outputs, targets_of(batch))
    if not isinstance(found, Tensor) or found.numel() != 1:
        given = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise FaninError(
            f"loss: expected a tensor of one number from loss(outputs, targets); got {given}: take its mean "
            '(reduction="mean")'
        )
    return found.reshape(())


@dataclass(frozen=True)
class Chosen:
    """A default loss, with what is said about the choice."""

    loss: Loss
    words: str


def choose_loss(outputs: Any, targets: Any) -> Chosen:
    """Cross-entropy for class indices, binary cross-entropy with logits for targets of 0 and 1, else the mean square.

    Outputs and targets are of one batch. FaninError for targets that are no tensor.
    """
    z = main_output(outputs)
    if not isinstance(targets, Tensor):
        raise FaninError(f"loss: targets are {type(targets).__name__}, for which there is no default: pass loss=")
    whole = not targets.is_floating_point()
    classes = whole and z.dim() > 1 and z.shape[1:2] != (1,) and targets.dim() == z.dim() - 1
    if classes and (z.dim() != 3 or targets.shape != z.shape[:2] or targets.shape == (len(z), *z.shape[2:])):
        return Chosen(_first(nn.functional.cross_entropy), "nn.CrossEntropyLoss, since targets are class indices")
    if whole and z.dim() == 3 and targets.shape == z.shape[:2]:
        return Chosen(_first(_of_sequences), "nn.CrossEntropyLoss over positions, since targets are class indices")
    binary = bool(((targets == 0) | (targets == 1)).all())
    if binary and targets.numel() == z.numel():
        return Chosen(_first(_binary), "nn.BCEWithLogitsLoss, since targets are 0 and 1")
    return Chosen(_first(_square), "nn.MSELoss, since targets are real numbers")


def _first(function: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    return lambda outputs, targets: function(main_output(outputs), targets)


def _of_sequences(z: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(z.flatten(0, 1), targets.flatten())


def _binary(z: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(z, targets.to(z).view_as(z))


def _square(z: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.mse_loss(z, targets.to(z).view_as(z) if targets.numel() == z.numel() else targets.to(z))


def name_of(loss: Any) -> str:
    """How a loss is called: of a module its class, of a function its name."""
    if isinstance(loss, nn.Module):
        return f"nn.{type(loss).__name__}" if type(loss).__module__.startswith("torch.nn") else type(loss).__name__
    return getattr(loss, "__name__", type(loss).__name__)


def no_gradient(outputs: Any) -> bool:
    """Whether nothing of the outputs depends on a parameter."""
    return not main_output(outputs).requires_grad or not torch.is_grad_enabled()
