"""pretrain_: greedy pre-training of a module's hidden Linear layers on data, in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fanin.activations import resolve
from fanin.choice import Choice, choose
from fanin.errors import nearest
from fanin.initializers.module.trace import run_trace
from fanin.pretraining.autoencoder.stacked import StackedAutoencoder
from fanin.pretraining.conventions import Rows, as_rows
from fanin.pretraining.dbn import DBN

METHODS = ("dbn", "autoencoder", "denoising")
_BLOCK = 1024  # rows that pass the module at once
_PROBE = 16  # rows on which the module is traced and compared


@dataclass(frozen=True)
class Pretraining:
    """What pretrain_ did: the layers it set, by path, bottom up; those it left; the model, with its history_."""

    method: str
    layers: tuple[str, ...]
    left: tuple[str, ...]
    model: DBN | StackedAutoencoder

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict for each layer and epoch, in order."""
        return self.model.history_

    def __str__(self) -> str:
        epochs = [sum(e["layer"] == i + 1 for e in self.history) for i in range(len(self.layers))]
        lines = [
            f"{path}: pre-trained, {n} epochs ({self.method})" for path, n in zip(self.layers, epochs, strict=True)
        ]
        return "\n".join([*lines, *(f"{path}: left alone, the last layer" for path in self.left)])


def pretrain_(
    module: nn.Module,
    data: Rows,
    *,
    method: str = "dbn",
    negative: str | None = None,
    **options: Any,
) -> Pretraining:
    """Weights and biases of all Linear layers but the last := those of a stack trained greedily on the data, in place.

    For deep networks of saturating units, and for few labels among much data: pretrain_(model, X), then train as usual.
    module: any whose forward is Linear, activation, Linear, activation, ..., Linear, with what leaves values alone in
    evaluation mode (Dropout) between, and what it likes (Flatten, scaling) before the first. data: rows as the module
    takes them, (N, ...), on any device. The last Linear keeps its weights: train it with the rest.

    method: "dbn", Boltzmann machines, for sigmoids alone (DBN; Hinton, Osindero and Teh, 2006); "autoencoder" (Bengio
    et al., 2007); "denoising", with a quarter of inputs masked (Vincent et al., 2008; StackedAutoencoder). negative: of
    Boltzmann machines, where their own statistics come from, "cd", "pcd", "fpcd" or "pt" (DBN's `method`; None: "cd").
    options: of these estimators, such as epochs, lr, batch_size, seed, and of a DBN centered, off since centring makes
    worse starts of classifiers (DBN says by how much); for data beyond [0, 1] visible="gaussian", output="linear".

    The module keeps its mode, its parameters their identity, dtype and device. ValueError where the module is not such
    a chain, naming the layer, DivergedError where training leaves the finite numbers; nothing is changed then.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}; got {method!r}{nearest(str(method), METHODS)}")
    if negative is not None:
        if method != "dbn":
            raise ValueError(f'negative: expected with method="dbn" alone, whose machines have a model; got {method!r}')
        options["method"] = negative
    inputs = _as_inputs(module, data)
    paths = _chain(module, inputs[:_PROBE])
    hidden = [_linear(module, path) for path in paths[:-1]]
    activation = _activation(module, inputs[:_PROBE], paths)
    model = _model(method, [h.out_features for h in hidden], activation, options)
    with _watching(module, [hidden[0]]) as seen:
        for block in inputs.split(_BLOCK):
            module(block)
    model.fit(torch.cat([x for x, _ in seen]).flatten(0, -2))
    _copy(model, hidden)
    return Pretraining(method, tuple(paths[:-1]), (paths[-1],), model)


def _as_inputs(module: nn.Module, data: Rows) -> Tensor:
    """The data as the module's parameters are: dtype and device."""
    like = next((p for p in module.parameters() if p.is_floating_point()), None)
    if like is None:
        raise ValueError("module: expected Linear layers; got a module without parameters")
    rows = data if isinstance(data, Tensor) else torch.as_tensor(data)
    as_rows(rows.flatten(1) if rows.dim() > 1 else rows, dtype=like.dtype, device=like.device)  # refuses NaN, no rows
    return rows.detach().to(like)


def _chain(module: nn.Module, probe: Tensor) -> list[str]:
    """Paths of the Linear layers in the order in which they run; each once, with a bias, widths that fit."""
    by_weight = {id(m.weight): path for path, m in module.named_modules() if isinstance(m, nn.Linear)}
    order = run_trace(module, probe).order
    if any(i not in by_weight for i in order) or len(set(order)) != len(order):
        raise ValueError(
            "module: expected Linear layers alone, each run once; got other weighted layers, or shared ones"
        )
    paths = [by_weight[i] for i in order]
    if len(paths) < 2:
        raise ValueError(f"module: expected a hidden Linear layer before the last one; got {len(paths)} in all")
    for path in paths[:-1]:
        if _linear(module, path).bias is None:
            raise ValueError(f"{path}: expected a bias, which pre-training learns; got bias=False")
    return paths


def _linear(module: nn.Module, path: str) -> nn.Linear:
    found = module.get_submodule(path)
    assert isinstance(found, nn.Linear)
    return found


def _activation(module: nn.Module, probe: Tensor, paths: Sequence[str]) -> Choice:
    """The one activation between the layers; ValueError where there are several, or anything else besides."""
    after = run_trace(module, probe).after
    layers = [_linear(module, path) for path in paths]
    found = [getattr(after.get(id(m.weight)), "function", "identity") for m in layers[:-1]]
    known = [choose("activation", f) if isinstance(f, str | Choice) else None for f in found]
    for path, function, choice in zip(paths, found, known, strict=False):
        if choice is None or choice != known[0]:
            raise ValueError(
                f"{path}: expected one activation of fanin's catalogue after every hidden layer; got {function} here "
                f"and {found[0]} after {paths[0]}"
            )
    assert known[0] is not None
    _check_between(module, probe, layers, paths, known[0])
    return known[0]


def _check_between(
    module: nn.Module, probe: Tensor, layers: Sequence[nn.Module], paths: Sequence[str], choice: Choice
) -> None:
    """Each layer's input is the activation of the output below: measured, so that nothing between is overlooked."""
    activation = resolve(choice).module()
    with _watching(module, layers) as seen:
        module(probe)
    for (_, z), (x, _), path in zip(seen, seen[1:], paths[1:], strict=False):
        expected = activation(z)
        if expected.shape != x.shape or not torch.allclose(expected, x, rtol=1e-4, atol=1e-5):
            raise ValueError(
                f"{path}: expected {choice.name} of the layer before as its input; got other values: pre-training "
                "knows nothing of what is between, such as normalisation or a residual branch"
            )


@contextmanager
def _watching(module: nn.Module, layers: Sequence[nn.Module]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Evaluation mode without gradients; inputs and outputs of these layers, in the order in which they run."""
    seen: list[tuple[Tensor, Tensor]] = []
    modes = [(m, m.training) for m in module.modules()]
    # an activation may work in place on the output: it is copied
    hooks = [layer.register_forward_hook(lambda _, x, z: seen.append((x[0].clone(), z.clone()))) for layer in layers]
    try:
        module.eval()
        with torch.no_grad():
            yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for m, mode in modes:
            m.training = mode


def _model(method: str, hidden: list[int], activation: Choice, options: dict[str, Any]) -> DBN | StackedAutoencoder:
    if method == "dbn":
        if activation.name != "sigmoid":
            raise ValueError(
                f'activation: expected sigmoid after every hidden layer for method="dbn"; got {activation.name}: take '
                'method="denoising"'
            )
        return DBN(tuple(hidden), **options)
    own: dict[str, Any] = {"activation": {"name": activation.name} | activation.keywords()}
    if method == "denoising":
        own["corruption"] = "masking"
    return StackedAutoencoder(tuple(hidden), **own | options)


def _copy(model: DBN | StackedAutoencoder, layers: Sequence[nn.Linear]) -> None:
    trained = [m for m in model.to_sequential() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for layer, source in zip(layers, trained, strict=True):
            layer.weight.copy_(source.weight)
            layer.bias.copy_(source.bias)
