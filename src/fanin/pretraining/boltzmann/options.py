"""How a machine is trained: the options that its estimator takes, checked together, and the rate at an epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fanin.errors import nearest
from fanin.pretraining.boltzmann.products import PRECISIONS
from fanin.pretraining.boltzmann.units import HIDDEN, VISIBLE

METHODS = ("cd", "pcd", "fpcd", "pt")
SCHEDULES = ("constant", "linear", "inverse")
BINARIZE = (None, "sample", "threshold")
DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Options:
    """The parameters of fanin.pretraining.RBM, by the same names; see there for what they mean."""

    n_components: int
    method: str
    k: int
    centered: bool
    offset_rate: float
    visible: str
    hidden: str
    categories: int | None
    learn_sigma: bool
    lr: float | Callable[[int], float]
    schedule: str
    momentum: float
    nesterov: bool
    weight_decay: float
    sparsity: float | None
    sparsity_strength: float
    batch_size: int
    epochs: int
    chains: int | None
    temperatures: int | Sequence[float]
    fast_lr: float | None
    fast_decay: float
    binarize: str | None
    seed: int
    device: torch.device | str
    precision: str
    dtype: torch.dtype

    def __post_init__(self) -> None:
        self._check_names()
        self._check_numbers()
        self._check_together()

    def _check_names(self) -> None:
        for name, known in (
            ("method", METHODS),
            ("visible", VISIBLE),
            ("hidden", HIDDEN),
            ("schedule", SCHEDULES),
            ("binarize", BINARIZE),
            ("precision", PRECISIONS),
            ("dtype", DTYPES),
        ):
            value = getattr(self, name)
            if value not in known:
                near = nearest(value, [k for k in known if isinstance(k, str)]) if isinstance(value, str) else ""
                raise ValueError(f"{name}: expected one of {', '.join(map(str, known))}; got {value!r}{near}")

    def _check_numbers(self) -> None:
        for name in ("n_components", "k", "batch_size", "epochs"):
            _check(
                name, getattr(self, name), _is_int(getattr(self, name)) and getattr(self, name) >= 1, "a number >= 1"
            )
        if self.chains is not None:
            _check("chains", self.chains, _is_int(self.chains) and self.chains >= 1, "None or a number >= 1")
        for name in ("momentum", "fast_decay"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "0 <= number < 1")
        for name in ("weight_decay", "sparsity_strength"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "a number >= 0")
        _check("offset_rate", self.offset_rate, 0 <= self.offset_rate <= 1, "a number between 0 and 1")
        if not callable(self.lr):
            largest = torch.finfo(self.dtype).max
            _check(
                "lr", self.lr, 0 < self.lr <= largest, f"a number > 0, up to {largest:.2g}, or a function of the epoch"
            )
        if self.fast_lr is not None:
            _check("fast_lr", self.fast_lr, self.fast_lr > 0, "None (as lr) or a number > 0")

    def _check_together(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected momentum > 0 with it; got momentum 0")
        if self.hidden == "rectified" and self.visible in ("gaussian", "rectified"):
            raise ValueError(
                f"hidden='rectified' with visible={self.visible!r}: two unbounded layers have no normalisable "
                "distribution once weights grow; take visible 'bernoulli' or 'categorical', or hidden 'bernoulli'"
            )
        if self.method == "pt" and (self.visible, self.hidden) != ("bernoulli", "bernoulli"):
            raise ValueError(f"method='pt': expected Bernoulli units; got {self.visible}, {self.hidden}: take 'pcd'")
        if self.method == "cd" and self.chains not in (None, self.batch_size):
            raise ValueError(
                f"chains: CD starts one at each row, expected None or {self.batch_size}; got {self.chains}"
            )
        if self.binarize is not None and self.visible != "bernoulli":
            raise ValueError(f"binarize: expected None for {self.visible} units; got {self.binarize!r}")
        if self.sparsity is not None:
            bounded = self.hidden == "bernoulli"
            fits = 0 < self.sparsity < (1 if bounded else float("inf"))
            _check("sparsity", self.sparsity, fits, "None or 0 < target < 1" if bounded else "None or target > 0")
        if self.method == "pt":
            self.betas()

    @property
    def particles(self) -> int:
        """Chains at temperature 1."""
        return self.chains or self.batch_size

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1: a function's, or by schedule from lr.

        "linear": lr (epochs - epoch + 1) / epochs, towards 0; "inverse": lr / (1 + 10 (epoch - 1) / epochs).
        """
        if callable(self.lr):
            return float(self.lr(epoch))
        done = (epoch - 1) / self.epochs
        return self.lr * {"constant": 1.0, "linear": max(0.0, 1 - done), "inverse": 1 / (1 + 10 * done)}[self.schedule]

    def betas(self) -> Tensor:
        """Inverse temperatures of parallel tempering, from 1 down: given, or so many evenly spaced down to 0."""
        given = self.temperatures
        if isinstance(given, int):
            _check("temperatures", given, given >= 2, "a number >= 2, or inverse temperatures from 1 down")
            return torch.linspace(1, 0, given, dtype=self.dtype, device=self.device)
        betas = torch.tensor([*given], dtype=self.dtype, device=self.device)
        ends = len(betas) >= 2 and float(betas[0]) == 1 and float(betas[-1]) >= 0
        falling = ends and bool((betas[1:] < betas[:-1]).all())
        _check("temperatures", given, falling, "inverse temperatures that fall from 1 to no less than 0")
        return betas


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(name: str, value: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"{name}: expected {expected}; got {value!r}")
