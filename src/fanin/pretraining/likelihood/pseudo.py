"""The log pseudo-likelihood of binary data: tractable at any size, exact over all bits or by one random bit."""

from __future__ import annotations

import torch
from torch import Tensor

from fanin.pretraining.boltzmann.pseudo import log_conditional, sum_of_log_conditionals
from fanin.pretraining.boltzmann.units import Units
from fanin.pretraining.likelihood.machine import BERNOULLI, machine_of, rows


@torch.no_grad()
def pseudo_likelihood(
    X: Tensor,
    components: Tensor,
    intercept_hidden: Tensor,
    intercept_visible: Tensor,
    *,
    hidden: Units = BERNOULLI,
    exact: bool = True,
    seed: int = 0,
) -> Tensor:
    """PL(v) = sum_i log p(v_i | all other v) = sum_i log sigmoid(F(v, bit i flipped) - F(v)), one number a row, nats.

    exact: over all visible bits, which costs n x visible x hidden softplus. Otherwise visible times the term of one bit
    a row, drawn by `seed`: unbiased, at the cost of two free energies, and what scikit-learn's
    BernoulliRBM.score_samples computes. X (n, visible) of exact zeros and ones (ValueError: threshold or sample grey
    values first), the units being Bernoulli's; the result is (n,) float64. Use it to watch training; it is no bound of
    the log-likelihood and says little about samples. Besag (1975); Hyvärinen (2006).
    """
    machine = machine_of(components, intercept_hidden, intercept_visible, hidden=hidden)
    parameters = (machine.components, machine.intercept_hidden, machine.intercept_visible)
    parts = (_binary(v) for v in rows(X, machine))
    if exact:
        return torch.cat([sum_of_log_conditionals(v, *parameters, hidden=hidden) for v in parts])
    generator = torch.Generator(machine.components.device).manual_seed(seed)
    terms = []
    for v in parts:
        bits = torch.randint(machine.n_visible, (len(v),), generator=generator, device=v.device)
        terms.append(machine.n_visible * log_conditional(v, bits, *parameters, hidden=hidden))
    return torch.cat(terms)


def _binary(v: Tensor) -> Tensor:
    if ((v != 0) & (v != 1)).any():
        raise ValueError("X: expected exact zeros and ones, given values between; threshold (X > 0.5) or sample them")
    return v
