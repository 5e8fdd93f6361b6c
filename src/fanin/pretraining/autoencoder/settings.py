"""The parameters of a stacked autoencoder, checked once and made into what each layer is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fanin.activations import Activation, identity, resolve, sigmoid
from fanin.errors import nearest
from fanin.pretraining.autoencoder import stack
from fanin.pretraining.autoencoder.greedy import Task
from fanin.pretraining.autoencoder.layer import Layer, Loss
from fanin.pretraining.conventions import check_unit_interval, per_layer
from fanin.pretraining.corruption import check_corruption

if TYPE_CHECKING:
    from fanin.choice import Choice

_BOUNDED = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softsign": (-1.0, 1.0)}
_LOSSES: dict[str, Loss] = {"sigmoid": "cross_entropy", "linear": "squared"}


@dataclass(frozen=True)
class Settings:
    """Checked parameters; amount, lr and epochs have one value for each layer."""

    hidden: tuple[int, ...]
    corruption: str
    amount: Sequence[float]
    tied: bool
    choice: Choice  # of the activation
    activation: Activation
    reconstruction: str  # "sigmoid" or "linear"
    init: Choice
    lr: Sequence[float]
    epochs: Sequence[int]
    seed: int

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Settings:
        """From an estimator's parameters; ValueError for what is wrong with them, TypeError for a dtype."""
        from fanin.choice import choose

        hidden = _widths(params["hidden"])
        choice = choose("activation", params["activation"])
        checked = cls(
            hidden,
            params["corruption"],
            per_layer(params["amount"], len(hidden), "amount"),
            params["tied"],
            choice,
            resolve(choice),
            params["output"],
            choose("init", params["init"]),
            per_layer(params["lr"], len(hidden), "lr"),
            per_layer(params["epochs"], len(hidden), "epochs"),
            params["seed"],
        )
        checked._check(params)
        return checked

    def _check(self, params: Mapping[str, Any]) -> None:
        for amount in self.amount:
            check_corruption(self.corruption, amount)
        if self.reconstruction not in _LOSSES:
            hint = nearest(str(self.reconstruction), _LOSSES)
            raise ValueError(f"output: expected sigmoid or linear; got {self.reconstruction!r}{hint}")
        if not all(lr > 0 for lr in self.lr):
            raise ValueError(f"lr: expected positive rates; got {params['lr']!r}")
        if not all(isinstance(n, int) and n >= 0 for n in self.epochs):
            raise ValueError(f"epochs: expected counts of at least 0; got {params['epochs']!r}")
        if not 0 <= params["momentum"] < 1:
            raise ValueError(f"momentum: expected a number in [0, 1); got {params['momentum']!r}")
        if not isinstance(params["batch_size"], int) or params["batch_size"] < 1:
            raise ValueError(f"batch_size: expected a count of at least 1; got {params['batch_size']!r}")
        if params["dtype"] not in (torch.float32, torch.float64):
            raise TypeError(f"dtype: expected torch.float32 or torch.float64; got {params['dtype']!r}")

    def start(self, rows: Tensor) -> list[Layer]:
        """New layers for these rows."""
        widths = (rows.shape[1], *self.hidden)
        return stack.start(self.init, widths, tied=self.tied, activation=self.choice, seed=self.seed, like=rows)

    def check_data(self, rows: Tensor) -> None:
        """ValueError for data that the loss of the first layer is not for."""
        if self.loss(0) == "cross_entropy":
            check_unit_interval(rows, why="cross-entropy", instead='take output="linear" with squared error')

    def loss(self, place: int) -> Loss:
        """Of layer `place`, from 0: as `output` says for data, cross-entropy for codes of a sigmoid."""
        if place == 0:
            return _LOSSES[self.reconstruction]
        return "cross_entropy" if self.choice.name == "sigmoid" else "squared"

    def output(self, place: int) -> Activation:
        """g of layer `place`, from 0: as `output` says for data, the activation for codes."""
        if place > 0:
            return self.activation
        return sigmoid() if self.reconstruction == "sigmoid" else identity()

    def task(self, place: int, codes: Tensor) -> Task:
        """What layer `place` is to do with its inputs; salt is the highest that these can be, pepper the lowest."""
        known = (0.0, 1.0) if self.loss(place) == "cross_entropy" else _BOUNDED.get(self.choice.name)
        if place == 0 and self.loss(0) == "squared":
            known = None
        low, high = known or (float(x) for x in codes.aminmax())
        return Task(
            place=place,
            activation=self.activation,
            output=self.output(place),
            loss=self.loss(place),
            corruption=self.corruption,
            amount=self.amount[place],
            low=low,
            high=high,
        )


def _widths(hidden: Any) -> tuple[int, ...]:
    widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    if not widths or not all(isinstance(n, int) and n >= 1 for n in widths):
        raise ValueError(f"hidden: expected widths of at least 1, one for each layer; got {hidden!r}")
    return widths
