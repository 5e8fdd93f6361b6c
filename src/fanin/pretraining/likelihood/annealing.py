"""log Z of machines of any size: annealed importance sampling, the same in reverse, and both as a bracket."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from fanin.pretraining.boltzmann.products import full_precision
from fanin.pretraining.boltzmann.units import Units
from fanin.pretraining.likelihood.estimate import Bracket, Estimate, estimate_of, resample
from fanin.pretraining.likelihood.ladder import Chains, ends
from fanin.pretraining.likelihood.machine import BERNOULLI, machine_of, rows

Temperatures = int | Tensor


class Shared(TypedDict):
    """What both ways of annealing are told."""

    base_rates: Tensor | None
    base_sigma: Tensor | None
    visible: Units
    temperatures: Temperatures
    dtype: torch.dtype


@torch.no_grad()
def annealed_importance_sampling(
    components: Tensor,
    intercept_hidden: Tensor,
    intercept_visible: Tensor,
    *,
    base_rates: Tensor | None = None,
    base_sigma: Tensor | None = None,
    visible: Units = BERNOULLI,
    temperatures: Temperatures = 10_000,
    chains: int = 100,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Estimate:
    """log Z = log Z_0 + log mean_i w_i, log w_i = sum_k log f_k(v_k) - log f_{k-1}(v_k), v_{k+1} ~ T_k(. | v_k).

    f_k goes from independent visible units (beta 0) to the machine (beta 1); T_k is a step of Gibbs sampling that
    leaves f_k as it is. E[w] = Z / Z_0 exactly, so log Z is too low on average and likelihoods are too high; by how
    much, `reverse_annealing` tells.

    base_rates (visible,): means of the training data, for the base's biases (kept within 0.001 and 0.999 for binary
    units); None takes the machine's own biases, which needs many more temperatures. base_sigma (visible,): standard
    deviations of the base's Gaussian units, None for the machine's. temperatures: so many equal steps of beta, or all
    betas, rising from 0 to 1. dtype: of products and states; weights are summed in float64, and TF32 is never used.
    visible: Bernoulli or Gaussian units (TypeError); the hidden ones are Bernoulli's. ValueError for shapes that do not
    fit, numbers that are not finite, fewer than two chains.

    Use it where `log_partition` cannot go, for a quoted figure with no fewer temperatures and chains: 784-500 then
    takes half a minute of one core. Neal (2001); Salakhutdinov and Murray (2008).
    """
    machine = machine_of(components, intercept_hidden, intercept_visible, visible=visible)
    both, betas = ends(machine, base_rates, base_sigma), _betas(temperatures)
    walkers = Chains(both, _enough(chains), seed, dtype)
    with full_precision():
        walkers.start()
        log_weights = walkers.climb(betas)
    return estimate_of(log_weights, both.log_z, "below", walkers.states())


@torch.no_grad()
def reverse_annealing(
    samples: Tensor,
    components: Tensor,
    intercept_hidden: Tensor,
    intercept_visible: Tensor,
    *,
    base_rates: Tensor | None = None,
    base_sigma: Tensor | None = None,
    visible: Units = BERNOULLI,
    temperatures: Temperatures = 10_000,
    burn_in: int = 0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Estimate:
    """log Z = log Z_0 - log mean_i w_i, the w_i of chains that go from the machine's samples down to the base.

    samples (chains, visible): exact samples make it too high on average, for E[w] = Z_0 / Z. Samples of a long chain
    (`run_chains`), or `burn_in` more steps from where one is, are the machine's approximately, and so is the bound:
    chains that miss a mode of the machine see too little of Z. Everything else as for `annealed_importance_sampling`,
    whose betas are gone through backwards. Grosse, Ghahramani and Adams (2015); Burda, Grosse and Salakhutdinov (2015).
    """
    machine = machine_of(components, intercept_hidden, intercept_visible, visible=visible)
    both, betas = ends(machine, base_rates, base_sigma), _betas(temperatures)
    given = torch.cat(list(rows(samples, machine)))
    walkers = Chains(both, _enough(len(given)), seed, dtype)
    with full_precision():
        walkers.start(given)
        walkers.sweep(burn_in)
        log_weights = walkers.climb(betas[::-1])
    return estimate_of(log_weights, both.log_z, "above", walkers.states())


def bracket(
    components: Tensor,
    intercept_hidden: Tensor,
    intercept_visible: Tensor,
    *,
    samples: Tensor | None = None,
    base_rates: Tensor | None = None,
    base_sigma: Tensor | None = None,
    visible: Units = BERNOULLI,
    temperatures: Temperatures = 10_000,
    chains: int = 100,
    burn_in: int = 1000,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Bracket:
    """log Z from below and from above (print it for plain words): annealing to the machine, and away from its samples.

    samples (any number, visible): the machine's, from which the way down starts after `burn_in` steps of Gibbs
    sampling; None takes the states at which the way up has ended, drawn again by their weights. The gap is what a
    quoted likelihood leaves open. Bidirectional Monte Carlo (Grosse, Ghahramani and Adams, 2015).
    """
    parameters = (components, intercept_hidden, intercept_visible)
    both: Shared = {
        "base_rates": base_rates,
        "base_sigma": base_sigma,
        "visible": visible,
        "temperatures": temperatures,
        "dtype": dtype,
    }
    lower = annealed_importance_sampling(*parameters, chains=chains, seed=seed, **both)
    start = resample(lower, seed) if samples is None else samples
    return Bracket(lower, reverse_annealing(start, *parameters, burn_in=burn_in, seed=seed + 1, **both))


def _betas(temperatures: Temperatures) -> list[float]:
    """From 0 to 1."""
    if isinstance(temperatures, int):
        if temperatures < 1:
            raise ValueError(f"temperatures: expected at least 1 step of beta, given {temperatures}")
        return torch.linspace(0, 1, temperatures + 1, dtype=torch.float64).tolist()
    betas = torch.as_tensor(temperatures, dtype=torch.float64)
    if betas.ndim != 1 or len(betas) < 2 or betas[0] != 0 or betas[-1] != 1 or not (betas.diff() > 0).all():
        raise ValueError("temperatures: expected a number of steps, or a vector of betas that rises from 0 to 1")
    return betas.tolist()


def _enough(chains: int) -> int:
    if chains < 2:
        raise ValueError(f"chains: expected at least 2, for an error can be told from no fewer; given {chains}")
    return chains
