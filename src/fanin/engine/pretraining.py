"""Pre-training: a member's hidden layers learnt from all training inputs before it sees a label.

What comes out depends on the widths, the activation, the method with its options, the data and the seed. Trials that
agree in these (such as those of pretraining/labels, which differ in their number of labels) need it once: the first one
leaves it in the run's room, where the others find it.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fanin.engine.data import Data
from fanin.engine.export import to_sequential
from fanin.engine.network import Network
from fanin.recipe import Trial, digest


def pretrain(network: Network, m: int, trial: Trial, data: Data) -> None:
    """Replace member m's hidden layers by the recipe's pre-training, by the trial's seed, whatever stack it is in."""
    if trial.recipe.pretraining.name == "none":
        return
    like = network.layers[0].weight
    module = to_sequential(trial.recipe, network.state(m)).to(like.device)
    linears = [part for part in module if isinstance(part, nn.Linear)]
    kept = data.room and data.room / f"pretrained-{_key(trial, like)}.safetensors"
    if kept and kept.is_file():
        _set(linears[:-1], load_file(kept, device=str(like.device)))
    else:
        _train(module, trial, data.train_inputs.to(like.dtype) * data.scale)
        if kept:
            _keep(linears[:-1], kept)
    with torch.no_grad():
        for layer, linear in zip(network.layers, linears, strict=True):
            layer.weight[m], layer.bias[m, 0] = linear.weight, linear.bias


def _train(module: nn.Module, trial: Trial, inputs: Tensor) -> None:
    """pretrain_ with the recipe's options; a module without numbers where it diverges.

    The trial is then recorded as diverged, at its first step, and not as failed.
    """
    from fanin.pretraining.pretrain import pretrain_  # only trials that want it wait for it

    choice = trial.recipe.pretraining
    try:
        pretrain_(module, inputs, method=choice.name, seed=trial.seed, device=inputs.device, **choice.keywords())
    except FloatingPointError:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(float("nan"))


def _key(trial: Trial, like: Tensor) -> str:
    """What pre-training depends on, but for the data, which are the run's."""
    recipe = trial.recipe
    what = recipe.hidden, recipe.activation.plain("activation"), recipe.pretraining.plain("pretraining"), trial.seed
    return digest([*what, str(like.dtype), like.device.type])


def _keep(linears: list[nn.Linear], path: Path) -> None:
    """In one piece or not at all: another worker may look for it at any moment, or write the same."""
    state = {f"{i}.{name}": p.detach() for i, linear in enumerate(linears) for name, p in linear.named_parameters()}
    part = path.with_suffix(f".{os.getpid()}")
    save_file({name: value.contiguous() for name, value in state.items()}, part)
    part.replace(path)


def _set(linears: list[nn.Linear], state: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for i, linear in enumerate(linears):
            for name, parameter in linear.named_parameters():
                parameter.copy_(state[f"{i}.{name}"])
