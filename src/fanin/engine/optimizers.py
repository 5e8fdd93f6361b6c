"""torch.optim over the flat rows of a stack: one parameter group for each distinct set of hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fanin.engine.network import Network
from fanin.recipe import Choice, Trial

CLASSES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sparse_adam": torch.optim.SparseAdam,
    "adamax": torch.optim.Adamax,
    "asgd": torch.optim.ASGD,
    "lbfgs": torch.optim.LBFGS,
    "rmsprop": torch.optim.RMSprop,
    "rprop": torch.optim.Rprop,
}

# torch's single-pass kernels; lr and betas may differ between their groups
_FUSED = {"sgd", "adam", "adamw", "adagrad"}


class Optimizer:
    """Moves each member by its own gradient; a frozen member is not touched again, nor are its neighbours.

    name: the catalogue name, one for the whole stack; hyperparameters may differ by member. SparseAdam sees the
    non-zero entries of the gradient as a sparse tensor. LBFGS needs a stack of one.
    """

    def __init__(self, trials: Sequence[Trial], network: Network) -> None:
        choices = [trial.recipe.optimizer for trial in trials]
        self.name = choices[0].name
        self._rows: list[Tensor] = [row.detach() for row in network.parameters]
        self._gradients: list[Tensor] = list(network.gradients)
        self._optimizer = _build(choices, self._rows, network.parameters)
        self._frozen: set[int] = set()
        for row, gradient in zip(self._rows, self._gradients, strict=True):
            row.grad = gradient

    def freeze(self, m: int) -> None:
        """Leave member m where it is from now on: it has no gradient, so torch.optim passes it over."""
        self._frozen.add(m)
        self._rows[m].grad = None

    def step(self, loss: Tensor, again: Callable[[], float]) -> None:
        """Move every member that is not frozen, by the gradients as they stand; `loss` (M,) belongs to them.

        `again` recomputes the loss and the gradients at the parameters as they are; only LBFGS calls it.
        """
        if self.name == "lbfgs":
            self._optimizer.step(_from_second(loss, again))
            return
        if self.name == "sparse_adam":
            for m, row in enumerate(self._rows):
                if m not in self._frozen:
                    row.grad = self._gradients[m].to_sparse()
        self._optimizer.step()


def _build(choices: Sequence[Choice], rows: list[Tensor], like: Tensor) -> torch.optim.Optimizer:
    name = choices[0].name
    fast = {"fused": True} if name in _FUSED and like.device.type in ("cpu", "cuda") else {}
    if name == "lbfgs":
        return torch.optim.LBFGS(rows, **choices[0].keywords())
    groups: dict[Choice, list[Tensor]] = {}
    for choice, row in zip(choices, rows, strict=True):
        groups.setdefault(choice, []).append(row)
    parameters = [{"params": members, **choice.keywords()} for choice, members in groups.items()]
    built = CLASSES[name](parameters, **fast)
    if name == "adagrad":  # torch.optim reads this one from its constructor alone, not from a group
        for group in built.param_groups:
            for row in group["params"]:
                built.state[row]["sum"].fill_(group["initial_accumulator_value"])
    return built


def _from_second(loss: Tensor, again: Callable[[], float]) -> Callable[[], float]:
    """A closure whose first call returns what has been computed already, and whose later calls compute."""
    known: list[float] = [float(loss[0])]

    def closure() -> float:
        return known.pop() if known else again()

    return closure
