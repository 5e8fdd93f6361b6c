"""The independent implementation: nn.Sequential, autograd and torch.optim's plain classes, one loop a reader can check.

Nothing of the engine is used but a trial's start (copied) and its keyed streams (re-derived from their definition in
`fanin.streams`). Modules, losses, masks, optimisers and the loop are written out here a second time, by other means:
no stack, no flat parameters, no fused kernels, no buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanin.engine.data import Data
from fanin.engine.network import Network, widths
from fanin.engine.optimizers import Optimizer
from fanin.engine.train import Outcome, train
from fanin.recipe import Recipe, Trial
from fanin.streams import Stream

MODULES: dict[str, Callable[..., nn.Module]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
}

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
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


def problem(
    *,
    examples: int = 200,
    features: int = 6,
    classes: int = 3,
    tests: int = 23,
    bytes_: bool = False,
    scale: float = 1.0,
    seed: int = 0,
) -> Data:
    """A small classification problem with structure: classes are noisy linear functions of the inputs."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(features, classes, generator=generator)

    def part(n: int) -> tuple[Tensor, Tensor]:
        x = torch.rand(n, features, generator=generator)
        noise = torch.randn(n, classes, generator=generator)
        labels = ((x - 0.5) @ truth + 0.3 * noise).argmax(1)
        return ((x * 255).round().to(torch.uint8) if bytes_ else x), labels

    return Data(*part(examples), *part(tests), scale=scale, classes=classes)


class GivenMask(nn.Module):
    """Dropout whose mask, already scaled, is set from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: Tensor | None = None

    def forward(self, h: Tensor) -> Tensor:
        return h * self.mask if self.training else h


def build(recipe: Recipe, sizes: list[int], start: dict[str, Tensor], dtype: torch.dtype) -> nn.Sequential:
    """The recipe's network as plain modules, at the given start."""
    modules: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        linear = nn.Linear(fan_in, fan_out, dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(start[f"layers.{i}.weight"])
            linear.bias.copy_(start[f"layers.{i}.bias"])
        modules.append(linear)
        if i < len(sizes) - 2:
            if recipe.normalization == "batch":
                modules.append(nn.BatchNorm1d(fan_out, dtype=dtype))
            modules.append(MODULES[recipe.activation.name](**recipe.activation.keywords()))
            if recipe.dropout > 0:
                modules.append(GivenMask())
    return nn.Sequential(*modules)


def named(net: nn.Sequential) -> dict[str, Tensor]:
    """The parameters and running statistics under the engine's names."""
    out: dict[str, Tensor] = {}
    layer = -1
    for module in net:
        if isinstance(module, nn.Linear):
            layer += 1
            out |= {f"layers.{layer}.weight": module.weight, f"layers.{layer}.bias": module.bias}
        elif isinstance(module, nn.BatchNorm1d):
            parts = (module.weight, module.bias, module.running_mean, module.running_var)
            names = ("scale", "shift", "running_mean", "running_var")
            out |= {f"layers.{layer}.{n}": p for n, p in zip(names, parts, strict=True)}
    return {name: tensor.detach().clone() for name, tensor in out.items()}


def mask(trial: Trial, epoch: int, step: int, layer: int, shape: tuple[int, int]) -> Tensor:
    """Dropped where 16 random bits are under p * 2^16, else 1 / (1 - p), in float64."""
    cut = round(trial.recipe.dropout * 65536)
    noise = Stream(trial.seed, "dropout", epoch=epoch, step=step, layer=layer).uint16(shape[0] * shape[1])
    kept = torch.from_numpy((noise >= cut).astype("float64")).reshape(shape)
    return kept * (65536 / (65536 - cut))


def loss_of(recipe: Recipe, outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean loss over a batch."""
    if recipe.loss == "cross_entropy":
        return functional.cross_entropy(outputs, labels)
    return functional.mse_loss(outputs, functional.one_hot(labels, outputs.shape[1]).to(outputs.dtype))


def optimizer_for(recipe: Recipe, net: nn.Sequential) -> torch.optim.Optimizer:
    """torch.optim's plain single-tensor implementation."""
    name = recipe.optimizer.name
    plain = {} if name in {"sparse_adam", "lbfgs"} else {"foreach": False}
    return OPTIMIZERS[name](net.parameters(), **recipe.optimizer.keywords(), **plain)


@dataclass
class Run:
    """What a training left: the loss of every step, the parameters at the end, and the engine's outcome."""

    losses: list[float]
    state: dict[str, Tensor]
    outcome: Outcome | None = None


def start_of(trial: Trial, data: Data, dtype: torch.dtype) -> dict[str, Tensor]:
    """The engine's initial state of a trial."""
    sizes = widths(trial.recipe, data.features, data.classes)
    network = Network(trial.recipe, sizes, 1, dtype=dtype, device=torch.device("cpu"))
    network.initialize([trial])
    return network.state(0)


def reference(trial: Trial, data: Data, *, dtype: torch.dtype = torch.float64, exact_zeros: bool = True) -> Run:
    """Train a trial with autograd, module by module.

    A bias before batch normalisation has gradient 0 in exact arithmetic. The engine leaves it at exactly 0; autograd
    leaves rounding noise, which adaptive and sign-based optimisers blow up to full-sized steps. With `exact_zeros` that
    noise is checked to be noise (under 1e-13) and set to the exact value, so that every tensor can be compared.
    """
    recipe = trial.recipe
    sizes = [data.features, *recipe.hidden, recipe.outputs or data.classes]
    net = build(recipe, sizes, start_of(trial, data, dtype), dtype).train()
    optimizer = optimizer_for(recipe, net)
    inputs = data.train_inputs.to(dtype) * data.scale
    normalized = exact_zeros and recipe.normalization == "batch"
    silenced = [m.bias for m in net if isinstance(m, nn.Linear)][:-1] if normalized else []
    run = Run([], {})
    for epoch in range(1, recipe.epochs + 1):
        order = torch.from_numpy(Stream(trial.seed, "order", epoch=epoch).permutation(len(inputs)))
        for step in range(len(inputs) // recipe.batch_size):
            rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            given = [m for m in net if isinstance(m, GivenMask)]
            for i, module in enumerate(given):
                shape = (recipe.batch_size, sizes[i + 1])
                module.mask = mask(trial, epoch, step, i, shape).to(dtype)
            batch = inputs[rows], data.train_labels[rows]
            run.losses.append(_step(recipe, net, optimizer, batch, silenced))
    run.state = named(net)
    return run


def _step(
    recipe: Recipe,
    net: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    silenced: list[Tensor],
) -> float:
    x, labels = batch

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(recipe, net(x), labels)
        loss.backward()
        for bias in silenced:
            assert float(bias.grad.abs().max()) < 1e-13 * max(1.0, float(loss.detach()))
            bias.grad.zero_()
        return loss

    if recipe.optimizer.name == "lbfgs":
        return float(optimizer.step(closure).detach())
    loss = closure()
    if recipe.optimizer.name == "sparse_adam":
        for p in net.parameters():
            p.grad = p.grad.to_sparse()
    optimizer.step()
    return float(loss.detach())


def engine(trial: Trial, data: Data, *, dtype: torch.dtype = torch.float64) -> Run:
    """Train the same trial with the engine, alone, and note the loss of every step."""
    with watched() as losses:
        outcome = train([trial], ["trial"], data, dtype=dtype)[0]
    return Run([float(x[0]) for x in losses], outcome.state, outcome)


@contextmanager
def watched() -> Iterator[list[Tensor]]:
    """The losses (M,) that the engine hands to its optimiser, one tensor a step."""
    losses: list[Tensor] = []
    step = Optimizer.step

    def noting(self: Optimizer, loss: Tensor, again: Callable[[], float]) -> None:
        losses.append(loss.clone())
        step(self, loss, again)

    with patch.object(Optimizer, "step", noting):
        yield losses


def difference(ours: Run, theirs: Run) -> dict[str, float]:
    """Largest relative difference of the losses, and of each tensor relative to the tensor's largest entry."""
    assert len(ours.losses) == len(theirs.losses)
    assert ours.state.keys() == theirs.state.keys()
    out = {"losses": max(abs(a - b) / abs(b) for a, b in zip(ours.losses, theirs.losses, strict=True))}
    for name, mine in ours.state.items():
        other = theirs.state[name]
        size = float(other.abs().max())
        gap = float((mine - other).abs().max())
        out[name] = gap / size if size else gap
    return out


def agree(ours: Run, theirs: Run, *, tolerance: float = 1e-9) -> None:
    """AssertionError that names every tensor in which two runs differ by `tolerance` or more, or are not finite."""
    found = difference(ours, theirs)
    bad = {name: gap for name, gap in found.items() if not gap < tolerance}
    assert not bad, f"relative differences of at least {tolerance}: {bad}"


def same_bits(ours: Outcome, alone: Outcome) -> None:
    """AssertionError if two outcomes differ in anything but times and the stack's size."""
    assert ours.state.keys() == alone.state.keys()
    for name, tensor in alone.state.items():
        same = torch.equal(ours.state[name].nan_to_num(nan=-1.5), tensor.nan_to_num(nan=-1.5))
        assert same, f"{name} differs by {(ours.state[name] - tensor).abs().max()}"
    for a, b in zip(ours.record.epochs, alone.record.epochs, strict=True):
        assert replace(a, seconds=0.0) == replace(b, seconds=0.0)
    assert repr(ours.record.signal) == repr(alone.record.signal)  # repr: NaN equals NaN
    assert ours.record.divergence == alone.record.divergence
    assert ours.record.status == alone.record.status
