"""A trained trial as plain PyTorch: an nn.Sequential, a state_dict, a safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fanin.activations import resolve
from fanin.engine.passes import BATCHNORM_EPS, BATCHNORM_MOMENTUM
from fanin.errors import StoreError
from fanin.recipe import Recipe

_BATCHNORM_NAMES = {"scale": "weight", "shift": "bias", "running_mean": "running_mean", "running_var": "running_var"}


def to_sequential(recipe: Recipe, state: dict[str, Tensor]) -> nn.Sequential:
    """The trained network as nn.Sequential(Linear, [BatchNorm1d], activation, [Dropout], ..., Linear), in eval mode.

    Expects inputs scaled as in training, of shape (N, features).
    """
    activation = resolve(recipe.activation)
    layers = 1 + max(int(name.split(".")[1]) for name in state)
    modules: list[nn.Module] = []
    for i in range(layers):
        part = {name.split(".")[2]: t for name, t in state.items() if name.startswith(f"layers.{i}.")}
        modules.append(_linear(part))
        if i == layers - 1:
            break
        if recipe.normalization == "batch":
            modules.append(_batchnorm(part))
        modules.append(activation.module())
        if recipe.dropout > 0:
            modules.append(nn.Dropout(recipe.dropout))
    return nn.Sequential(*modules).eval()


def _linear(part: dict[str, Tensor]) -> nn.Linear:
    fan_out, fan_in = part["weight"].shape
    linear = nn.Linear(fan_in, fan_out, dtype=part["weight"].dtype, device="meta")
    linear.load_state_dict({k: part[k].cpu() for k in ("weight", "bias")}, assign=True)
    return linear


def _batchnorm(part: dict[str, Tensor]) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(len(part["scale"]), BATCHNORM_EPS, BATCHNORM_MOMENTUM, dtype=part["scale"].dtype)
    state = {theirs: part[ours].cpu() for ours, theirs in _BATCHNORM_NAMES.items()}
    norm.load_state_dict(state | {"num_batches_tracked": torch.tensor(0)})
    return norm


def packed(recipe: Recipe, state: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The content of a file that `load_weights` reads: parameters as safetensors, the recipe and `metadata`."""
    content = {name: t.cpu().contiguous() for name, t in state.items()}
    return save(content, {"recipe": json.dumps(recipe.to_dict()), **metadata})


def load_weights(path: Path | str) -> tuple[nn.Sequential, dict[str, str]]:
    """The trained network of a file that `fanin run` kept, and its metadata.

    StoreError if it cannot be read, or holds the state_dict of a network of the user's own: no file has code run.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except Exception as error:
        raise StoreError(f"{path}: cannot be read as fanin weights ({error})") from None
    if "recipe" not in metadata:
        raise StoreError(f"{path}: no recipe in its metadata; expected a file that fanin wrote")
    try:
        recipe = Recipe.from_dict(json.loads(metadata["recipe"]))
        if recipe.model is None:
            return to_sequential(recipe, state), metadata
    except Exception as error:
        raise StoreError(f"{path}: its recipe and its weights do not make a network ({error})") from None
    raise StoreError(
        f"{path}: the state_dict of {recipe.model}, a network of one's own; make that network yourself, and give it "
        "what safetensors.torch.load_file reads here: network.load_state_dict(load_file(path))"
    )
