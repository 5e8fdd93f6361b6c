"""Copies of a network to train instead of it, and a guard that leaves the original as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from fanin.errors import FaninError
from fanin.training.callers import users_level
from fanin.training.randomness import RandomState

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)


def copy_of(module: nn.Module) -> nn.Module:
    """A deep copy that shares no tensor with the module: parameters, buffers, modes, hooks; gradients are left out.

    Tensors of a graph that a module keeps as attributes (what weight_norm computes, outputs that a forward stored) are
    copied as constants. FaninError for a module that cannot be copied, with torch's reason.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in _kept_tensors(vars(part)):
            if not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        found = copy.deepcopy(module, memo)
    except Exception as error:
        raise FaninError(
            f"model: expected a module that copy.deepcopy can copy, so that yours stays untouched; got "
            f"{type(module).__name__}: {type(error).__name__}: {error}"
        ) from error
    for parameter in found.parameters():
        parameter.grad = None
    return found


def _kept_tensors(value: Any, depth: int = 3) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, dict):
        for part in value.values():
            yield from _kept_tensors(part, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for part in value:
            yield from _kept_tensors(part, depth - 1)


@contextmanager
def untouched(*modules: nn.Module, parameters: bool = True) -> Iterator[None]:
    """Afterwards, also after an error, the modules and global random states are as they were, bit for bit.

    That is: parameters and buffers (identity and values), gradients, requires_grad, modes, hooks. parameters: False
    keeps no copy of their values, for passes that do not train; of those that a forward itself may change (an
    embedding's with max_norm; those without gradients, as an averaged teacher's, unless they are most of the network)
    it does all the same. What is changed and cannot be put back is told by a RuntimeWarning.
    """
    random_state = RandomState.now()
    still = not parameters and _few_without_gradient(modules)
    before = [
        _Part(part, values=parameters or _renorms(part), still=still) for module in modules for part in module.modules()
    ]
    try:
        yield
    finally:
        for part in before:
            part.restore()
        random_state.restore()


def _renorms(module: nn.Module) -> bool:
    return getattr(module, "max_norm", None) is not None


def _few_without_gradient(modules: Sequence[nn.Module]) -> bool:
    """Whether parameters without gradients are at most half of all."""
    sizes = [(p.requires_grad, p.numel()) for m in modules for p in m.parameters() if not _unmade(p)]
    return 2 * sum(n for moving, n in sizes if not moving) <= sum(n for _, n in sizes)


class _Part:
    """What one module (without its children) is at one moment.

    values: keep those of its parameters; still: at least of those that have no gradients.
    """

    def __init__(self, module: nn.Module, *, values: bool, still: bool = False) -> None:
        self._module, self._training = module, module.training
        self._parameters = [
            (n, p, _values(p) if values or (still and p is not None and not p.requires_grad) else None)
            for n, p in module._parameters.items()
        ]
        self._versions = [(n, p, p._version) for n, p, kept in self._parameters if p is not None and kept is None]
        own = [p for _, p, _ in self._parameters if p is not None]
        self._gradients = [(p, p.requires_grad, p.grad, _values(p.grad)) for p in own]
        self._buffers = [(name, b, _values(b)) for name, b in module._buffers.items()]
        self._hooks = [(hooks, dict(hooks)) for name in _HOOKS if (hooks := getattr(module, name, None)) is not None]

    def restore(self) -> None:
        self._module.training = self._training  # not train(mode), which modules override and which reaches children
        with torch.no_grad():
            _put_all(self._module._parameters, self._parameters)
            _put_all(self._module._buffers, self._buffers)
            for parameter, required, gradient, values in self._gradients:
                if parameter.requires_grad != required:  # a lazy parameter cannot be asked to
                    parameter.requires_grad_(required)
                parameter.grad = gradient
                _put(gradient, values)
        for hooks, held in self._hooks:
            hooks.clear()
            hooks.update(held)
        for name, parameter, version in self._versions:
            if not _unmade(parameter) and parameter._version != version:
                warnings.warn(
                    f"{type(self._module).__name__}.{name} was changed in place by the network's own forward, and "
                    "stays so: no copy of it was kept",
                    RuntimeWarning,
                    stacklevel=users_level(),
                )


def _values(tensor: Tensor | None) -> Tensor | None:
    """A copy, of what has values (a lazy parameter has none yet, nor has one on the meta device)."""
    return None if tensor is None or _unmade(tensor) else tensor.detach().clone()


def _unmade(tensor: Tensor) -> bool:
    return tensor.is_meta or isinstance(tensor, UninitializedParameter | UninitializedBuffer)


def _put_all(held: dict[str, Any], known: list[tuple[str, Any, Tensor | None]]) -> None:
    """The same tensors by the same names in the same order, none besides, with their values."""
    if list(held) != [name for name, _, _ in known]:
        held.clear()
    for name, tensor, values in known:
        held[name] = tensor
        _put(tensor, values)


def _put(tensor: Tensor | None, values: Tensor | None) -> None:
    """Only where values have changed: writing would tell autograd that they had."""
    if tensor is not None and values is not None and not _same(tensor, values):
        tensor.copy_(values)


def _same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit: NaN is NaN, and -0 is not 0."""
    return a.shape == b.shape and a.layout == torch.strided and torch.equal(_bits(a), _bits(b))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
