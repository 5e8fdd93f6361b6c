"""A trained machine or stack as one file: tensors as safetensors, all else as JSON in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fanin.datasets.atomic import make_folder, write
from fanin.errors import StoreError
from fanin.pretraining.autoencoder import StackedAutoencoder
from fanin.pretraining.boltzmann.rbm import RBM
from fanin.pretraining.dbn import DBN
from fanin.record import Divergence

Stack = RBM | DBN | StackedAutoencoder

FORMAT = "fanin-stack-1"
_KINDS: dict[str, type[Stack]] = {kind.__name__: kind for kind in (RBM, DBN, StackedAutoencoder)}


def save_stack(path: Path | str, model: Stack, *, notes: Mapping[str, Any] | None = None) -> None:
    """Write parameters and state of a fitted model to `path`, completely or not at all.

    notes: JSON data that goes with it, such as what it was trained on. Training can go on from the file bit for bit,
    also amid a layer. NotFittedError before a fit; TypeError for parameters that no file holds, such as a function as
    lr; DataError where the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    state = _written(model.state_dict(), "state", tensors)  # which complains where there is no fit
    parameters = {name: value for name, value in model.get_params().items() if name != "device"}
    found = model.divergence_
    content = {
        "kind": type(model).__name__,
        "parameters": _written(parameters, "parameters", tensors),
        "state": state,
        "divergence": None if found is None else [found.epoch, found.step, found.layer],
        "notes": dict(notes or {}),
    }
    path = Path(path)
    make_folder(path.parent)
    write(path, save(tensors, {"format": FORMAT, "stack": json.dumps(content)}))


def load_stack(path: Path | str, *, device: torch.device | str = "cpu") -> tuple[Stack, dict[str, Any]]:
    """The model of a file that `save_stack` wrote, equal to the one saved but for the device, and its notes.

    StoreError for a file that cannot be read, or is no such file.
    """
    content, tensors = _content(Path(path))
    try:
        parameters = _read(content["parameters"], tensors)
        model = _KINDS[content["kind"]](**parameters, device=device)
        model.load_state_dict(_read(content["state"], tensors))
        model.divergence_ = None if content["divergence"] is None else Divergence(*content["divergence"])
        return model, content["notes"]
    except Exception as error:  # any that a model has for what does not fit it, torch's among them
        raise StoreError(f"{path}: its parameters and its state do not make a model ({error})") from None


def _content(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except Exception as error:  # safetensors has errors of its own for what is no such file
        raise StoreError(f"{path}: cannot be read as a stack ({error})") from None
    if metadata.get("format") != FORMAT or "stack" not in metadata:
        raise StoreError(f"{path}: expected a stack that fanin saved ({FORMAT}); got {metadata.get('format', 'none')}")
    try:
        return json.loads(metadata["stack"]), tensors
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: its metadata cannot be read ({error})") from None


def _written(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """JSON data in which {"$tensor": place} stands for a tensor, which goes to `tensors`; tuples and dtypes are marked.

    TypeError for what is neither data nor a tensor.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            tensors[place] = value.detach().cpu().contiguous()
            return {"$tensor": place}
        case torch.dtype():
            return {"$dtype": str(value).removeprefix("torch.")}
        case Mapping():
            return {str(key): _written(item, f"{place}.{key}", tensors) for key, item in value.items()}
        case list() | tuple():
            items = [_written(item, f"{place}.{i}", tensors) for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
    raise TypeError(
        f"{place}: expected numbers, text, tensors, or collections of them; got {value!r}: a file holds none"
    )


def _read(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"$tensor": place}:
            return tensors[place]
        case {"$dtype": name}:
            return getattr(torch, name)
        case {"$tuple": items}:
            return tuple(_read(item, tensors) for item in items)
        case dict():
            return {key: _read(item, tensors) for key, item in value.items()}
        case list():
            return [_read(item, tensors) for item in value]
    return value
