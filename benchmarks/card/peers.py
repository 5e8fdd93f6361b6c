"""The peers on a card, all with the data on it: PyTorch's loop, eager and captured, and an ensemble under vmap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial

import torch
import torch._dynamo
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional

from card.clock import Row, Run, Scale, captured, measured
from peers.pytorch import network
from way import BATCH, LR, in_memory

LARGEST = 128  # members of an ensemble: its activations are not reused
EAGER, ENSEMBLE = "PyTorch, eager loop", "torch.func.vmap"  # the two that the targets name

Step = Callable[[Tensor, Tensor], Tensor]  # inputs and labels of a batch in, its loss out
Prepared = tuple[Run, Callable[[], float]]


def rows(sizes: Sequence[int], *, scale: Scale, device: torch.device) -> Iterator[Row]:
    """The loop as it comes, with the fused optimiser, captured; ensembles eager, captured and compiled."""
    row = partial(measured, precision="fp32", scale=scale, device=device)
    yield row(EAGER, 1, prepare=lambda: _looped(_one(device, fused=False), Batches(1, device)))
    yield row(f"{EAGER}, fused Adam", 1, prepare=lambda: _looped(_one(device, fused=True), Batches(1, device)))
    yield row(
        "PyTorch, captured step", 1, prepare=lambda: _replayed(_one(device, fused=True, captured=True), 1, device)
    )
    for members in (size for size in sizes if size <= LARGEST):
        stacked, batches = partial(_ensemble, members, device), partial(Batches, members, device)
        yield row(ENSEMBLE, members, prepare=lambda s=stacked, b=batches: _looped(s(), b()))
        yield row(
            f"{ENSEMBLE}, captured",
            members,
            prepare=lambda s=stacked, m=members: _replayed(s(captured=True), m, device),
        )
        yield row(
            f"{ENSEMBLE}, torch.compile",
            members,
            prepare=lambda s=stacked, b=batches: _looped(s(compiled=True), b()),
        )


class Batches:
    """The training data on the device, and every member's order of it, of which each step takes the next part."""

    def __init__(self, members: int, device: torch.device) -> None:
        self._inputs, self._labels = (t.to(device) for t in in_memory())
        self._steps = len(self._labels) // BATCH
        used = self._steps * BATCH
        orders = [torch.randperm(len(self._labels))[:used].view(self._steps, BATCH) for _ in range(members)]
        self._order = (orders[0] if members == 1 else torch.stack(orders, 1)).to(device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step, whose number the host knows: (B, D) or (M, B, D), and labels."""
        return self._rows(self._order[step % self._steps])

    def following(self) -> tuple[Tensor, Tensor]:
        """The next batch; the device counts, so that this can be captured."""
        rows = self._order.index_select(0, self._step)[0]
        self._step.add_(1).remainder_(self._steps)
        return self._rows(rows)

    def _rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self._inputs[rows], self._labels[rows]


def _looped(step: Step, batches: Batches) -> Prepared:
    """The host's loop; it remembers the last loss, which the device keeps."""
    last: list[Tensor] = []

    def run(steps: int) -> None:
        for i in range(steps):
            last[:] = [step(*batches.at(i))]

    return run, lambda: float(last[0].mean())


def _replayed(step: Step, members: int, device: torch.device) -> Prepared:
    """The whole step, its batch and its optimiser included, as one graph."""
    batches = Batches(members, device)
    last = torch.zeros(() if members == 1 else (members,), device=device)
    replay = captured(lambda: last.copy_(step(*batches.following())), device)

    def run(steps: int) -> None:
        for _ in range(steps):
            replay()

    return run, lambda: float(last.mean())


def _adam(parameters: Sequence[Tensor], device: torch.device, *, fused: bool, captured: bool) -> torch.optim.Adam:
    # None is torch's own choice; the processor's optimisers know nothing of captures
    return torch.optim.Adam(parameters, lr=LR, fused=fused or None, capturable=captured and device.type == "cuda")


def _one(device: torch.device, *, fused: bool, captured: bool = False) -> Step:
    """A step of one network."""
    model = network().to(device)
    optimizer = _adam(list(model.parameters()), device, fused=fused, captured=captured)

    def step(inputs: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _ensemble(members: int, device: torch.device, *, compiled: bool = False, captured: bool = False) -> Step:
    """A step of an ensemble, as PyTorch's tutorial builds it; one fused optimiser for the stacks."""
    networks = [network() for _ in range(members)]
    state, buffers = stack_module_state(networks)
    # detached: `grad` differentiates without autograd's help, which would record everything once more
    parameters = {name: parameter.detach().to(device) for name, parameter in state.items()}
    skeleton = deepcopy(networks[0]).to("meta")
    optimizer = _adam(list(parameters.values()), device, fused=True, captured=captured)

    def loss(parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(skeleton, (parameters, buffers), (inputs,)), labels)

    differentiate = vmap(grad_and_value(loss))
    if compiled:
        # each size for itself, as the others are; and no copies of the parameters before every step
        differentiate = torch.compile(differentiate, mode="reduce-overhead", dynamic=False)
        for parameter in parameters.values():
            torch._dynamo.mark_static_address(parameter)

    def step(inputs: Tensor, labels: Tensor) -> Tensor:
        if compiled:
            torch.compiler.cudagraph_mark_step_begin()  # the last step's gradients may be overwritten
        gradients, losses = differentiate(parameters, inputs, labels)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        optimizer.step()
        return losses.clone() if compiled else losses

    return step
