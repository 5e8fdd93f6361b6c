"""What is watched from epoch to epoch, on a few fixed rows, outside the hot loop."""

from __future__ import annotations

import torch
from torch import Tensor

from fanin.pretraining.boltzmann import inference
from fanin.pretraining.boltzmann.chains import Machine
from fanin.pretraining.boltzmann.figures import free_energy_gap
from fanin.pretraining.boltzmann.options import Options
from fanin.pretraining.boltzmann.products import full_precision
from fanin.pretraining.boltzmann.uniforms import Uniforms


def binarized(X: Tensor, options: Options) -> Tensor:
    """The rows as training sees them; where it sees each pixel anew, one draw that stays."""
    if options.binarize == "threshold":
        return X.gt(0.5).to(X.dtype)
    if options.binarize == "sample":
        return Uniforms(options.seed, "watched", device=X.device).fill_(torch.empty_like(X)).lt_(X)
    return X


@full_precision()
def watch(machine: Machine, options: Options, X: Tensor, held_out: Tensor | None = None) -> dict[str, float]:
    """Mean square of v - E[v | E[h | v]]; pseudo-likelihood (Bernoulli); mean F(held_out) - mean F(X)."""
    found = {"reconstruction_error": float(inference.squared_errors(machine, X).mean())}
    if options.visible == "bernoulli":
        found["pseudo_likelihood"] = float(inference.pseudo_likelihoods(machine, X, options.seed).mean())
    if held_out is not None:
        train, aside = (inference.free_energies(machine, rows) for rows in (X, held_out))
        found["free_energy_gap"] = float(free_energy_gap(train, aside))
    return found
