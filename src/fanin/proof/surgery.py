"""Changes of a network's modules: normalisation behind weighted layers, the last activation taken away or put there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fanin.errors import FaninError, nearest
from fanin.training import Batch, Training, untouched
from fanin.training.losses import call, main_output

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}  # by the outputs' axes
_IS_NORM = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "softmax": lambda: nn.Softmax(dim=1),
    "log_softmax": lambda: nn.LogSoftmax(dim=1),
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
}
_LAST = (
    *(nn.Sigmoid, nn.Softmax, nn.LogSoftmax, nn.Softmax2d, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU),
    *(nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.ReLU6, nn.LogSigmoid, nn.Softmin),
)


@dataclass(frozen=True)
class Call:
    """One call of a leaf module during a forward pass: its path, the module and what it put out."""

    path: str
    module: nn.Module
    output: Any


def calls(model: nn.Module, batch: Batch) -> tuple[list[Call], Any]:
    """The calls of modules without children in one forward pass in evaluation mode, in order, and the outputs.

    The model is as before afterwards.
    """
    found: list[Call] = []
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with untouched(model), torch.no_grad():
        model.eval()
        for path, part in model.named_modules():
            if not any(True for _ in part.children()):
                part.register_forward_hook(lambda m, _, out, path=path: found.append(Call(path, m, out)))
        outputs = call(model, batch.to(device))
    return found, outputs


def normalize(training: Training) -> Training:
    """Batch normalisation behind every hidden Linear or convolution, before its activation (Ioffe and Szegedy, 2015).

    The layer's place is taken by nn.Sequential(layer, norm), so it works for any network that calls its layers as
    modules. Refused, with the reason: no hidden layer, layers called more than once, Linear layers on sequences (batch
    normalisation would mix positions), layers that a norm follows already.
    """
    model, batch = training.new(0), next(training.stream(0))
    places = _places(model, batch)

    def make() -> nn.Module:
        made = training.make()
        for path, (kind, width) in places.items():
            layer = made.get_submodule(path)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            norm = kind(width, device=weight.device, dtype=weight.dtype)
            _put(made, path, nn.Sequential(layer, norm).train(layer.training))
        return made

    def moved(name: str) -> str:
        path, _, own = name.rpartition(".")
        return f"{path}.0.{own}" if path in places else name

    added = [f"{path}.1.{own}" for path in places for own in ("weight", "bias")]
    return training.changed(make=make, optimizer=training.optimizer.renamed(moved, added=added))


def _places(model: nn.Module, batch: Batch) -> dict[str, tuple[type[nn.Module], int]]:
    """Where a norm goes, of what class and width."""
    found, _ = calls(model, batch)
    weighted = [(i, c) for i, c in enumerate(found) if isinstance(c.module, _WEIGHTED)]
    hidden = weighted[:-1]
    if not hidden:
        raise FaninError(
            "remedy normalization: expected a hidden Linear or convolution, called as a module; found none"
        )
    paths = [c.path for _, c in weighted]
    twice = sorted({p for p in paths if paths.count(p) > 1})
    if twice:
        raise FaninError(f"remedy normalization: {', '.join(twice)}: called more than once; insert norms in your code")
    places: dict[str, tuple[type[nn.Module], int]] = {}
    for i, one in hidden:
        if i + 1 < len(found) and isinstance(found[i + 1].module, _IS_NORM):
            continue
        axes = one.output.dim()
        if isinstance(one.module, nn.Linear) and axes != 2:
            raise FaninError(
                f"remedy normalization: {one.path}: its outputs have {axes} axes, and batch normalisation would mix "
                "positions; use nn.LayerNorm in your code"
            )
        places[one.path] = (_NORMS[axes], one.output.shape[1])
    if not places:
        raise FaninError("remedy normalization: every hidden layer has a norm behind it already")
    return places


def set_output_activation(training: Training, name: str | Callable[[], nn.Module] | None = None) -> Training:
    """The network without its last activation, or with another one there: a name of ACTIVATIONS, a class, a function.

    An activation that stands there already is replaced. FaninError if there is none to take away that is a module of
    its own, called once, whose output is the network's.
    """
    make_activation = _activation(name)
    last = _last_activation(training.new(0), next(training.stream(0)))
    if last is not None:

        def replaced() -> nn.Module:
            made = training.make()
            return _put(made, last, make_activation() if make_activation else nn.Identity())

        return training.changed(make=replaced)
    if make_activation is None:
        raise FaninError(
            "remedy output-activation: expected a network whose output is that of an activation module, called once; "
            "found none: take it away in your code"
        )

    def appended() -> nn.Module:
        made = training.make()
        return nn.Sequential(made, make_activation()).train(made.training)

    return training.changed(make=appended, optimizer=training.optimizer.renamed(lambda name: f"0.{name}"))


def _activation(given: Any) -> Callable[[], nn.Module] | None:
    if given is None or given == "none":
        return None
    if callable(given) and not isinstance(given, nn.Module):
        return given
    if isinstance(given, str) and given in ACTIVATIONS:
        return ACTIVATIONS[given]
    known = ["none", *ACTIVATIONS]
    raise FaninError(
        f"remedy output-activation: expected one of {', '.join(known)}, or a class of nn; got {given!r}"
        f"{nearest(str(given), known)}"
    )


def _last_activation(model: nn.Module, batch: Batch) -> str | None:
    """The path of the activation module whose output is the network's, None if there is no such."""
    found, outputs = calls(model, batch)
    result = main_output(outputs)
    active = [c for c in found if isinstance(c.module, _LAST)]
    ends = [c for c in active if isinstance(c.output, Tensor) and _is_view_of(result, c.output)]
    if not ends or not ends[-1].path or sum(c.path == ends[-1].path for c in active) > 1:
        return None
    return ends[-1].path


def _is_view_of(result: Tensor, output: Tensor) -> bool:
    """The same numbers in the same memory: as it is, squeezed or flattened."""
    return result.data_ptr() == output.data_ptr() and result.numel() == output.numel()


def _put(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """The model with a module at a path; a module at the root is the model itself."""
    parent, _, name = path.rpartition(".")
    if not path:
        return module
    setattr(model.get_submodule(parent), name, module)
    return model
