"""Single passes of the user's own network, without gradients: which modules run, what drops, what mixes examples.

No copy of its weights is made, and it is left as it was.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fanin.errors import FaninError
from fanin.training import Batch, untouched
from fanin.training.losses import Loss, call, main_output, value_of
from fanin.training.randomness import seed_all


def _passed(model: nn.Module, batch: Batch, *, training: bool | None = None, seed: int = 0) -> Any:
    """The outputs of a pass in a mode (None: as it is), after which the network is as it was; None where it raises.

    An error here has been told of by the first pass, or means that the network wants batches of one size; a user's own
    train() may raise too.
    """
    with untouched(model, parameters=False), torch.no_grad(), suppress(Exception):
        if training is not None:
            model.train(training)
        seed_all(seed)
        return call(model, batch)
    return None


def modules_called(model: nn.Module, batch: Batch) -> list[tuple[str, nn.Module]]:
    """The modules that run on a batch, by their paths, in the order in which they end; again for each call."""
    seen: list[tuple[str, nn.Module]] = []
    with untouched(model, parameters=False):  # which takes the hooks away
        for name, part in model.named_modules():
            part.register_forward_hook(lambda part, _, __, name=name: seen.append((name, part)))
        _passed(model, batch)
    return seen


def error_in_evaluation(model: nn.Module, loss: Loss, batch: Batch) -> Exception | None:
    """What the network in evaluation mode, or the loss of its outputs, raises on a batch."""
    with untouched(model, parameters=False), torch.no_grad():
        try:
            model.eval()
            value_of(loss, call(model, batch), batch)
        except Exception as error:  # a user's code may raise anything
            return error
    return None


def drops_in_evaluation(model: nn.Module, batch: Batch) -> bool:
    """Whether a function of dropout is called with training=True while every module is in evaluation mode."""
    watch = _Dropout()
    with watch:
        _passed(model, batch, training=False)
    return watch.active


def mixes_examples(model: nn.Module, batch: Batch) -> bool:
    """Whether, in evaluation mode, an example's outputs depend on the other examples of its batch.

    It is not known where outputs are random in that mode too, as those of a variational autoencoder: False.
    """
    half = batch.size // 2
    parts = [t for t in (*batch.inputs, *batch.named.values()) if isinstance(t, torch.Tensor)]
    if half < 1 or any(not t.dim() or len(t) != batch.size or t.is_sparse for t in parts):
        return False
    alone = examples(batch, half, batch.size)
    found = [_passed(model, one, training=False, seed=seed) for one, seed in ((batch, 0), (batch, 1), (alone, 0))]
    try:
        whole, again, alone = map(main_output, found)
    except FaninError:  # one raised, or gives something else in evaluation mode
        return False
    if not whole.dim() or not torch.equal(whole, again):
        return False
    if len(whole) != batch.size or len(alone) != batch.size - half or whole.shape[1:] != alone.shape[1:]:
        return False
    size = float(whole.abs().max())
    return bool((whole[half:] - alone).abs().max() > 1e-3 * max(size, 1e-12))


def examples(batch: Batch, start: int, stop: int) -> Batch:
    """Those examples of a batch: of every tensor that has one row for each."""

    def cut(value: Any) -> Any:
        each = isinstance(value, torch.Tensor) and value.dim() and len(value) == batch.size and not value.is_sparse
        return value[start:stop] if each else value

    return Batch(tuple(map(cut, batch.inputs)), cut(batch.targets), {k: cut(v) for k, v in batch.named.items()})


_DROPOUTS = (
    nn.functional.dropout,
    nn.functional.dropout1d,
    nn.functional.dropout2d,
    nn.functional.dropout3d,
    nn.functional.alpha_dropout,
    nn.functional.feature_alpha_dropout,
    torch.dropout,
)


class _Dropout(TorchFunctionMode):
    """Sees calls of dropout functions that drop."""

    active = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            default = func is not torch.dropout and "alpha" not in func.__name__  # their `training` is True, False
            on = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else default))
            self.active |= bool(on) and float(p) > 0
        return func(*args, **kwargs)
