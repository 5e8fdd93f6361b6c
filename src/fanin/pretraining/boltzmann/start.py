"""Where training a machine starts: small weights, biases that alone give the data's means, chains."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fanin.initializers import Keyed, normal
from fanin.pretraining.boltzmann.inference import fresh_chains, hidden_means
from fanin.pretraining.boltzmann.options import Options
from fanin.pretraining.boltzmann.state import State
from fanin.pretraining.boltzmann.training import machine
from fanin.pretraining.boltzmann.uniforms import Uniforms
from fanin.pretraining.boltzmann.units import hidden_units, visible_units
from fanin.streams import Stream

WEIGHT_STD = 0.01  # Hinton (2010), section 8


def initial_state(options: Options, X: Tensor) -> State:
    """W ~ N(0, 0.01^2), of stream ("weight", seed); visible biases from the data's means; hidden units at input 0.

    Bernoulli biases are log-odds, categorical ones log-frequencies, both of counts with one added to each value, so
    that a pixel which is always 0 has a finite one. Gaussian units start at the data's means and deviations, weights
    in the same units. Offsets start at the data's means and the hidden units' mean at input 0.
    """
    mean = _mean(options, X)
    log_sigma = _log_sigma(X) if options.visible == "gaussian" else None
    weights = normal(Keyed(Stream(options.seed, "weight")), (options.n_components, X.shape[1]), fan_in=1, fan_out=1)
    weights = WEIGHT_STD * weights.to(X.device) * (1 if log_sigma is None else log_sigma.exp())
    visible = visible_units(options.visible, log_sigma=log_sigma, categories=options.categories)
    rest = hidden_units(options.hidden).mean_(weights.new_zeros(options.n_components))
    offset_hidden, offset_visible = rest, visible.features(mean)
    if not options.centered:
        offset_hidden, offset_visible = torch.zeros_like(rest), torch.zeros_like(mean)
    found = {
        "components": weights,
        "intercept_hidden": -(weights @ offset_visible),
        "intercept_visible": _bias(options, mean, len(X)) - offset_hidden @ weights,
        "offset_hidden": offset_hidden,
        "offset_visible": offset_visible,
    }
    found |= {} if log_sigma is None else {"log_sigma": log_sigma}
    return State.from_dict(found, like=torch.empty(0, dtype=options.dtype, device=X.device))


def add_companions(state: State, options: Options, X: Tensor) -> None:
    """Offsets, velocities, fast weights and chains: made where wanted and not there, dropped where not wanted.

    Offsets start at the data's means and the hidden units' means at those; without centring they are zero, also those
    of a state that was centred. Moving them changes no distribution.
    """
    if not options.centered:
        state.offset_visible.zero_()
        state.offset_hidden.zero_()
    elif not (state.offset_visible.any() or state.offset_hidden.any()):
        found = machine(state.parameters(), options)
        mean = _mean(options, X).to(options.dtype).unsqueeze(0)
        state.offset_visible.copy_(found.visible.features(mean)[0])
        state.offset_hidden.copy_(hidden_means(found, mean)[0])
    parameters = state.parameters()
    if not options.momentum:
        state.velocity = {}
    elif not state.velocity:
        state.velocity = {name: torch.zeros_like(p) for name, p in parameters.items()}
    if options.method != "fpcd":
        state.fast = {}
    elif not state.fast:
        state.fast = {name: torch.zeros_like(p) for name, p in parameters.items() if name != "log_sigma"}
    rows = options.particles * (len(options.betas()) if options.method == "pt" else 1)
    if options.method == "cd":
        state.chains = None
    elif state.chains is None or len(state.chains) != rows:
        uniforms = Uniforms(options.seed, "chains", device=state.components.device)
        state.chains = fresh_chains(machine(parameters, options), rows, uniforms)


def _mean(options: Options, X: Tensor) -> Tensor:
    return (X.gt(0.5) if options.binarize == "threshold" else X).mean(0, dtype=torch.float64)


def _bias(options: Options, mean: Tensor, count: int) -> Tensor:
    if options.visible == "bernoulli":
        return torch.logit((mean * count + 1) / (count + 2))
    if options.visible == "categorical":
        assert options.categories
        return torch.log((mean * count + 1) / (count + options.categories))
    return mean


def _log_sigma(X: Tensor) -> Tensor:
    """log of each feature's standard deviation; ValueError if one is constant."""
    std = X.double().std(0, correction=0)
    # rounding leaves a constant feature a deviation of some 1e-16 of its size
    constant = (std <= 1e-9 * X.abs().amax(0).clamp(min=math.ulp(1.0))).nonzero().flatten().tolist()
    if constant:
        raise ValueError(
            f"X: Gaussian visible units expect features that vary; got {len(constant)} constant ones "
            f"(first: {constant[:5]}): drop them, or add noise"
        )
    return std.log()
