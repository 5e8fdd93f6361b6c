"""Losses: a user's own, or the one that targets call for; calling it, and saying what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fanin.errors import FaninError
from fanin.training.batches import Batch

Loss = Callable[[Any, Any], Tensor]


def call(model: nn.Module, batch: Batch) -> Any:
    """model(*inputs, **named): what it puts out, as it is."""
    return model(*batch.inputs, **batch.named)


def refused(batch: Batch, error: Exception, model: nn.Module) -> FaninError:
    """What is said where a forward raises on a batch: the inputs, PyTorch's words, and what to do about dtypes."""
    first = batch.first
    return FaninError(
        f"model: forward raised {type(error).__name__} on a batch of inputs {tuple(first.shape)}, {first.dtype} on "
        f"{first.device}: {error}{_other_dtype(batch, model)}"
    )


def _other_dtype(batch: Batch, model: nn.Module) -> str:
    """A remedy where real inputs and real parameters are of one dtype each, and not of the same."""
    inputs = {x.dtype for x in (*batch.inputs, *batch.named.values()) if _real(x)}
    weights = {p.dtype for p in model.parameters() if _real(p)}
    if len(inputs) != 1 or len(weights) != 1 or inputs == weights:
        return ""
    given, own = inputs.pop(), weights.pop()
    return f" (inputs are {given}, the parameters {own}: pass x.to({own}), or model.to({given}))"


def _real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


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
    """The loss as a scalar; FaninError if it is none, with what is to be done about what it is."""
    found = loss(outputs, targets_of(batch))
    if not isinstance(found, Tensor) or found.numel() != 1:
        raise FaninError(f"loss: expected a tensor of one number from loss(outputs, targets); got {_no_scalar(found)}")
    return found.reshape(())


def _no_scalar(found: Any) -> str:
    """What a loss gave in place of a scalar, and what to do."""
    kind = type(found).__name__
    if isinstance(found, Tensor):
        return f'a tensor of shape {tuple(found.shape)}: take its mean (reduction="mean")'
    if found is None:
        return "None: end the function with return"
    if isinstance(found, np.generic | np.ndarray):
        return f"numpy's {kind}, which has no gradient: compute it by torch's functions, without .numpy()"
    if isinstance(found, int | float):
        return f"{kind} {found:g}, which has no gradient: return the tensor itself, without .item() or float()"
    if isinstance(found, list | tuple | Mapping):
        which = f" with the keys {list(found)[:4]}" if isinstance(found, Mapping) else ""
        return f"a {kind} of {len(found)}{which}: return the one that is to fall, or their weighted sum"
    return f"{kind}: return what torch's functions make of outputs and targets"


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
