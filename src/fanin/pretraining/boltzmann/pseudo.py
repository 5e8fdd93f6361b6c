"""Terms of the pseudo-likelihood, log p(v_i | all other v), of Bernoulli visible units: of one bit a row, or of all."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fanin.pretraining.boltzmann.energy import hidden_input
from fanin.pretraining.boltzmann.units import Bernoulli, Units

BLOCK = 2**17  # numbers at once, rows x hidden: half a megabyte, or one in float64
_BERNOULLI = Bernoulli()


def log_conditional(
    v: Tensor,
    bits: Tensor,
    components: Tensor,
    intercept_hidden: Tensor,
    intercept_visible: Tensor,
    *,
    hidden: Units = _BERNOULLI,
) -> Tensor:
    """log p(v_i | all other v) = log sigmoid(F(v') - F(v)), v' being v with bit i turned; (rows,).

    bits (rows,) says which i, a row. F(v') - F(v) = log Z_h(x) - log Z_h(x + d W_i) - d b_i, with x = c + W v and
    d = 1 - 2 v_i: no difference of whole free energies. Grey values are turned to 1 - v, as scikit-learn turns them.
    """
    x, change = hidden_input(v, components, intercept_hidden), 1 - 2 * v.gather(1, bits[:, None])
    there = hidden.log_normalizer(x + change * components.T[bits], intercept_hidden)
    here = hidden.log_normalizer(x, intercept_hidden)
    return functional.logsigmoid(here - there - change[:, 0] * intercept_visible[bits])


def sum_of_log_conditionals(
    v: Tensor, components: Tensor, intercept_hidden: Tensor, intercept_visible: Tensor, *, hidden: Units = _BERNOULLI
) -> Tensor:
    """sum_i log p(v_i | all other v), (rows,): `log_conditional` of every bit, for rows x visible x hidden softplus."""
    parts = []
    for few in v.split(max(1, BLOCK // len(components))):  # a bit's numbers stay in the cache
        x = hidden_input(few, components, intercept_hidden)
        here, total = hidden.log_normalizer(x, intercept_hidden), few.new_zeros(len(few))
        for i in range(v.shape[1]):
            change = 1 - 2 * few[:, i]
            there = hidden.log_normalizer(torch.addcmul(x, change[:, None], components[:, i]), intercept_hidden)
            total += functional.logsigmoid(here - there - change * intercept_visible[i])
        parts.append(total)
    return torch.cat(parts)
