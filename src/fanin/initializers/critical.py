"""Critical initialisation: the weight variance of mean-field theory at which signals neither die nor explode."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from fanin.initializers.noise import Shape, Source
from fanin.initializers.scaling import Distribution, variance_scaling

if TYPE_CHECKING:
    from fanin.choice import Choice


def critical(
    noise: Source,
    shape: Shape,
    *,
    fan_in: int,
    fan_out: int,
    distribution: Distribution = "normal",
    activation: str | Choice | Callable[[Tensor], Tensor] | None = None,
    bias_variance: float = 0.0,
    keep: float = 1.0,
) -> Tensor:
    """Variance w / fan_in, w such that chi_1 = w E f'(sqrt(q*) z)^2 / keep = 1 (Schoenholz et al., 2017, section 3).

    w depends on the activation that follows and on the variance of the biases; with dropout that keeps a share `keep`
    it is smaller by that factor where f is a ReLU, 2 keep (Pretorius et al., 2018). Without an activation w is keep.
    For networks too deep for Xavier's or Kaiming's. Raises ValueError if there is no such w.
    """
    scale = critical_scale(activation, bias_variance, keep)
    return variance_scaling(noise, shape, fan_in=fan_in, fan_out=fan_out, scale=scale, distribution=distribution)


def critical_scale(
    activation: str | Choice | Callable[[Tensor], Tensor] | None, bias_variance: float, keep: float
) -> float:
    """The w of `critical`: weight variance times fan_in."""
    if activation is None:
        return keep
    from fanin.theory import critical_weight_variance  # loads scipy: only where it is wanted

    return critical_weight_variance(activation, bias_variance, keep=keep)
