"""Single passes of the user's own network, without gradients: which modules run, what drops, what mixes examples.

No copy of its weights is made, and it is left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fanin.training import Batch, untouched
from fanin.training.losses import Loss, call, main_output, value_of
from fanin.training.randomness import seed_all


@contextmanager
def _looking(model: nn.Module, *, training: bool | None = None, seed: int = 0) -> Iterator[None]:
    """For a pass in a mode (None: as it is), after which the network is as it was; what it raises is swallowed.

    An error here has been told of by the first pass, or means that the network wants batches of one size.
    """
    with untouched(model, parameters=False), torch.no_grad(), suppress(Exception):
        if training is not None:
            model.train(training)
        seed_all(seed)
        yield


def modules_called(model: nn.Module, batch: Batch) -> list[tuple[str, nn.Module]]:
    """The modules that run on a batch, by their paths, in the order in which they end; again for each call."""
    seen: list[tuple[str, nn.Module]] = []
    with _looking(model):
        for name, part in model.named_modules():  # untouched puts the hooks back
            part.register_forward_hook(lambda part, _, __, name=name: seen.append((name, part)))
        call(model, batch)
    return seen


def error_in_evaluation(model: nn.Module, loss: Loss, batch: Batch) -> Exception | None:
    """What the network in evaluation mode, or the loss of its outputs, raises on a batch."""
    with untouched(model, parameters=False), torch.no_grad():
        model.eval()
        try:
            value_of(loss, call(model, batch), batch)
        except Exception as error:  # a user's code may raise anything
            return error
    return None


def drops_in_evaluation(model: nn.Module, batch: Batch) -> bool:
    """Whether a function of dropout is called with training=True while every module is in evaluation mode."""
    watch = _Dropout()
    with _looking(model, training=False), watch:
        call(model, batch)
    return watch.active


def mixes_examples(model: nn.Module, batch: Batch) -> bool:
    """Whether, in evaluation mode, an example's outputs depend on the other examples of its batch.

    It is not known where outputs are random in that mode too, as those of a variational autoencoder: False.
    """
    half = batch.size // 2
    parts = [t for t in (*batch.inputs, *batch.named.values()) if isinstance(t, torch.Tensor)]
    if half < 1 or any(not t.dim() or len(t) != batch.size or t.is_sparse for t in parts):
        return False
    found = []
    for one, seed in ((batch, 0), (batch, 1), (examples(batch, half, batch.size), 0)):
        with _looking(model, training=False, seed=seed):
            found.append(main_output(call(model, one)))
    if len(found) < 3 or not found[0].dim() or not torch.equal(found[0], found[1]):
        return False
    whole, _, alone = found
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
