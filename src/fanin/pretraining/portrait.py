"""What a trained stack shows of itself: filters, reconstructions, chains, samples, and its first layer's likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from fanin.pretraining.autoencoder import StackedAutoencoder
from fanin.pretraining.boltzmann.epochs import WATCHED
from fanin.pretraining.boltzmann.rbm import RBM
from fanin.pretraining.boltzmann.rows import evenly
from fanin.pretraining.boltzmann.uniforms import Uniforms
from fanin.pretraining.dbn import DBN
from fanin.pretraining.layerwise import down_blocks, up_blocks
from fanin.pretraining.likelihood import bracket, free_energy, run_chains
from fanin.profile import LikelihoodBracket, StackPictures

FILTERS, SHOWN, CHAINS, SAMPLES = 64, 16, 8, 64
CHAIN_STEPS = (0, 1, 10, 100, 1000)


def lower_layers(model: DBN, layers: int) -> DBN:
    """The network of the first so many layers, which share nothing with the model; ValueError if it has fewer."""
    state = model.state_dict()
    if not 1 <= layers <= len(state["machines"]):
        raise ValueError(f"layers: expected 1 to {len(state['machines'])}, those that are trained; got {layers}")
    below = DBN(
        tuple(model.hidden[:layers]),
        visible=model.visible,
        seed=model.seed,
        machine=model.machine,
        device=model.device,
        dtype=model.dtype,
    )
    return below.load_state_dict({"machines": state["machines"][:layers], "downward": state["downward"][: layers - 1]})


def as_network(machine: RBM) -> DBN:
    """The network of this one machine."""
    given = {name: v for name, v in machine.get_params().items() if name not in ("n_components", "warm_start")}
    model = DBN((machine.n_components,), visible=machine.visible, seed=machine.seed, machine=given)
    model.set_params(device=machine.device, dtype=machine.dtype)
    return model.load_state_dict({"machines": [machine.state_dict()]})


def filters(model: DBN | StackedAutoencoder, layers: int) -> list[np.ndarray]:
    """Each unit's weights in the space of the data, (units, features): W_1, W_2 W_1, ..., of the first so many layers.

    Above the first layer an approximation, for the functions between are left out (Erhan et al., 2009, section 4).
    """
    weights = model.components_ if isinstance(model, DBN) else [w.T for w in model.coefs_]
    return list(accumulate(weights[:layers], lambda below, w: w @ below))


@torch.no_grad()
def reconstructions(model: DBN | StackedAutoencoder, rows: Tensor, layers: int) -> list[Tensor]:
    """Means upwards through the first layer and back, through the first two, ...: each (N, features)."""
    up, down = up_blocks(model)[:layers], down_blocks(model)[:layers]
    codes = accumulate(up, lambda x, block: block(x), initial=rows)
    next(codes)
    return [reduce(lambda x, block: block(x), down[: i + 1][::-1], code) for i, code in enumerate(codes)]


def pixel_errors(model: DBN | StackedAutoencoder, held_out: Tensor, layers: int) -> list[float]:
    """Mean square errors of `reconstructions` of at most 500 of these rows."""
    rows = evenly(held_out, WATCHED)
    return [float((found - rows).square().mean()) for found in reconstructions(model, rows, layers)]


@torch.no_grad()
def chains(model: DBN, rows: Tensor | int, *, steps: Sequence[int], seed: int) -> Iterator[tuple[int, Tensor]]:
    """Gibbs sampling in the top machine: (step, pictures (N, features)) after each of `steps`, which rise.

    rows: where chains start, means going up from them; or so many chains, which start at the means of the visible
    biases. A picture is drawn going down from where its chain is, but for E[v | h_1] in the last step; where the
    machine is the only one, h_1 is drawn from p(h | v). Depends on the seed alone.
    """
    top = model.machines_[-1]
    parameters = top.parameters()
    if isinstance(rows, int):
        resting = parameters["visible"].mean_(parameters["intercept_visible"].clone())
        start = resting.expand(rows, -1).contiguous()
    else:
        start = reduce(lambda x, block: block(x), up_blocks(model)[:-1], rows)
    for step, states in run_chains(start, **parameters, steps=steps, seed=seed):
        yield step, _descended(model, states.to(model.dtype), Uniforms(seed, "descent").at(epoch=step, step=0))


def _descended(model: DBN, states: Tensor, uniforms: Uniforms) -> Tensor:
    """From states of the top machine's visible units down to means of the data."""
    down = down_blocks(model)
    if len(down) == 1:
        means = up_blocks(model)[0](states)
        return down[0](uniforms.fill_(torch.empty_like(means)).lt_(means))
    for block in down[-2:0:-1]:
        means = block(states)
        states = uniforms.fill_(torch.empty_like(means)).lt_(means)
    return down[0](states)


def pictures(
    model: DBN | StackedAutoencoder, held_out: Tensor, shape: tuple[int, int], *, layers: int, seed: int
) -> StackPictures:
    """All that a page shows of the first so many layers; held_out (N, features), of which a few are taken evenly."""
    shown, starts = _evenly(held_out, SHOWN, 0), _evenly(held_out, CHAINS, 1)
    walked, drawn, steps = np.empty((0, 0, *shape)), np.empty((0, *shape)), ()
    if isinstance(model, DBN):
        below, steps = lower_layers(model, layers), CHAIN_STEPS
        found = dict(chains(below, starts, steps=steps, seed=seed)) | {0: starts}
        walked = np.stack([_framed(found[step], shape) for step in steps], axis=1)
        ((_, last),) = chains(below, SAMPLES, steps=steps[-1:], seed=seed + 1)
        drawn = _framed(last, shape)
    return StackPictures(
        filters=tuple(_framed(torch.from_numpy(f[:FILTERS]), shape) for f in filters(model, layers)),
        originals=_framed(shown, shape),
        reconstructions=tuple(_framed(r, shape) for r in reconstructions(model, shown, layers)),
        chain_steps=steps,
        chains=walked,
        sample_steps=CHAIN_STEPS[-1],
        samples=drawn,
    )


def first_likelihood(
    model: DBN, X: Tensor, held_out: Tensor, *, temperatures: int, chains: int, seed: int
) -> LikelihoodBracket:
    """mean of -F(v) - log Z over the held-out rows, log Z bracketed by annealing, of the first machine.

    Grey pixels are thresholded if training did so, else drawn once, by the seed; X gives the base's rates.
    """
    machine, words = model.machines_[0], "as they are"
    if model.visible == "bernoulli":
        threshold = model.binarize == "threshold"
        words = "thresholded at 1/2" if threshold else "drawn once, with their values as probabilities"
        X, held_out = (_binary(x, seed, threshold) for x in (X, held_out))
    parameters = machine.parameters()
    base = {"base_rates": X.double().mean(0)}
    if model.visible == "gaussian":
        base["base_sigma"] = X.double().std(0)
    found = bracket(**parameters, **base, temperatures=temperatures, chains=chains, seed=seed)
    energy = float(free_energy(held_out, **parameters).mean())
    return LikelihoodBracket(
        low=-energy - found.upper.log_z,
        high=-energy - found.lower.log_z,
        least=_finite(-energy - found.upper.high),
        most=_finite(-energy - found.lower.low),
        sizes=(found.upper.effective_sample_size, found.lower.effective_sample_size),
        temperatures=temperatures,
        chains=chains,
        rows=len(held_out),
        pixels=words,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _binary(rows: Tensor, seed: int, threshold: bool) -> Tensor:
    if threshold:
        return rows.gt(0.5).to(rows.dtype)
    return Uniforms(seed, "likelihood").fill_(torch.empty_like(rows)).lt_(rows)


def _evenly(rows: Tensor, count: int, first: int) -> Tensor:
    """So many rows, or all, at equal distances from the one of this number on."""
    index = torch.arange(min(count, len(rows))) * len(rows) // min(count, len(rows))
    return rows[(index + first) % len(rows)]


def _framed(rows: Tensor, shape: tuple[int, int]) -> np.ndarray:
    return rows.reshape(len(rows), *shape).numpy()
