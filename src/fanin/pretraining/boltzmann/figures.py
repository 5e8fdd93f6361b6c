"""The figures by which training is watched, once, as functions of plain tensors: reconstructions, gaps of energies."""

from __future__ import annotations

from torch import Tensor

from fanin.pretraining.boltzmann.energy import hidden_input, visible_input
from fanin.pretraining.boltzmann.units import Bernoulli, Units

_BERNOULLI = Bernoulli()


def reconstruction(
    v: Tensor,
    components: Tensor,
    intercept_hidden: Tensor,
    intercept_visible: Tensor,
    *,
    visible: Units = _BERNOULLI,
    hidden: Units = _BERNOULLI,
) -> Tensor:
    """E[v | h = E[h | v]], (rows, visible)."""
    h = hidden.mean_(hidden_input(v, components, intercept_hidden, visible=visible))
    return visible.mean_(visible_input(h, components, intercept_visible))


def squared_errors(
    v: Tensor,
    components: Tensor,
    intercept_hidden: Tensor,
    intercept_visible: Tensor,
    *,
    visible: Units = _BERNOULLI,
    hidden: Units = _BERNOULLI,
) -> Tensor:
    """(v_i - E[v_i | h = E[h | v]])^2, (rows, visible): their mean is the history's figure, their sum likelihood's."""
    parameters = (components, intercept_hidden, intercept_visible)
    return (v - reconstruction(v, *parameters, visible=visible, hidden=hidden)).square()


def free_energy_gap(train: Tensor, held_out: Tensor) -> Tensor:
    """mean F(held_out) - mean F(train), (), of free energies (rows,): log Z cancels (Hinton, 2010, section 6)."""
    return held_out.mean() - train.mean()
