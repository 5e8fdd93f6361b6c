"""The optimisers of a stack: each distinct set of hyperparameters is a group that moves its members' rows.

Where torch has a kernel that does a whole step in one pass (`torch._fused_adam_` and its like, which `fused=True`
calls), it is called directly: torch.optim's own bookkeeping costs as much as a small layer, and loading it a second.
All others are torch.optim's classes. Both are tested against torch.optim's plain loops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fanin.choice import Choice
from fanin.engine.buffers import refill
from fanin.engine.network import Network
from fanin.engine.schedules import factor
from fanin.recipe import Trial

TORCH_CLASSES: dict[str, str] = {
    "sgd": "SGD",
    "adadelta": "Adadelta",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "adamw": "AdamW",
    "sparse_adam": "SparseAdam",
    "adamax": "Adamax",
    "asgd": "ASGD",
    "lbfgs": "LBFGS",
    "rmsprop": "RMSprop",
    "rprop": "Rprop",
}


class Group(Protocol):
    """Members with equal hyperparameters; each is a row of parameters with its gradient."""

    def step(self, loss: Tensor, again: Callable[[], float]) -> None:
        """Move every member that is left, by the gradients as they stand."""

    def drop(self, m: int) -> None:
        """Leave member m where it is from now on."""

    def state(self) -> Any:
        """What the members that are left have gathered: plain data and tensors, not copied."""

    def resume(self, state: Any) -> None:
        """Take what `state` said of a group of the same members, of whom the same are left."""


class Optimizer:
    """Moves each member by its own gradient; a frozen member is not touched again, nor are its neighbours.

    name: the catalogue name, one for the whole stack; hyperparameters may differ by member. SparseAdam sees the
    non-zero entries of the gradient as a sparse tensor. LBFGS needs a stack of one.
    """

    def __init__(self, trials: Sequence[Trial], network: Network) -> None:
        choices = [trial.recipe.optimizer for trial in trials]
        self.name = choices[0].name
        if self.name == "lbfgs" and len(choices) > 1:
            raise ValueError(f"expected a stack of one for LBFGS, which searches along one line; got {len(choices)}")
        build = _FUSED.get(self.name, _Plain) if network.parameters.device.type in ("cpu", "cuda") else _Plain
        self._epochs = trials[0].recipe.epochs
        members: dict[tuple[Choice, Choice], list[int]] = {}
        for m, trial in enumerate(trials):
            members.setdefault((trial.recipe.optimizer, trial.recipe.schedule), []).append(m)
        self._groups = [build(choice, rows, network) for (choice, _), rows in members.items()]
        self._rates = [(choice["lr"], schedule) for choice, schedule in members]
        self._group_of = {m: group for group, rows in zip(self._groups, members.values(), strict=True) for m in rows}

    def begin_epoch(self, epoch: int) -> None:
        """Set each group's learning rate for an epoch, counted from 1, by its schedule."""
        for group, (lr, schedule) in zip(self._groups, self._rates, strict=True):
            group.set_rate(lr * factor(schedule, epoch, self._epochs))

    def freeze(self, m: int) -> None:
        """Leave member m where it is from now on."""
        self._group_of[m].drop(m)

    def step(self, loss: Tensor, again: Callable[[], float]) -> None:
        """Move every member that is not frozen, by the gradients as they stand; `loss` (M,) belongs to them.

        `again` recomputes the loss and the gradients at the parameters as they are; only LBFGS calls it.
        """
        for group in self._groups:
            group.step(loss, again)

    def state(self) -> list[Any]:
        """What members that are not frozen have gathered: plain data and tensors, not copied."""
        return [group.state() for group in self._groups]

    def resume(self, state: Sequence[Any]) -> None:
        """Go on from what `state` said of the optimiser of the same trials; the same must be frozen."""
        for group, found in zip(self._groups, state, strict=True):
            group.resume(found)


class _Fused(ABC):
    """A group moved by one call of a kernel of torch's own; `state` (S, n) lists are the rows' running statistics."""

    def __init__(self, choice: Choice, rows: Sequence[int], network: Network) -> None:
        self._members = list(rows)
        self._options = choice.keywords()
        self._parameters = [network.parameters[m] for m in rows]
        self._gradients = [network.gradients[m] for m in rows]
        self._steps = [network.parameters.new_zeros((), dtype=torch.float32) for _ in rows]
        self._one = network.parameters.new_ones((), dtype=torch.float32)
        self._state = [[self._start(row) for row in self._parameters] for _ in range(self._kinds())]

    def _kinds(self) -> int:
        """How many running statistics a row has."""
        return 0

    def _start(self, row: Tensor) -> Tensor:
        """A running statistic before the first step."""
        return torch.zeros_like(row)

    def drop(self, m: int) -> None:
        """Leave member m where it is from now on."""
        i = self._members.index(m)
        for of_members in (self._members, self._parameters, self._gradients, self._steps, *self._state):
            del of_members[i]

    def state(self) -> dict[str, Any]:
        """Steps taken and running statistics, row by row."""
        return {"steps": self._steps, "running": self._state}

    def resume(self, state: dict[str, Any]) -> None:
        """Steps taken and running statistics as they were."""
        refill(self._steps, state["steps"])
        for mine, theirs in zip(self._state, state["running"], strict=True):
            refill(mine, theirs)

    def set_rate(self, lr: float) -> None:
        """The learning rate from now on."""
        self._options["lr"] = lr

    def step(self, loss: Tensor, again: Callable[[], float]) -> None:
        """Move every member that is left."""
        if self._members:
            torch._foreach_add_(self._steps, self._one)
            self._move()

    @abstractmethod
    def _move(self) -> None:
        """Call the kernel."""


class _Sgd(_Fused):
    """Stochastic gradient descent."""

    _moved = False

    def _kinds(self) -> int:
        return int(self._options["momentum"] != 0)

    def resume(self, state: dict[str, Any]) -> None:
        """As they were; whoever has taken a step has a momentum."""
        super().resume(state)
        self._moved = any(float(step) > 0 for step in self._steps)

    def _move(self) -> None:
        buffers = self._state[0] if self._state else []
        torch._fused_sgd_(
            self._parameters,
            self._gradients,
            buffers,
            lr=self._options["lr"],
            momentum=self._options["momentum"],
            dampening=self._options["dampening"],
            nesterov=self._options["nesterov"],
            weight_decay=self._options["weight_decay"],
            maximize=False,
            is_first_step=not self._moved,  # the first momentum is the gradient itself, without dampening
        )
        self._moved = True


class _Adam(_Fused):
    """Adam, and with `kernel` replaced AdamW."""

    kernel = staticmethod(torch._fused_adam_)

    def _kinds(self) -> int:
        return 3 if self._options["amsgrad"] else 2

    def _move(self) -> None:
        options = self._options
        beta1, beta2 = options["betas"]
        self.kernel(
            self._parameters,
            self._gradients,
            self._state[0],
            self._state[1],
            self._state[2] if options["amsgrad"] else [],
            self._steps,
            lr=options["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=options["weight_decay"],
            eps=options["eps"],
            amsgrad=options["amsgrad"],
            maximize=False,
        )


class _AdamW(_Adam):
    """Adam with decoupled weight decay."""

    kernel = staticmethod(torch._fused_adamw_)


class _Plain:
    """A group moved by torch.optim; a dropped member has no gradient, so torch.optim passes it over."""

    def __init__(self, choice: Choice, rows: Sequence[int], network: Network) -> None:
        self._name = choice.name
        self._gradients = {m: network.gradients[m] for m in rows}
        self._parameters = {m: network.parameters[m].detach() for m in rows}
        for m in rows:
            self._parameters[m].grad = self._gradients[m]
        kind: Any = getattr(torch.optim, TORCH_CLASSES[choice.name])
        self._optimizer = kind(list(self._parameters.values()), **choice.keywords())

    def drop(self, m: int) -> None:
        """Leave member m where it is from now on."""
        self._parameters[m].grad = None
        del self._gradients[m]

    def state(self) -> list[dict[str, Any]]:
        """torch.optim's own state, member by member."""
        return [dict(self._optimizer.state[self._parameters[m]]) for m in self._gradients]

    def resume(self, state: Sequence[dict[str, Any]]) -> None:
        """torch.optim's own state as it was: load_state_dict would turn every number into the parameters' dtype."""
        for m, found in zip(self._gradients, state, strict=True):
            self._optimizer.state[self._parameters[m]] = found

    def set_rate(self, lr: float) -> None:
        """The learning rate from now on."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def step(self, loss: Tensor, again: Callable[[], float]) -> None:
        """Move every member that is left."""
        if self._name == "lbfgs":
            self._optimizer.step(_from_second(loss, again))
            return
        if self._name == "sparse_adam":
            for m, gradient in self._gradients.items():
                self._parameters[m].grad = gradient.to_sparse()
        self._optimizer.step()


_FUSED: dict[str, type[_Fused]] = {"sgd": _Sgd, "adam": _Adam, "adamw": _AdamW}


def _from_second(loss: Tensor, again: Callable[[], float]) -> Callable[[], float]:
    """A closure whose first call returns what has been computed already, and whose later calls compute."""
    known: list[float] = [float(loss[0])]

    def closure() -> float:
        return known.pop() if known else again()

    return closure
