"""What an estimate of log Z says: the number, its error, on which side of the truth it tends to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

SIGMAS = 3.0
FEW = 10  # an effective sample size below which a standard error is itself a guess


@dataclass(frozen=True, eq=False)
class Estimate:
    """log Z from weighted chains. side: "below" or "above", where it lies on average (Jensen's inequality).

    standard_error: of log_z, by the delta method. low, high: log Z at the mean weight plus and minus three of its
    standard errors, infinite where that is below zero. effective_sample_size: (sum w)^2 / sum w^2, of as many as there
    are chains; where it is near 1, one chain says it all, the errors mean nothing, and more temperatures are needed.
    log_weights (chains,) float64; states (chains, visible), where the chains ended.
    """

    log_z: float
    standard_error: float
    low: float
    high: float
    effective_sample_size: float
    side: Literal["below", "above"]
    log_weights: Tensor
    states: Tensor

    def __str__(self) -> str:
        return (
            f"log Z = {self.log_z:.2f} ({self.low:.2f} to {self.high:.2f}), {self.side} the truth on average; "
            f"effective sample size {self.effective_sample_size:.1f} of {len(self.log_weights)}"
        )


def estimate_of(log_weights: Tensor, offset: float, side: Literal["below", "above"], states: Tensor) -> Estimate:
    """log Z = offset + log(mean w) below, offset - log(mean w) above, the weights w being given by their logarithms."""
    n, largest = len(log_weights), float(log_weights.max())
    w = (log_weights - largest).exp()
    mean = float(w.mean())
    error = float(w.std()) / math.sqrt(n) / mean
    sign = 1 if side == "below" else -1

    def at(sigmas: float) -> float:
        factor = 1 + sigmas * error
        return offset + sign * (largest + math.log(mean * factor) if factor > 0 else -math.inf)

    size = float(w.sum()) ** 2 / float((w * w).sum())
    return Estimate(at(0), error, at(-sign * SIGMAS), at(sign * SIGMAS), size, side, log_weights, states)


def resample(found: Estimate, seed: int) -> Tensor:
    """As many states as there are chains, each about w / mean(w) times: the systematic rule, of least scatter."""
    weights = torch.softmax(found.log_weights, 0)
    n = len(weights)
    shift = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(weights.device)
    places = (torch.arange(n, device=weights.device) + shift) / n
    return found.states[torch.searchsorted(weights.cumsum(0), places).clamp_(max=n - 1)]


@dataclass(frozen=True, eq=False)
class Bracket:
    """log Z from both sides: `lower` by annealing to the machine, `upper` by annealing away from it."""

    lower: Estimate
    upper: Estimate

    @property
    def gap(self) -> float:
        """upper - lower, in nats: how much is left open, for log Z and for every log-likelihood."""
        return self.upper.log_z - self.lower.log_z

    def __str__(self) -> str:
        low, high = self.lower, self.upper
        text = (
            f"log Z is {low.log_z:.2f} from below and {high.log_z:.2f} from above, a gap of {self.gap:.2f} nats; "
            f"with three standard errors, from {low.low:.2f} to {high.high:.2f}; effective sample sizes "
            f"{low.effective_sample_size:.1f} and {high.effective_sample_size:.1f} of {len(low.log_weights)}."
        )
        worst = min(low, high, key=lambda found: found.effective_sample_size)
        if worst.effective_sample_size < FEW:
            text += (
                f" Do not rely on these errors: only {worst.effective_sample_size:.1f} of {len(worst.log_weights)} "
                "chains count; take more temperatures."
            )
        elif high.high < low.low:
            text += " The two contradict each other: the upper one's samples are not yet the machine's; burn in longer."
        return text
