"""Parameters at an optimiser's step: their gradients just before it, and how far it moves them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fanin.diagnosis.watch.streams import Seen, Weight, second_moment
from fanin.training.wrappers import local

_SAMPLE = 2**16  # entries of a parameter that are followed through a step


class Weights:
    """The parameters of a network that need gradients, and streams for them in `seen`."""

    def __init__(self, model: nn.Module, seen: Seen) -> None:
        self._named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._seen = seen
        self._before: list[tuple[str, Tensor, Tensor]] = []
        for name, p in self._named:
            seen.weights[name] = Weight(name, p.dim() > 1)
        # the smallest parameters, near the outputs: where anything breaks, their gradients break too, and cost least
        small = sorted(self._named, key=lambda item: item[1].numel())
        smallest = small[0][1].numel() if small else 0
        self._sentinel = next((p for _, p in reversed(self._named) if p.numel() <= max(1024, smallest)), None)

    def broken(self) -> bool:
        """Whether a gradient near the outputs is not finite: a glance that every step can afford on a CPU."""
        g = self._sentinel.grad if self._sentinel is not None else None
        return g is not None and not g.is_sparse and not math.isfinite(float(local(g).sum()))

    @property
    def on_cpu(self) -> bool:
        """Whether such a glance needs no waiting for a card."""
        return self._sentinel is None or self._sentinel.device.type == "cpu"

    def not_finite(self) -> tuple[str | None, str | None]:
        """The first parameter, and the last with a gradient, that is not finite."""
        with torch.no_grad():
            value = next((n for n, p in self._named if not bool(torch.isfinite(local(p)).all())), None)
            gradients = [n for n, p in self._named if p.grad is not None and not bool(torch.isfinite(_dense(p)).all())]
        return value, gradients[-1] if gradients else None

    def graded(self, scale: float) -> None:
        """The gradients are there, times `scale`: note them, and where the weights are."""
        with torch.no_grad():
            for name, p in self._named:
                stream = self._seen.weights[name]
                if p.grad is None:
                    stream.silent += 1
                    continue
                if not local(p.grad).numel():  # all of it is other processes', or it is empty
                    continue
                moment = second_moment(_dense(p)) / scale**2
                stream.silent += moment == 0
                stream.gradient.add(moment)
            self._before = [(name, p, _sample(p).clone()) for name, p in self._named if p.dim() > 1]

    def moved(self) -> None:
        """The step is done: |change| / |weights| of each matrix, of at most 65,536 of its entries."""
        with torch.no_grad():
            for name, p, before in self._before:
                size = float(torch.linalg.vector_norm(before.float()))
                change = float(torch.linalg.vector_norm((_sample(p) - before).float()))
                if size:
                    self._seen.weights[name].update.add(change / size)
        self._before = []

    def held_by(self, optimizer: torch.optim.Optimizer) -> list[str]:
        """Names of the parameters that the optimiser has."""
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return [name for name, p in self._named if id(p) in owned]

    @property
    def names(self) -> Sequence[str]:
        """All of them."""
        return [name for name, _ in self._named]


def _sample(p: Tensor) -> Tensor:
    flat = local(p.detach()).reshape(-1)
    return flat[:: -(-flat.numel() // _SAMPLE) or 1]


def _dense(p: Tensor) -> Tensor:
    assert p.grad is not None
    g = local(p.grad.detach())
    return g.coalesce().values() if g.is_sparse else g
