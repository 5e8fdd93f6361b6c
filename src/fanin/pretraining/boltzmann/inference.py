"""What a machine says of rows: means, free energies, pseudo-likelihoods, and where chains for samples start."""

from __future__ import annotations

import torch
from torch import Tensor

from fanin.pretraining.boltzmann import energy, figures
from fanin.pretraining.boltzmann.chains import Machine
from fanin.pretraining.boltzmann.pseudo import log_conditional
from fanin.pretraining.boltzmann.state import State
from fanin.pretraining.boltzmann.uniforms import Uniforms


def hidden_means(machine: Machine, v: Tensor) -> Tensor:
    """E[h | v], (rows, hidden)."""
    x = energy.hidden_input(v, machine.weights, machine.intercept_hidden, visible=machine.visible)
    return machine.hidden.mean_(x)


def reconstruction(machine: Machine, v: Tensor) -> Tensor:
    """E[v | h = E[h | v]], (rows, visible)."""
    return figures.reconstruction(v, *_parameters(machine), visible=machine.visible, hidden=machine.hidden)


def squared_errors(machine: Machine, v: Tensor) -> Tensor:
    """(v - reconstruction)^2, (rows, visible)."""
    return figures.squared_errors(v, *_parameters(machine), visible=machine.visible, hidden=machine.hidden)


def free_energies(machine: Machine, v: Tensor) -> Tensor:
    """F(v), (rows,)."""
    return energy.free_energy(v, *_parameters(machine), visible=machine.visible, hidden=machine.hidden)


def pseudo_likelihoods(machine: Machine, v: Tensor, seed: int) -> Tensor:
    """V log p(v_i | all other v), (rows,): one bit i a row, drawn by stream ("pseudo", seed)."""
    bits = Uniforms(seed, "pseudo", device=v.device).fill_(v.new_empty(len(v))).mul_(v.shape[1]).long()
    return v.shape[1] * log_conditional(v, bits, *_parameters(machine), hidden=machine.hidden)


def _parameters(machine: Machine) -> tuple[Tensor, Tensor, Tensor]:
    """As functions of plain tensors take them."""
    return machine.weights, machine.intercept_hidden, machine.intercept_visible


def rest(machine: Machine) -> Tensor:
    """(1, hidden): the input of hidden units where visible ones have the means that their biases alone give."""
    means = machine.visible.mean_(machine.intercept_visible.clone())
    return energy.hidden_input(means.unsqueeze(0), machine.weights, machine.intercept_hidden, visible=machine.visible)


def fresh_chains(machine: Machine, rows: int, uniforms: Uniforms) -> Tensor:
    """Hidden states (rows, hidden) drawn at `rest`."""
    x = rest(machine).repeat(rows, 1)
    return machine.hidden.sample_(x, uniforms.fill_(torch.empty_like(x)))


def chain_starts(machine: Machine, state: State, particles: int, rows: int, uniforms: Uniforms) -> Tensor:
    """Hidden states (rows, hidden): training's chains at temperature 1, in turn; fresh ones if there are none."""
    if state.chains is None:
        return fresh_chains(machine, rows, uniforms)
    first = state.chains[:particles]
    return first.repeat(-(-rows // len(first)), 1)[:rows].contiguous()
