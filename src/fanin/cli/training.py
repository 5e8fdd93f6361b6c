"""What `fanin diagnose` and its kin are given, as objects: a model, data that fit it, a loss, an optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanin.cli.code import made, named
from fanin.cli.numbers import check_range
from fanin.cli.optimizer import optimizer_by_name
from fanin.errors import FaninError, nearest

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from fanin.datasets import Dataset, Split

LOSSES = {
    "cross_entropy": "CrossEntropyLoss",
    "nll": "NLLLoss",
    "mse": "MSELoss",
    "l1": "L1Loss",
    "bce": "BCELoss",
    "bce_with_logits": "BCEWithLogitsLoss",
    "huber": "HuberLoss",
}
LOSS_ALIASES = {"mae": "l1"}  # else the nearest spelling would be mse


@dataclass(frozen=True)
class Given:
    """Everything that a diagnosis takes. batches, evaluation: fanin.training.Batches; of the latter maybe none."""

    model: nn.Module
    batches: Any
    evaluation: Any
    loss: Any
    optimizer: Any


def given(
    model: str,
    data: str,
    *,
    data_dir: Path | None,
    loss: str | None,
    optimizer: str | None,
    lr: float | None,
    batch_size: int | None,
    seed: int,
    console: Console,
) -> Given:
    """The objects behind these words; FaninError for what cannot be had. `console` is told what was chosen."""
    check_range("--batch-size", batch_size, 1)
    if lr is not None and not 0 < lr < math.inf:
        raise FaninError(f"--lr: expected a positive number; got {lr:g}")
    chosen = _loss(loss), optimizer_of(optimizer, lr)  # a misspelling is told before anything is loaded
    from fanin.training import batches_for  # loads torch

    network = _model(model, seed)
    train, test = _data(data, data_dir, network, console)
    batches, held_out = (None if d is None else batches_for(network, d, batch_size=batch_size) for d in (train, test))
    return Given(network, batches, held_out, *chosen)


def _model(spec: str, seed: int) -> nn.Module:
    """A module as it is; a class or function is called without arguments, with torch's generators seeded."""
    from torch import nn

    from fanin.training.setup import seeded

    found = named("MODEL", spec)
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise FaninError(
            f"MODEL {spec}: expected an nn.Module, its class, or a function that makes one; got {type(found).__name__}"
        )
    return seeded(lambda: made("MODEL", spec, found), seed)


def _loss(spec: str | None) -> Any:
    if spec is None:
        return None
    from torch import nn

    spec = LOSS_ALIASES.get(spec, spec)
    if spec in LOSSES:
        return getattr(nn, LOSSES[spec])()
    if ":" not in spec:
        raise FaninError(
            f"--loss: expected one of {', '.join(LOSSES)} or MODULE:ATTR; got {spec!r}{nearest(spec, LOSSES)}"
        )
    found = named("--loss", spec)
    if isinstance(found, type):
        found = made("--loss", spec, found)
    if not callable(found):
        raise FaninError(f"--loss {spec}: expected a function of (outputs, targets); got {type(found).__name__}")
    return found


def optimizer_of(spec: str | None, lr: float | None) -> Callable[[Any], Any] | None:
    """A function of parameters; Adam where only a rate is given."""
    if spec is None and lr is None:
        return None
    spec, options = "adam" if spec is None else spec, {}
    if ":" in spec:
        make, name = named("--optimizer", spec), spec
    else:
        make, options = optimizer_by_name(spec)
        name = make.__name__
    if lr is not None and "lr" in options:
        raise FaninError(f"--optimizer {spec} and --lr: choose one rate")
    if not callable(make):
        raise FaninError(
            f"--optimizer {spec}: expected a class, or a function of parameters; got {type(make).__name__}"
        )
    options |= {} if lr is None else {"lr": lr}

    def build(parameters: Any) -> Any:
        return make(parameters, **options)

    build.__name__ = name
    return build


def _data(spec: str, data_dir: Path | None, model: nn.Module, console: Console) -> tuple[Any, Any]:
    """(training data, evaluation data or None): what code gives as it is, named sets and files as arrays."""
    from fanin.code import looks_like_attribute
    from fanin.datasets import Dataset, load

    if looks_like_attribute(spec) and not Path(spec).exists():
        found = named("--data", spec)
        if callable(found) and not (hasattr(found, "__len__") or hasattr(found, "__iter__")):
            found = made("--data", spec, found)
        return arrays(found, model, console) if isinstance(found, Dataset) else _parts(found)
    from fanin.cli.run import load_data

    return arrays(load_data(spec, data_dir, console) if spec != "digits" else load(spec), model, console)


def _parts(found: Any) -> tuple[Any, Any]:
    """Training and evaluation data apart, where code gives both: (X, y, X_eval, y_eval) or a pair of data sets."""
    if isinstance(found, tuple | list) and len(found) == 4:
        return tuple(found[:2]), tuple(found[2:])
    pair = isinstance(found, tuple | list) and len(found) == 2
    if pair and all(isinstance(p, tuple | list) or not hasattr(p, "shape") for p in found):
        return found[0], found[1]
    return found, None


def arrays(dataset: Dataset, model: nn.Module, console: Console) -> tuple[Any, Any]:
    """Rows, scaled as training scales them; pictures where the model takes those and not rows."""
    train, test = _tensors(dataset.train, dataset.scale), _tensors(dataset.test, dataset.scale)
    shape = dataset.image_shape
    refusal = _refusal(model, train[0][:2])
    if refusal is None:
        return train, test
    pictures = [] if shape is None else [(x.view(len(x), 1, *shape), y) for x, y in (train, test)]
    if shape is None or _refusal(model, pictures[0][0][:2]) is not None:
        also = f" or pictures of 1 x {shape[0]} x {shape[1]}" if shape is not None else ""
        raise FaninError(
            f"MODEL: expected one that takes rows of {dataset.features} numbers{also}, as {dataset.name} has them; on "
            f"rows its forward raised {type(refusal).__name__}: {refusal}"
        )
    console.print(
        f"inputs: pictures of 1 x {shape[0]} x {shape[1]}, since the model does not take rows of {dataset.features}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return pictures[0], pictures[1]


def _tensors(split: Split, scale: float) -> tuple[Any, Any]:
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(split.inputs, dtype=np.float32) * np.float32(scale)), torch.from_numpy(
        np.array(split.labels)
    )


def _refusal(model: nn.Module, inputs: Any) -> Exception | None:
    """What a copy of the model raises on these inputs."""
    import torch

    from fanin.training import copy_of, untouched

    with untouched(model), torch.no_grad():
        try:
            copy_of(model).eval()(inputs)
        except Exception as error:  # a user's forward may raise anything
            return error
    return None
