"""The layers of a user's network, seen by hooks: signal through them before training and after each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fanin.record import LayerSignal
from fanin.signal.traces import in_training

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_SATURATED = 0.05  # of the steepest slope, as in engine.probe
# bounded functions and their steepest slopes; of the others none saturates
_STEEPEST: dict[type[nn.Module], float] = {nn.Sigmoid: 0.25, nn.Tanh: 1.0, nn.Softsign: 1.0, nn.Hardtanh: 1.0}
_STEEPEST |= {nn.ReLU6: 1.0, nn.Hardsigmoid: 1 / 6}
_UNBOUNDED = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.PReLU)
_ACTIVATIONS = (*_STEEPEST, *_UNBOUNDED, nn.Hardswish, nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink)

Hook = Callable[..., None]


@dataclass
class _Seen:
    """What one pass has shown of a layer; `slopes` is what its activation module, and the input of that, were."""

    axis: int
    output: float
    gradient: float = math.nan
    received: float = math.nan  # by the next layer
    slopes: tuple[nn.Module, Tensor] | None = None


class Layers:
    """The weighted modules of a network in the order of their first calls: those with a parameter of 2 axes or more.

    Found by one call, whose outputs are thrown away; a module that is never called, or whose weights other modules
    read, is none of them. The last is the output layer.
    """

    def __init__(self, network: nn.Module, inputs: Tensor) -> None:
        self._network = network
        self._modules: list[nn.Module] = []
        self._outputs: dict[int, Tensor] = {}
        with in_training(network, dropout=False, seed=0), torch.no_grad(), _hooked(self._weighted(), after=self._meet):
            network(inputs)
        self._number = {id(module): i for i, module in enumerate(self._modules)}

    def _weighted(self) -> list[nn.Module]:
        return [m for m in self._network.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]

    def _meet(self, module: nn.Module, _: Any, output: Any) -> None:
        if _tensor(output) is not None and not any(module is known for known in self._modules):
            self._modules.append(module)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within, the latest output of every layer is at hand for `first_bad`."""

        def keep(module: nn.Module, _: Any, output: Any) -> None:
            found = _tensor(output)
            if found is not None:
                self._outputs[id(module)] = found.detach()

        with _hooked(self._modules, after=keep):
            yield
        self._outputs.clear()

    def first_bad(self) -> int | None:
        """The first layer, from 1, whose latest output is not finite; None if there is none."""
        for i, module in enumerate(self._modules):
            output = self._outputs.get(id(module))
            if output is not None and not bool(output.isfinite().all()):
                return i + 1
        return None

    def signal(
        self, inputs: Tensor, loss: Callable[[Any], Tensor], *, epoch: int, seed: int = 0
    ) -> tuple[LayerSignal, ...]:
        """Signal through every layer in one pass each way: training mode, no dropout, and no trace.

        loss: from the network's outputs the mean over the inputs. Of a hidden layer the activation is what the next
        layer receives; dead and saturated units are known where an activation module of torch's stands between.
        """
        seen: dict[int, _Seen] = {}
        network = self._network
        if not self._modules:
            return ()
        with in_training(network, dropout=False, seed=seed), torch.enable_grad():
            for p in network.parameters():
                p.requires_grad_(p.is_floating_point())
            with self._recorded(seen):
                value = loss(network(inputs))
            weights = [_weights(module) for module in self._modules]
            flat = [w for of_layer in weights for w in of_layer]
            found = dict(zip(map(id, flat), torch.autograd.grad(value, flat, allow_unused=True), strict=True))
            norms = [_norm([found[id(w)] for w in of_layer]) for of_layer in weights]
            shares = [_shares(seen.get(i)) for i in range(len(self._modules))]
        return tuple(
            _signal(epoch, i, seen.get(i), norm, share, rows=len(inputs), last=i == len(self._modules) - 1)
            for i, (norm, share) in enumerate(zip(norms, shares, strict=True))
        )

    @contextmanager
    def _recorded(self, seen: dict[int, _Seen]) -> Iterator[None]:
        latest: list[int] = []  # the layer that was called last

        def before(module: nn.Module, given: tuple[Any, ...]) -> None:
            number, received = self._number.get(id(module)), _tensor(given)
            if not latest or received is None:
                return
            here = seen[latest[-1]]
            if number is None:
                here.slopes = here.slopes or (module, received.detach().clone())
            elif math.isnan(here.received) and number not in seen:
                here.received = _mean_square(received)

        def after(module: nn.Module, _: Any, output: Any) -> None:
            number, found = self._number.get(id(module)), _tensor(output)
            if number is None or number in seen or found is None:
                return
            axis = 1 if isinstance(module, _CONVOLUTIONS) and found.ndim > 2 else -1
            seen[number] = here = _Seen(axis, _mean_square(found))
            latest.append(number)
            if found.requires_grad:
                found.register_hook(lambda gradient: setattr(here, "gradient", _mean_square(gradient)))

        activations = [m for m in self._network.modules() if type(m) in _ACTIVATIONS]
        with _hooked([*self._modules, *activations], before=before), _hooked(self._modules, after=after):
            yield


@contextmanager
def _hooked(modules: Sequence[nn.Module], *, before: Hook | None = None, after: Hook | None = None) -> Iterator[None]:
    handles = [m.register_forward_pre_hook(before) for m in modules] if before else []
    handles += [m.register_forward_hook(after) for m in modules] if after else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _signal(
    epoch: int, i: int, seen: _Seen | None, norm: float, shares: tuple[float | None, ...], *, rows: int, last: bool
) -> LayerSignal:
    seen = seen or _Seen(-1, math.nan)
    return LayerSignal(
        epoch=epoch,
        layer=i + 1,
        activation_second_moment=seen.output if last else seen.received,
        gradient_second_moment=seen.gradient * rows**2,  # of each example's own loss, where the loss is their mean
        weight_gradient_norm=norm,
        dead=None if last else shares[0],
        saturated=None if last else shares[1],
    )


def _shares(seen: _Seen | None) -> tuple[float | None, float | None]:
    """Dead and saturated shares, from the derivative of the activation module at each example and unit."""
    if seen is None or seen.slopes is None:
        return None, None
    module, z = seen.slopes
    z.requires_grad_()
    (slope,) = torch.autograd.grad(module(z * 1).sum(), z)  # times 1: a leaf is not to be changed in place
    dead = float((slope == 0).movedim(seen.axis, 0).flatten(1).all(1).double().mean())
    steepest = _STEEPEST.get(type(module))
    return dead, None if steepest is None else float((slope < _SATURATED * steepest).double().mean())


def _weights(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters(recurse=False) if p.ndim > 1 and p.requires_grad]


def _norm(gradients: Sequence[Tensor | None]) -> float:
    """The Euclidean norm of all of a layer's gradients, 0 where the loss does not depend on it."""
    return math.sqrt(math.fsum(float(g.double().square().sum()) for g in gradients if g is not None))


def _mean_square(t: Tensor) -> float:
    # in double precision: a gradient that has vanished has squares under the smallest float32
    return float(t.detach().double().square().mean())


def _tensor(value: Any) -> Tensor | None:
    """The first tensor of real numbers in a module's inputs or outputs."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, tuple | list):
        return next((t for t in map(_tensor, value) if t is not None), None)
    return None
