"""Hooks that are there for one looked-at step: what every layer puts out, and the gradient that comes back to it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fanin.diagnosis.watch.streams import Layer, Seen, part, second_moment
from fanin.training.wrappers import sharded

_FLAT = 0.05  # a unit is saturated where the derivative is under this share of its largest value
_NONLINEAR: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu",
    nn.Threshold: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
}
_FUNCTIONS = {"ReluBackward0": "relu", "TanhBackward0": "tanh", "SigmoidBackward0": "sigmoid"}
_SHARDS = "weights, gradients and updates are those of this process's shards"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Ear:
    """A hook that stays behind: copies of a watched module, and what is pickled of it, have one that does nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        """Hear."""
        return self._function(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Ear:
        return Ear(_deaf)

    def __reduce__(self) -> tuple[type[Ear], tuple[Any]]:
        return Ear, (_deaf,)


def _deaf(*_: Any) -> None:
    return None


class Hooks:
    """A forward hook on every layer of a network that can be seen, between `attach` and `detach`.

    scale: what gradients are divided by, asked when one arrives. complain: told of what could not be measured.
    """

    def __init__(
        self, model: nn.Module, seen: Seen, scale: Callable[[], float], complain: Callable[[str], None]
    ) -> None:
        self._seen, self._scale, self._complain = seen, scale, complain
        self._targets = [(name, part, kind) for name, part in _visible(model) if (kind := kind_of(part))]
        self._handles: list[Any] = []
        self._lock = threading.Lock()  # nn.DataParallel runs its replicas in threads
        self._axis = -1  # of units in what passes: 1 behind a convolution
        self._judged = False  # whether a module's nonlinearity ran since the last weighted layer
        self.called: set[str] = set()

    @property
    def weighted(self) -> list[str]:
        """Paths of the layers with weights that have hooks."""
        return [name for name, _, kind in self._targets if kind == "weighted"]

    def attach(self) -> None:
        """Put the hooks on."""
        self.detach()
        for name, module, kind in self._targets:
            self._handles.append(module.register_forward_hook(Ear(self._hook(name, kind))))

    def detach(self) -> None:
        """Take every hook away, those on tensors of graphs that still live too."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str, kind: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not torch.is_grad_enabled():  # an evaluation in between
                return
            try:
                with self._lock, torch.no_grad():
                    self._record(name, kind, module, inputs, output)
            except Exception as error:  # watching must never end a training
                self._complain(f"{name or 'the module'}: {type(error).__name__} while it was looked at: {error}")

        return hook

    def _record(self, name: str, kind: str, module: nn.Module, inputs: Any, output: Any) -> None:
        seen = next(real(output), None)
        if seen is None or not seen.numel():
            return
        self.called.add(name)
        if kind == "weighted":
            if not self._judged:
                self._function(name, next(real(inputs), None))
            self._axis, self._judged = (1 if isinstance(module, _CONVOLUTIONS) and seen.dim() > 2 else -1), False
        else:
            self._judged = True
        layer = self._layer(name, type(module).__name__, kind)
        self._measure(layer, seen)
        if seen.requires_grad:
            self._handles.append(seen.register_hook(self._arrived(layer)))

    def _function(self, name: str, given: Tensor | None) -> None:
        """A function called in forward, by the graph behind what the next layer takes in."""
        kind = _FUNCTIONS.get(type(given.grad_fn).__name__) if given is not None else None
        if given is not None and kind:
            self._measure(self._layer(f"{name}:in", f"torch.{kind}", kind), given)

    def _layer(self, name: str, kind_name: str, kind: str) -> Layer:
        return self._seen.layers.setdefault(name, Layer(name.removesuffix(":in"), kind_name, kind))

    def _measure(self, layer: Layer, t: Tensor) -> None:
        layer.output.add(second_moment(t))
        if layer.kind == "relu" and t.dim() > 1:
            axis = self._axis if abs(self._axis) < t.dim() else -1
            layer.dead.add((t.detach() <= 0).movedim(axis, 0).flatten(1).all(1))
        elif layer.kind in ("tanh", "sigmoid"):
            y = part(t.detach())
            slope = 1 - y * y if layer.kind == "tanh" else 4 * y * (1 - y)
            layer.flat.add(float((slope < _FLAT).float().mean()))

    def _arrived(self, layer: Layer) -> Callable[[Tensor], None]:
        def arrived(gradient: Tensor) -> None:
            try:
                with torch.no_grad():
                    layer.gradient.add(second_moment(gradient) / self._scale() ** 2)
            except Exception as error:  # watching must never end a training
                self._complain(f"{layer.name or 'the module'}: {type(error).__name__} at its gradient: {error}")

        return arrived


def kind_of(module: nn.Module) -> str | None:
    """ "weighted", a nonlinearity, or None: not to be looked at."""
    if type(module) in _NONLINEAR:
        return _NONLINEAR[type(module)]
    return "weighted" if any(p.dim() > 1 for p in module.parameters(recurse=False)) else None


def compiled(module: nn.Module) -> bool:
    """Whether hooks inside are skipped, or would break its graph: torch.compile, module.compile(), torch.jit."""
    return (
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        or isinstance(module, torch.jit.ScriptModule)
    )


def _visible(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules, but for those that are compiled and what is in them."""
    hidden: list[str] = []
    for name, module in model.named_modules():
        if any(name == p or not p or name.startswith(f"{p}.") for p in hidden):
            continue
        if compiled(module):
            hidden.append(name)
        else:
            yield name, module


def blind_spots(model: nn.Module) -> Iterator[str]:
    """What of a network hooks cannot see, in words."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if compiled(module) and not name.endswith("_orig_mod"):
            yield f"{name or 'the network'} is compiled: inside, only weights, their gradients and updates are seen"
        elif kind == "DistributedDataParallel":
            yield f"{name or kind}: activations are those of this process's part of each batch"
        elif kind == "FullyShardedDataParallel":
            yield f"{name or kind}: {_SHARDS}"
    if any(map(sharded, model.parameters())):
        yield f"the network: {_SHARDS}"


def first_not_finite(model: nn.Module, call: Callable[[], Any]) -> str | None:
    """The first module, in the order of the calls, whose output is not finite in another forward pass."""
    found: list[str] = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(_: nn.Module, __: Any, output: Any) -> None:
            if not found and any(not math.isfinite(float(t.detach().sum(dtype=torch.float64))) for t in real(output)):
                found.append(name)

        return look

    handles = [m.register_forward_hook(hook(name)) for name, m in model.named_modules() if not any(m.children())]
    try:
        with torch.no_grad():
            call()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def real(value: Any) -> Iterator[Tensor]:
    """The tensors of real numbers in an output: itself, or those in its tuples, lists and mappings."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        yield from (t for inner in value.values() for t in real(inner))
    elif isinstance(value, list | tuple):
        yield from (t for inner in value for t in real(inner))
