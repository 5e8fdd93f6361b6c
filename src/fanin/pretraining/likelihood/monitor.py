"""Cheap figures to watch training by, checked and in float64: the reconstruction error, the gap of free energies."""

from __future__ import annotations

import torch
from torch import Tensor

from fanin.pretraining.boltzmann import figures
from fanin.pretraining.boltzmann.units import Units
from fanin.pretraining.likelihood.exact import free_energy
from fanin.pretraining.likelihood.machine import BERNOULLI, machine_of, rows


def reconstruction_error(
    X: Tensor,
    components: Tensor,
    intercept_hidden: Tensor,
    intercept_visible: Tensor,
    *,
    visible: Units = BERNOULLI,
    hidden: Units = BERNOULLI,
) -> Tensor:
    """sum_i (v_i - E[v_i | h])^2 at h = E[h | v], one number a row; (n,) float64.

    Cheap, and deceptive: it falls while a machine mixes ever worse (Hinton, 2010, section 5). Divide by the number of
    visible units for a mean square. To compare machines use log-likelihoods.
    """
    machine = machine_of(components, intercept_hidden, intercept_visible, visible=visible, hidden=hidden)
    parameters = (machine.components, machine.intercept_hidden, machine.intercept_visible)
    units = {"visible": machine.visible, "hidden": machine.hidden}
    return torch.cat([figures.squared_errors(v, *parameters, **units).sum(1) for v in rows(X, machine)])


@torch.no_grad()
def free_energy_gap(
    train: Tensor,
    held_out: Tensor,
    components: Tensor,
    intercept_hidden: Tensor,
    intercept_visible: Tensor,
    *,
    visible: Units = BERNOULLI,
    hidden: Units = BERNOULLI,
) -> float:
    """mean F(held_out) - mean F(train), in nats: by how much training examples are likelier than held-out ones.

    log Z cancels. Watch it for two fixed subsets of some thousand rows: near 0 at first, and once it grows, the machine
    overfits (Hinton, 2010, section 6).
    """
    parameters = (components, intercept_hidden, intercept_visible)
    energies = (free_energy(X, *parameters, visible=visible, hidden=hidden) for X in (train, held_out))
    return float(figures.free_energy_gap(*energies))
