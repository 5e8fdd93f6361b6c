"""The machines of a deep belief network: how each is made, where it starts, and its weights as they go up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanin.pretraining.boltzmann.rbm import RBM
from fanin.pretraining.boltzmann.units import Units, visible_units
from fanin.pretraining.conventions import per_layer
from fanin.streams import Stream

# parameters that every machine takes from the network, by the same names
_SHARED = ("method", "k", "centered", "momentum", "weight_decay", "batch_size", "device", "dtype")


def check_stack(params: Mapping[str, Any]) -> None:
    """ValueError for parameters of a network that no machine would complain of."""
    if not len(params["hidden"]):
        raise ValueError(f"hidden: expected widths, one for each layer; got {params['hidden']!r}")
    if params["upward"] not in ("means", "samples"):
        raise ValueError(f"upward: expected means or samples; got {params['upward']!r}")


def new_machine(params: Mapping[str, Any], place: int) -> RBM:
    """The untrained machine at a place, from 0, of a network with these parameters (those of DBN)."""
    layers = len(params["hidden"])
    own = {name: params[name] for name in _SHARED}
    own |= {name: per_layer(params[name], layers, name)[place] for name in ("lr", "epochs")}
    if place == 0:
        own |= {"visible": params["visible"], "binarize": params["binarize"], "seed": params["seed"]}
    else:
        word = Stream(params["seed"], "machine", layer=place).words(1)[0]
        own |= {"binarize": "sample" if params["upward"] == "samples" else None, "seed": int(word >> np.uint64(1))}
    return RBM(params["hidden"][place], **own | dict(params["machine"] or {}) | {"warm_start": True})


def start_transposed(machine: RBM, below: RBM) -> None:
    """W^T and exchanged biases, if widths and units allow it: p(v) is then the p(h) of the machine below."""
    components, hidden, visible = tensors(below)
    if below.visible == "bernoulli" and machine.n_components == components.shape[1]:
        machine.load_state_dict({"components": components.T, "intercept_hidden": visible, "intercept_visible": hidden})


def tensors(machine: RBM) -> tuple[Tensor, Tensor, Tensor]:
    """components (hidden, visible), intercept_hidden and intercept_visible of a trained machine, in its memory."""
    m: Any = machine  # what is fitted is not declared
    found = (m.components_, m.intercept_hidden_, m.intercept_visible_)
    weight, hidden, visible = (torch.as_tensor(p, dtype=machine.dtype, device=machine.device) for p in found)
    return weight, hidden, visible


def units(machine: RBM) -> Units:
    """The visible units of a trained machine."""
    m: Any = machine
    log_sigma = None
    if m.log_sigma_ is not None:
        log_sigma = torch.as_tensor(m.log_sigma_, dtype=machine.dtype, device=machine.device)
    return visible_units(machine.visible, log_sigma=log_sigma, categories=machine.categories)


def upward(machine: RBM) -> tuple[Tensor, Tensor]:
    """Weight (hidden, visible) and bias with E[h | v] = sigmoid(v weight^T + bias); ValueError for rectified units."""
    if machine.hidden != "bernoulli":
        raise ValueError(f"expected bernoulli hidden units, whose mean is a sigmoid; got {machine.hidden!r}")
    components, hidden, _ = tensors(machine)
    # a feature is the value itself, but for Gaussian units, where it is v / sigma^2
    return components * units(machine).features(torch.ones_like(components[0])), hidden
