"""Optimiser steps of a whole stack at once, whose hyperparameters are vectors: one number a member.

What a step needs besides the numbers themselves (rates, decays, bias corrections) is a table of coefficients
(steps, M, C), made once an epoch: so a step is the same operations whoever takes part, and can be captured and
replayed. A member that is not alive is not touched. `torch.optim` is the reference, in the tests; on a card the steps
are Triton kernels, elsewhere plain tensor operations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fanin.choice import Choice
from fanin.engine.card.philox import triton_for
from fanin.engine.network import Network
from fanin.execution import optimizer_flags


class Update:
    """The optimiser of M slots; all share `choice`'s name and flags, each has its own numbers.

    kernels: use the Triton kernels, which are for float32; by default on a card where Triton is installed.
    """

    def __init__(self, choice: Choice, network: Network, *, kernels: bool | None = None) -> None:
        self._name, self._flags = choice.name, optimizer_flags(choice)
        self._rows, self._gradients = network.parameters, network.gradients
        members, device = len(self._rows), self._rows.device
        self._state = [torch.zeros_like(self._rows) for _ in range(_kinds(choice.name, self._flags))]
        self._coefficients = _COEFFICIENTS[choice.name]
        self._count = len(self._coefficients(choice, torch.ones(1, dtype=torch.float64)))
        self._table = torch.zeros(0, members, self._count, dtype=self._rows.dtype, device=device)
        self._choices: list[Choice | None] = [None] * members
        self._taken = [0] * members
        if kernels is None:
            kernels = triton_for(device) and self._rows.dtype == torch.float32
        self._move = _kernel(choice.name, self._flags) if kernels else self._plainly
        self._plain = partial(_PLAIN[choice.name], **self._flags)

    def admit(self, m: int, choice: Choice) -> None:
        """Slot m begins anew, with these hyperparameters; ValueError if they ask for other operations."""
        if (choice.name, optimizer_flags(choice)) != (self._name, self._flags):
            raise ValueError(f"expected {self._name} with {self._flags}, as the whole stack; got {choice}")
        self._choices[m], self._taken[m] = choice, 0
        for state in self._state:
            state[m].zero_()

    def begin_epoch(self, steps: int) -> None:
        """Make the table of the next `steps` steps; its memory stays where it is as long as their number does."""
        table = torch.zeros(steps, len(self._choices), self._count, dtype=torch.float64)
        known: dict[tuple[Choice, int], Tensor] = {}  # the seeds of an arm share theirs
        for m, choice in enumerate(self._choices):
            if choice is not None:
                key = choice, self._taken[m]
                if key not in known:
                    known[key] = self._rows_of(choice, self._taken[m], steps)
                table[:, m] = known[key]
                self._taken[m] += steps
        if len(self._table) != steps:
            self._table = torch.zeros_like(table, dtype=self._rows.dtype, device=self._rows.device)
        self._table.copy_(table)

    def _rows_of(self, choice: Choice, taken: int, steps: int) -> Tensor:
        """(steps, C): the coefficients of one member that has taken so many steps."""
        t = taken + torch.arange(1, steps + 1, dtype=torch.float64)
        columns = (torch.as_tensor(c, dtype=torch.float64) for c in self._coefficients(choice, t))
        return torch.stack([column.expand(steps) for column in columns], 1)

    def step(self, step: Tensor, alive: Tensor) -> None:
        """Move the rows that are alive (M,); `step` (1,) counts from 0 within the epoch."""
        self._move(
            rows=self._rows,
            gradients=self._gradients,
            state=self._state,
            coefficients=self._table,
            step=step,
            alive=alive,
        )

    def _plainly(self, *, coefficients: Tensor, step: Tensor, alive: Tensor, **tensors: Any) -> None:
        columns = torch.index_select(coefficients, 0, step)[0].unsqueeze(2).unbind(1)
        self._plain(**tensors, coefficients=columns, alive=alive.unsqueeze(1))


def _kinds(name: str, flags: dict[str, bool]) -> int:
    """Running statistics that a row has."""
    return {
        "adam": 2 + flags.get("amsgrad", False),
        "adamw": 2 + flags.get("amsgrad", False),
        "sgd": int(flags.get("momentum", False)),
        "rmsprop": 1 + flags.get("centered", False) + flags.get("momentum", False),
    }[name]


_Numbers = tuple[Tensor | float, ...]


def _adam_coefficients(choice: Choice, t: Tensor) -> _Numbers:
    beta1, beta2 = choice["betas"]
    decay = 1 - choice["lr"] * choice["weight_decay"] if choice.name == "adamw" else choice["weight_decay"]
    size, root = choice["lr"] / (1 - beta1**t), (1 - beta2**t).sqrt()
    return size, root, 1 - beta1, beta2, 1 - beta2, choice["eps"], decay


def _sgd_coefficients(choice: Choice, t: Tensor) -> _Numbers:
    later = (t > 1).double()  # the first velocity is the gradient itself, without dampening
    keep, add = later * choice["momentum"], 1 - later * choice["dampening"]
    return choice["lr"], choice["weight_decay"], keep, add, choice["momentum"]


def _rmsprop_coefficients(choice: Choice, t: Tensor) -> _Numbers:
    alpha = choice["alpha"]
    return choice["lr"], choice["weight_decay"], alpha, 1 - alpha, choice["eps"], choice["momentum"]


_COEFFICIENTS: dict[str, Callable[[Choice, Tensor], _Numbers]] = {
    "adam": _adam_coefficients,
    "adamw": _adam_coefficients,
    "sgd": _sgd_coefficients,
    "rmsprop": _rmsprop_coefficients,
}


def _keep(alive: Tensor, old: Tensor, new: Tensor) -> None:
    """old becomes new where alive; what is not alive may hold NaN, which a product with 0 would spread."""
    old.copy_(torch.where(alive, new, old))


def _adam(
    *, rows: Tensor, gradients: Tensor, state: list[Tensor], coefficients: tuple[Tensor, ...], alive: Tensor,
    amsgrad: bool, decoupled: bool,
) -> None:  # fmt: skip
    size, root, beta1_, beta2, beta2_, eps, decay = coefficients
    p, g = (rows * decay, gradients) if decoupled else (rows, gradients + decay * rows)
    m = state[0] + (g - state[0]) * beta1_
    v = state[1] * beta2 + g * g * beta2_
    _keep(alive, state[0], m)
    _keep(alive, state[1], v)
    if amsgrad:
        v = torch.maximum(state[2], v)
        _keep(alive, state[2], v)
    _keep(alive, rows, p - size * (m / (v.sqrt() / root + eps)))


def _sgd(
    *, rows: Tensor, gradients: Tensor, state: list[Tensor], coefficients: tuple[Tensor, ...], alive: Tensor,
    momentum: bool, nesterov: bool,
) -> None:  # fmt: skip
    lr, decay, keep, add, factor = coefficients
    g = gradients + decay * rows
    if momentum:
        velocity = state[0] * keep + g * add
        _keep(alive, state[0], velocity)
        g = g + factor * velocity if nesterov else velocity
    _keep(alive, rows, rows - lr * g)


def _rmsprop(
    *, rows: Tensor, gradients: Tensor, state: list[Tensor], coefficients: tuple[Tensor, ...], alive: Tensor,
    centered: bool, momentum: bool,
) -> None:  # fmt: skip
    lr, decay, alpha, alpha_, eps, factor = coefficients
    g = gradients + decay * rows
    square = state[0] * alpha + g * g * alpha_
    _keep(alive, state[0], square)
    if centered:
        average = state[1] + (g - state[1]) * alpha_
        _keep(alive, state[1], average)
        square = square - average * average
    g = g / (square.sqrt() + eps)
    if momentum:
        g = state[-1] * factor + g
        _keep(alive, state[-1], g)
    _keep(alive, rows, rows - lr * g)


_PLAIN: dict[str, Callable[..., None]] = {
    "adam": partial(_adam, decoupled=False),
    "adamw": partial(_adam, decoupled=True),
    "sgd": _sgd,
    "rmsprop": _rmsprop,
}


def _kernel(name: str, flags: dict[str, bool]) -> Callable[..., None]:
    from fanin.engine.card import kernels  # loads Triton

    return partial(getattr(kernels, name), **flags)
