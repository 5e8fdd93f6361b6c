"""A trial's own network, made by the user's factory, and the form in which it takes its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fanin.choice import Choice
from fanin.code import first_on_path, named
from fanin.engine.data import Data
from fanin.errors import FaninError
from fanin.recipe import Trial
from fanin.streams import Stream
from fanin.training.losses import main_output
from fanin.training.randomness import seed_all

_ROWS = 2  # with which a network is tried: batch normalisation would refuse one in training


@dataclass(frozen=True)
class Form:
    """How stored rows become a network's inputs: (N, *shape) of dtype, scaled as in training unless `raw`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    scale: float

    def inputs(self, rows: Tensor, *, raw: bool = False) -> Tensor:
        """The inputs of stored rows (N, features), a copy."""
        found = rows.to(self.dtype, copy=True)
        return (found if raw else found.mul_(self.scale)).view(len(rows), *self.shape)


def seed_of(trial: Trial, epoch: int = 0) -> int:
    """What torch's generators are seeded with: 63 bits of the stream ("model", seed, epoch); epoch 0 is the start."""
    return int(Stream(trial.seed, "model", epoch=epoch).words(1)[0] >> 1)


def made(trial: Trial, data: Data, *, device: torch.device, folder: Path | None = None) -> tuple[nn.Module, Form]:
    """The factory's network, drawn under the trial's seed, and the first form of input that it takes: rows, or images.

    folder: where the factory's module is looked for first; None is the current one. FaninError if there is no such
    factory, if it makes no network, or one that maps neither rows (N, features) nor images (N, 1, height, width) to
    outputs (N, classes or more).
    """
    choice = trial.recipe.model
    assert choice is not None, "who comes here has a model"
    factory = named(choice.name, where="model", expected="a function that makes a network", folder=folder, lasting=True)
    refused: list[str] = []
    for shape, words in _forms(data):
        seed_all(seed_of(trial))
        network = _called(factory, choice, folder).to(device)
        form = Form(shape, _dtype(network, choice), data.scale)
        why = _refusal(network, form.inputs(data.train_inputs[:_ROWS]), data.classes)
        if why is None:
            return network, form
        refused.append(f"with {words} {why}")
    images = "(these data are none)" if data.image_shape is None else "(N, 1, {}, {})".format(*data.image_shape)
    raise FaninError(
        f"model {choice}: expected a network that takes rows (N, {data.features}) or images {images}, and gives "
        f"outputs (N, {data.classes}), or more of them for each; {'; '.join(refused)}"
    )


def _forms(data: Data) -> list[tuple[tuple[int, ...], str]]:
    rows = ((data.features,), f"rows of {data.features}")
    if data.image_shape is None:
        return [rows]
    height, width = data.image_shape
    return [rows, ((1, height, width), f"images of 1 x {height} x {width}")]


def _called(factory: Callable[..., Any], choice: Choice, folder: Path | None) -> nn.Module:
    """What the factory makes; what it raises is told as its own."""
    if isinstance(factory, nn.Module) or not callable(factory):
        raise FaninError(
            f"model {choice.name}: expected a function or class that makes a new network for every trial; got "
            f"{type(factory).__name__}: put it into a function"
        )
    try:
        with first_on_path(folder):
            network = factory(**choice.keywords())
    except Exception as error:
        raise FaninError(f"model {choice}: it raised {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise FaninError(f"model {choice}: expected it to return an nn.Module; got {type(network).__name__}")
    return network


def _dtype(network: nn.Module, choice: Choice) -> torch.dtype:
    found = [p for p in network.parameters() if p.requires_grad]
    if not found:
        raise FaninError(f"model {choice}: expected a network with parameters to train; it has none")
    return next((p.dtype for p in found if p.is_floating_point()), torch.float32)


def _refusal(network: nn.Module, inputs: Tensor, classes: int) -> str | None:
    """Why a network does not do with such inputs, in words; None if it does."""
    network.eval()
    try:
        with torch.no_grad():
            outputs = main_output(network(inputs))
    except Exception as error:
        first = str(error).strip().splitlines()
        return f"it raises {type(error).__name__}: {first[0] if first else ''}"
    shape = tuple(outputs.shape)
    if len(shape) != 2 or shape[0] != len(inputs) or shape[1] < classes or not outputs.is_floating_point():
        return f"it gives {outputs.dtype} of shape {shape} for {len(inputs)} examples"
    return None
