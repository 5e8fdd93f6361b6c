"""StackedAutoencoder: greedy layer-wise (denoising) autoencoders as a transformer of scikit-learn's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_array, check_is_fitted

from fanin import pretraining
from fanin.sklearn.contract import FloatTransformer, validate_data
from fanin.sklearn.parameters import FLOATS, count, counts, rates, seed_of, torch_dtype
from fanin.sklearn.scaling import learn_scaling, require_unit_interval, scaled, unscaled


class StackedAutoencoder(FloatTransformer):
    """Codes h_l = f(h_{l-1} W_l^T + b_l), each layer trained to give back the clean codes of the one below.

    fanin.pretraining.StackedAutoencoder by scikit-learn's rules; hidden, corruption, amount, tied, activation, output,
    init and momentum are explained there. learning_rate and n_iter: one value, or one for each layer. finetune_iter:
    epochs that train the whole stack afterwards, end to end. device: where it trains.

    Data: with output="sigmoid" (cross-entropy) values must lie in [0, 1]; scale says what becomes of others: "auto"
    maps every feature of data that go beyond onto [0, 1] by its extremes in fit, and leaves data within [0, 1] as they
    are; "minmax" always maps; "none" refuses such data. With output="linear" (squared error) "auto" leaves all as it
    is: standardise such data. Nothing is clipped: later rows are mapped by the same line, wherever it takes them.
    Computes in float32 for float32 data, in half the time, and in float64 for all else. No sparse matrices.

    Fitted: stack_ (the fanin.pretraining.StackedAutoencoder: weights, modules, states, history_), scaling_ (None, or
    the map), n_features_in_, feature_names_in_.

    Bengio et al. (2007); Vincent et al. (2010).
    """

    def __init__(
        self,
        hidden: int | Sequence[int] = (500, 500),
        *,
        corruption: str = "none",
        amount: float | Sequence[float] = 0.25,
        tied: bool = True,
        activation: str | Mapping[str, Any] = "sigmoid",
        output: str = "sigmoid",
        init: str | Mapping[str, Any] = "xavier_uniform",
        learning_rate: float | Sequence[float] = 0.1,
        momentum: float = 0.0,
        batch_size: int = 100,
        n_iter: int | Sequence[int] = 10,
        finetune_iter: int = 0,
        scale: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.hidden = hidden
        self.corruption = corruption
        self.amount = amount
        self.tied = tied
        self.activation = activation
        self.output = output
        self.init = init
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.finetune_iter = finetune_iter
        self.scale = scale
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: object = None) -> Self:
        """Train layer by layer on X (rows, features), then, if asked, end to end; y is ignored.

        With fewer rows than batch_size, all rows are one batch. DivergedError (a FloatingPointError)
        where a loss is not finite: stack_ is then as before that epoch, and stack_.divergence_ says where it was.
        """
        X = validate_data(self, X, dtype=FLOATS)
        tuning = count("finetune_iter", self.finetune_iter, least=0)
        stack = pretraining.StackedAutoencoder(**self._params(X))
        bounded = self.output == "sigmoid"
        self.scaling_ = learn_scaling(X, self.scale, bounded=bounded)
        rows = scaled(X, self.scaling_)
        try:
            stack.fit(require_unit_interval(rows) if bounded else rows)
            if tuning:
                stack.finetune(rows, tuning)
        finally:  # what is broken off is there all the same
            if hasattr(stack, "n_features_in_"):
                self.stack_ = stack
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Codes of the top layer, (rows, hidden[-1])."""
        check_is_fitted(self, "stack_")
        X = validate_data(self, X, reset=False, dtype=self._dtype)
        return self.stack_.transform(scaled(X, self.scaling_))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Reconstructions from codes X (rows, hidden[-1]), in the units of the data: (rows, features)."""
        check_is_fitted(self, "stack_")
        codes = check_array(X, dtype=self._dtype)
        return unscaled(self.stack_.inverse_transform(codes), self.scaling_)

    def score(self, X: Any, y: object = None) -> float:
        """Minus the mean squared error of inverse_transform(transform(X)), in the units of the data: higher is better.

        For searches; the loss that training lowers is stack_.score, and between output="sigmoid" and "linear" that one
        is not comparable.
        """
        check_is_fitted(self, "stack_")
        X = validate_data(self, X, reset=False, dtype=self._dtype)
        codes = self.stack_.transform(scaled(X, self.scaling_))
        return -float(np.mean(np.square(self.inverse_transform(codes) - X)))

    # inside

    @property
    def _n_features_out(self) -> int:
        return len(self.stack_.intercepts_[-1])

    @property
    def _dtype(self) -> type[np.floating]:
        return np.float32 if self.stack_.dtype == torch.float32 else np.float64

    def _params(self, X: np.ndarray) -> dict[str, Any]:
        same = ("corruption", "amount", "tied", "activation", "output", "init", "momentum", "device")
        return {name: getattr(self, name) for name in same} | {
            "hidden": counts("hidden", self.hidden),
            "lr": rates("learning_rate", self.learning_rate),
            "epochs": counts("n_iter", self.n_iter, least=0),
            "batch_size": min(count("batch_size", self.batch_size), len(X)),
            "seed": seed_of(self.random_state),
            "dtype": torch_dtype(X),
        }
