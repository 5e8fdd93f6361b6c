"""Optimisers: how a user gave one (an instance, a class, a factory), and the same for another copy of the network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fanin.errors import FaninError
from fanin.training.wrappers import unwrapped_optimizer

HALF_EPS = 1e-4  # of adaptive optimisers in float16: a normal number, as 6.1e-5 is the smallest
Factory = Callable[[Iterable[Any]], torch.optim.Optimizer]


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimiser that can be built for any copy of a network.

    words: what it is. groups: of an instance, its parameter groups as (options, names of the parameters); factory: of
    anything else, called with an iterable of parameters. foreign: parameters of an instance that are not the
    network's. changed: options that differ from those given ({"lr": 0.01}), for all groups.
    factor: on the learning rate of every group.
    """

    words: str
    kind: type[torch.optim.Optimizer] | None = None
    groups: tuple[tuple[Mapping[str, Any], tuple[str, ...]], ...] = ()
    factory: Factory | None = None
    foreign: int = 0
    changed: Mapping[str, Any] = field(default_factory=dict)
    factor: float = 1.0

    @classmethod
    def of(cls, optimizer: Any, model: nn.Module) -> OptimizerSpec:
        """From an instance, a class, a factory (called with model.parameters()), or None: Adam, as `adam` makes it.

        Of what Accelerate or Lightning have wrapped the optimiser within is taken.
        """
        optimizer = unwrapped_optimizer(optimizer)
        if optimizer is None:
            half = any(p.dtype == torch.float16 for p in model.parameters())
            words = f"Adam with eps = {HALF_EPS:g}, since parameters are float16" if half else "Adam at its defaults"
            return cls(f"{words}{' and' if half else ', since'} none was given", factory=adam)
        if isinstance(optimizer, torch.optim.Optimizer):
            return cls._of_instance(optimizer, model)
        if callable(optimizer):
            return cls(getattr(optimizer, "__name__", type(optimizer).__name__), factory=optimizer)
        raise FaninError(
            "optimizer: expected an instance of torch.optim, its class, or a function of parameters that makes one; "
            f"got {type(optimizer).__name__}"
        )

    @classmethod
    def _of_instance(cls, optimizer: torch.optim.Optimizer, model: nn.Module) -> OptimizerSpec:
        names = {id(p): name for name, p in model.named_parameters()}
        groups, foreign = [], 0
        for group in optimizer.param_groups:
            held = [names.get(id(p)) for p in group["params"]]
            foreign += held.count(None)
            options = {k: v for k, v in group.items() if k not in ("params", "param_names", "initial_lr")}
            groups.append((options, tuple(name for name in held if name is not None)))
        return cls(type(optimizer).__name__, type(optimizer), tuple(groups), foreign=foreign)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser for this copy, without state; FaninError if that fails."""
        try:
            built = self._built(model)
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
            raise FaninError(
                f"optimizer: expected a torch.optim optimiser for the model's parameters; {self.words} raised "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(built, torch.optim.Optimizer):
            raise FaninError(
                f"optimizer: expected {self.words} to make a torch.optim optimiser; got {type(built).__name__}"
            )
        for group in built.param_groups:
            group.update({k: v for k, v in self.changed.items() if k in group})
            if "lr" in group:
                group["lr"] = group["lr"] * self.factor
        return built

    def _built(self, model: nn.Module) -> torch.optim.Optimizer:
        if self.factory is not None:
            return _of_parameters_or_model(self.factory, model)
        assert self.kind is not None
        by_name = dict(model.named_parameters())
        groups = [dict(options) | {"params": [by_name[n] for n in names]} for options, names in self.groups if names]
        if not groups:
            raise ValueError(
                "it holds none of the model's parameters; give a function that makes the optimiser of parameters, such "
                "as lambda parameters: torch.optim.SGD(parameters, lr=0.1)"
            )
        defaults = {k: v for k, v in groups[0].items() if k != "params"}
        known = inspect.signature(self.kind).parameters
        return self.kind(groups, **{k: v for k, v in defaults.items() if k in known})

    def with_options(self, **options: Any) -> OptimizerSpec:
        """The same with other options, such as lr=0.01, in all groups."""
        factor = 1.0 if "lr" in options else self.factor  # a learning rate that is given is the one that is meant
        return replace(self, changed=dict(self.changed) | options, factor=factor)

    def scaled(self, factor: float) -> OptimizerSpec:
        """The same with the learning rate of every group times a factor."""
        return replace(self, factor=self.factor * factor)

    def renamed(self, new: Callable[[str], str], *, added: Sequence[str] = ()) -> OptimizerSpec:
        """The same for a network whose parameters have other names; those added go to the first group.

        A factory takes whatever parameters there are.
        """
        if not self.groups:
            return self
        groups = [(options, tuple(map(new, names))) for options, names in self.groups]
        (options, names), *rest = groups
        return replace(self, groups=((options, (*names, *added)), *rest))


def adam(parameters: Iterable[nn.Parameter], *, lr: float = 1e-3) -> torch.optim.Adam:
    """torch.optim.Adam at its defaults; with eps = 1e-4 where a parameter is float16, in which 1e-8 is 0."""
    held = list(parameters)
    eps = HALF_EPS if any(p.dtype == torch.float16 for p in held) else 1e-8
    return torch.optim.Adam(held, lr=lr, eps=eps)


def _of_parameters_or_model(factory: Callable[[Any], torch.optim.Optimizer], model: nn.Module) -> torch.optim.Optimizer:
    """factory(model.parameters()), as of torch.optim's classes, or factory(model) of a function that asks for that."""
    try:
        return factory(model.parameters())
    except (AttributeError, TypeError) as error:
        if isinstance(factory, type):
            raise
        try:
            return factory(model)
        except Exception:
            raise error from None


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The largest learning rate of its groups."""
    rates = [group["lr"] for group in optimizer.param_groups if "lr" in group]
    return max((float(r) for r in rates), default=float("nan"))


def held(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All parameters of its groups."""
    return [p for group in optimizer.param_groups for p in group["params"]]
