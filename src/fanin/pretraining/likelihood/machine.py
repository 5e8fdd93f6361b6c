"""A Boltzmann machine as three checked tensors and two kinds of units, in float64; and its data, likewise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fanin.pretraining.boltzmann import energy
from fanin.pretraining.boltzmann.units import Bernoulli, Gaussian, Rectified, Units

BERNOULLI = Bernoulli()
ROWS = 4096  # of data, read at once


@dataclass(frozen=True)
class CheckedMachine:
    """W (hidden, visible), c (hidden,), b (visible,), and the units of both sides, as in boltzmann.energy."""

    components: Tensor
    intercept_hidden: Tensor
    intercept_visible: Tensor
    visible: Units
    hidden: Units

    @property
    def n_hidden(self) -> int:
        """Number of hidden units."""
        return self.components.shape[0]

    @property
    def n_visible(self) -> int:
        """Number of visible units."""
        return self.components.shape[1]

    def hidden_input(self, v: Tensor) -> Tensor:
        """c + W t(v), (n, hidden)."""
        return energy.hidden_input(v, self.components, self.intercept_hidden, visible=self.visible)

    def visible_input(self, h: Tensor) -> Tensor:
        """b + h W, (n, visible)."""
        return energy.visible_input(h, self.components, self.intercept_visible)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v), (n,)."""
        tensors = (self.components, self.intercept_hidden, self.intercept_visible)
        return energy.free_energy(v, *tensors, visible=self.visible, hidden=self.hidden)

    def hidden_free_energy(self, h: Tensor) -> Tensor:
        """F(h), (n,)."""
        tensors = (self.components, self.intercept_hidden, self.intercept_visible)
        return energy.hidden_free_energy(h, *tensors, visible=self.visible, hidden=self.hidden)


def machine_of(
    components: Tensor,
    intercept_hidden: Tensor,
    intercept_visible: Tensor,
    *,
    visible: Units = BERNOULLI,
    hidden: Units = BERNOULLI,
) -> CheckedMachine:
    """The machine in float64 on the device of `components`; ValueError if shapes do not fit or a number is not finite.

    Gradients pass through to the tensors given.
    """
    weights = torch.as_tensor(components)
    if weights.ndim != 2 or 0 in weights.shape:
        raise ValueError(f"components: expected shape (hidden, visible), given {tuple(weights.shape)}")
    n_hidden, n_visible = weights.shape
    if isinstance(visible, Gaussian):
        visible = Gaussian(vector("log_sigma", visible.log_sigma, n_visible, device=weights.device))
    return CheckedMachine(
        _finite("components", weights),
        vector("intercept_hidden", intercept_hidden, n_hidden, device=weights.device),
        vector("intercept_visible", intercept_visible, n_visible, device=weights.device),
        visible,
        hidden,
    )


def vector(name: str, values: Tensor, size: int, *, device: torch.device) -> Tensor:
    """`values` as float64 (size,) on the device; ValueError names them if they are not of that shape or not finite."""
    given = torch.as_tensor(values)
    if given.shape != (size,):
        raise ValueError(f"{name}: expected shape ({size},), to fit components; given {tuple(given.shape)}")
    return _finite(name, given.to(device))


def _finite(name: str, values: Tensor) -> Tensor:
    if not torch.isfinite(values).all():
        raise ValueError(
            f"{name}: expected finite numbers, given NaN or infinity; lower the learning rate if so trained"
        )
    return values.to(torch.float64)


def rows(X: Tensor, machine: CheckedMachine) -> Iterator[Tensor]:
    """The data as float64 on the machine's device, some thousand rows at a time: bytes stay bytes until they are read.

    ValueError unless X is (n, visible), and finite, and values are such as the visible units take.
    """
    given = torch.as_tensor(X)
    if given.ndim != 2 or given.shape[1] != machine.n_visible or len(given) == 0:
        raise ValueError(f"X: expected shape (n, {machine.n_visible}), one row an example; given {tuple(given.shape)}")
    return (_within(part.to(machine.components), machine.visible) for part in given.split(ROWS))


def _within(v: Tensor, units: Units) -> Tensor:
    least, most = map(float, torch.aminmax(v.detach()))
    if not (least > -torch.inf and most < torch.inf):  # NaN fails this, too
        raise ValueError(f"X: expected finite values, given {least:g} to {most:g}; remove such rows")
    if units.bounded and not (least >= 0 and most <= 1):
        raise ValueError(
            f"X: expected values from 0 to 1 for {type(units).__name__} units, given {least:g} to {most:g}; "
            "divide bytes by 255, or choose Gaussian units"
        )
    if isinstance(units, Rectified) and least < 0:
        raise ValueError(f"X: expected values of at least 0 for Rectified units, given {least:g}")
    return v
