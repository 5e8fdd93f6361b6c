"""BernoulliRBM: a restricted Boltzmann machine with the interface of scikit-learn's, trained by fanin."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Self

import numpy as np
import torch
from scipy.special import expit
from sklearn.utils.validation import check_is_fitted

from fanin.pretraining import RBM
from fanin.pretraining.boltzmann.products import full_precision
from fanin.pretraining.boltzmann.pseudo import log_conditional
from fanin.sklearn.contract import FloatTransformer, validate_data
from fanin.sklearn.parameters import FLOATS, count, rate, seed_of, torch_dtype
from fanin.sklearn.scaling import learn_scaling, require_unit_interval, scaled, unscaled


class BernoulliRBM(FloatTransformer):
    """p(v, h) ~ exp(b v + c h + h W v) of binary v and h, ascending <v h>_data - <v h>_model; E[h | v] are features.

    For sklearn.neural_network.BernoulliRBM, by the same names: n_components, learning_rate (per example's mean, 0.1),
    batch_size, n_iter, verbose (a line for each epoch), random_state. By default it differs from that one in what it
    draws, in the order of rows (new each epoch; the last incomplete batch is dropped), and in where visible biases
    start (at the data's log-odds), by which its pseudo-likelihood is ahead. Sparse matrices are refused: toarray().

    method: "pcd" (as scikit-learn's), "cd", "fpcd", "pt"; k: sweeps a step; centered: take the gradient about the means
    (Montavon and Mueller, 2012), which this class does not by default, as scikit-learn's: at equal rates and few epochs
    its features are weaker; momentum, weight_decay; binarize: None, "sample" or "threshold"; machine: further
    parameters of fanin.pretraining.RBM, by name; device: where it trains.

    Data: Bernoulli units take values in [0, 1], as probabilities. scale says what becomes of others: "auto" maps every
    feature of data that go beyond onto [0, 1] by its extremes in fit, and leaves data within [0, 1] as they are;
    "minmax" always maps; "none" refuses such data. Real data are thus modelled as if they were probabilities, which is
    a feature extractor and no density: for one, take fanin.pretraining.RBM(visible="gaussian"). Nothing is clipped:
    `transform` continues the map beyond [0, 1], other methods refuse such rows. Computes in float32 for float32 data,
    in half the time, and in float64 for all else.

    Fitted: components_ (hidden, visible), intercept_hidden_, intercept_visible_, h_samples_ (the chains' hidden states,
    as many as a batch; not for "cd"), rbm_ (the fanin.pretraining.RBM: samples, free energies, states, history_),
    scaling_ (None, or the map), n_features_in_, feature_names_in_.

    Tieleman (2008); Hinton (2010).
    """

    def __init__(
        self,
        n_components: int = 256,
        *,
        learning_rate: float = 0.1,
        batch_size: int = 10,
        n_iter: int = 10,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
        method: str = "pcd",
        k: int = 1,
        centered: bool = False,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        binarize: str | None = None,
        scale: str = "auto",
        machine: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.verbose = verbose
        self.random_state = random_state
        self.method = method
        self.k = k
        self.centered = centered
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.binarize = binarize
        self.scale = scale
        self.machine = machine
        self.device = device

    def fit(self, X: Any, y: object = None) -> Self:
        """Train for n_iter epochs on X (rows, features), from the start; y is ignored.

        With fewer rows than batch_size, all rows are one batch. DivergedError (a FloatingPointError) where training
        diverges: the machine is then fitted as before that epoch, and rbm_.divergence_ says where it was.
        """
        X = validate_data(self, X, dtype=FLOATS)
        rows, params = self._begin(X)
        rbm = RBM(**params)
        try:
            for entry in rbm.fit_epochs(rows):
                if self.verbose:
                    self._print(entry)
        finally:  # what is broken off is there all the same
            if hasattr(rbm, "components_"):
                self.rbm_: Any = rbm  # what is fitted is not declared
        return self

    def partial_fit(self, X: Any, y: object = None) -> Self:
        """Train for one epoch on X, in batches of batch_size, from where training stands; y is ignored.

        The first call of all decides the scaling: ValueError for later rows that it does not map into [0, 1].
        Scikit-learn's takes X as one batch, whatever its length: give it batches and this does the same.
        """
        if not hasattr(self, "rbm_"):
            X = validate_data(self, X, dtype=FLOATS)
            rows, params = self._begin(X)
            self.rbm_ = RBM(**params).partial_fit(rows)
            return self
        rows = require_unit_interval(self._rows(X))
        self.rbm_.set_params(**self._params(rows, seed=self.rbm_.seed)).partial_fit(rows)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """E[h | v] = sigmoid(c + W v), (rows, n_components), for any finite rows."""
        check_is_fitted(self, "rbm_")
        inputs = self._rows(X) @ self.components_.T
        inputs += self.intercept_hidden_
        return expit(inputs, out=inputs)

    def gibbs(self, v: Any) -> np.ndarray:
        """One sweep from each row: h from P(h | v), then v' from P(v | h), (rows, features); new numbers each call.

        v' is in the units of the data: zeros and ones, or each feature's extremes if it is scaled.
        """
        check_is_fitted(self, "rbm_")
        return unscaled(self.rbm_.gibbs(require_unit_interval(self._rows(v))), self.scaling_)

    def score_samples(self, X: Any) -> np.ndarray:
        """V log p(v_i | all other v) of one random bit i, (rows,): an unbiased log pseudo-likelihood, in nats.

        As scikit-learn's, but the bit is drawn by the seed and the row itself: the score of a row is the same at each
        call, whatever rows stand around it. Exact, over all bits: fanin.pretraining.likelihood.pseudo_likelihood.
        Besag (1975).
        """
        check_is_fitted(self, "rbm_")
        v = require_unit_interval(self._rows(X))
        parameters = self.rbm_.parameters()
        del parameters["visible"]  # Bernoulli's
        rows, bits = (
            torch.tensor(np.ascontiguousarray(x), device=self.rbm_.device) for x in (v, _bits(v, self.rbm_.seed))
        )
        with full_precision():
            found = log_conditional(rows, bits, **parameters)
        return v.shape[1] * found.cpu().numpy()

    @property
    def components_(self) -> np.ndarray:
        """W, (n_components, features)."""
        return self.rbm_.components_

    @property
    def intercept_hidden_(self) -> np.ndarray:
        """c, (n_components,)."""
        return self.rbm_.intercept_hidden_

    @property
    def intercept_visible_(self) -> np.ndarray:
        """b, (features,)."""
        return self.rbm_.intercept_visible_

    @property
    def h_samples_(self) -> np.ndarray:
        """The hidden states at which chains stand, (batch_size, n_components), copied; AttributeError for CD."""
        chains = self.rbm_.state_dict()["chains"]
        if chains is None:
            raise AttributeError(f"h_samples_: method {self.rbm_.method!r} keeps no chains; take 'pcd'")
        return chains[: self.rbm_.chains].cpu().numpy()

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    # inside

    def _begin(self, X: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Rows to train on, the scaling learnt from them, and the parameters of a new machine."""
        params = self._params(X, seed=seed_of(self.random_state))
        self.scaling_ = learn_scaling(X, self.scale)
        return require_unit_interval(scaled(X, self.scaling_)), params

    def _params(self, rows: np.ndarray, *, seed: int) -> dict[str, Any]:
        batch = count("batch_size", self.batch_size)
        own = {
            "n_components": count("n_components", self.n_components),
            "lr": rate("learning_rate", self.learning_rate),
            "batch_size": min(batch, len(rows)),
            "epochs": count("n_iter", self.n_iter),
            "chains": None if self.method == "cd" else batch,  # as many whatever rows a call has: they persist
            "k": count("k", self.k),
            "seed": seed,
            "dtype": torch_dtype(rows),
        }
        same = ("method", "centered", "momentum", "weight_decay", "binarize", "device")
        return own | {name: getattr(self, name) for name in same} | dict(self.machine or {})

    def _rows(self, X: Any) -> np.ndarray:
        """Rows as the fitted machine takes them."""
        X = validate_data(self, X, reset=False, dtype=self.components_.dtype)
        return scaled(X, self.scaling_)

    def _print(self, entry: Mapping[str, Any]) -> None:
        print(
            f"[{type(self).__name__}] Iteration {entry['epoch']}, pseudo-likelihood = "
            f"{entry['pseudo_likelihood']:.2f}, time = {entry['seconds']:.2f}s"
        )


def _bits(v: np.ndarray, seed: int) -> np.ndarray:
    """A column for each row, uniform over seeds, by a hash of seed and row."""
    rows = np.ascontiguousarray(v, dtype=np.float64) + 0.0  # -0 becomes 0: equal rows have equal bytes
    key = str(seed).encode()
    words = [int.from_bytes(blake2b(row.tobytes(), key=key, digest_size=8).digest(), "little") for row in rows]
    return np.array([word % v.shape[1] for word in words], dtype=np.intp)
