"""torch.func: an ensemble under vmap, every member with batches of its own, as PyTorch's tutorial builds it."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional

from peers.pytorch import network
from stopwatch import Done, Stopwatch
from way import BATCH, LR, WARM_UP, Way, in_memory


def epoch(way: Way, watch: Stopwatch) -> Done:
    """Stacked parameters, one vmapped call for all gradients, default Adam on the stacks."""
    ensemble = Ensemble(way.members)
    ensemble.train(WARM_UP)
    watch.start()
    loss = ensemble.train(way.steps)
    watch.stop()
    return Done(way.members, loss)


class Ensemble:
    """Members of one shape, initialised one after the other."""

    def __init__(self, members: int) -> None:
        networks = [network() for _ in range(members)]
        self._members = members
        parameters, buffers = stack_module_state(networks)
        # detached: `grad` differentiates without autograd's help, which would record everything once more
        self._parameters = {name: parameter.detach() for name, parameter in parameters.items()}
        skeleton = deepcopy(networks[0]).to("meta")

        def loss(parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
            return functional.cross_entropy(functional_call(skeleton, (parameters, buffers), (inputs,)), labels)

        self._gradients = vmap(grad_and_value(loss))
        self._optimizer = torch.optim.Adam(self._parameters.values(), lr=LR)

    def train(self, steps: int) -> float:
        """The mean loss of so many steps of a new epoch."""
        inputs, labels = in_memory()
        order = torch.stack([torch.randperm(len(labels)) for _ in range(self._members)])
        total = torch.zeros(self._members)
        for rows in order[:, : steps * BATCH].split(BATCH, dim=1):
            gradients, losses = self._gradients(self._parameters, inputs[rows], labels[rows])
            for name, parameter in self._parameters.items():
                parameter.grad = gradients[name]
            self._optimizer.step()
            total += losses
        return float(total.mean()) / steps
