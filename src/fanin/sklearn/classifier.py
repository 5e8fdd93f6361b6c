"""DBNClassifier: a deep belief network, trained without labels, then fine-tuned with them, by scikit-learn's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from fanin.pretraining import DBN
from fanin.pretraining.divergence import NotFiniteError, diverged
from fanin.record import Divergence
from fanin.sklearn.contract import validate_data
from fanin.sklearn.parameters import FLOATS, count, counts, rate, rates, seed_of, torch_dtype
from fanin.sklearn.scaling import learn_scaling, require_unit_interval, scaled
from fanin.sklearn.supervised import train_epochs


class DBNClassifier(ClassifierMixin, BaseEstimator):
    """P(class | x) = softmax(V h_L + a), h_l = sigmoid(c_l + W_l h_{l-1}), h_0 = x: W and c from Boltzmann machines.

    First a DBN is trained on all rows, layer by layer, without labels; then the whole network on the labelled ones, by
    cross-entropy and Adam. For deep sigmoid networks with few labels among much data (`fit`'s unlabelled). Where a
    shallow network does, or a ReLU one, well initialised, try that first: pre-training may gain nothing, or lose.

    hidden: widths, bottom up. Pre-training: visible ("bernoulli", or "gaussian" for real data), binarize, method, k,
    machine (further parameters) as in fanin.pretraining.DBN; centered: likewise, off since centring costs accuracy;
    pretrain_learning_rate and pretrain_iter: one value, or one for each layer. Fine-tuning: dropout (probability after
    each layer), learning_rate, weight_decay (decoupled), n_iter epochs. batch_size: of both; pre-training drops an
    epoch's last incomplete batch, fine-tuning takes it. verbose: a line for each epoch of fine-tuning. device: where
    it trains and predicts.

    Data: Bernoulli units take values in [0, 1]; scale says what becomes of others: "auto" maps every feature of data
    that go beyond onto [0, 1] by its extremes in fit (unlabelled rows included), and leaves data within [0, 1] as they
    are; "minmax" always maps; "none" refuses such data. With visible="gaussian" "auto" leaves all as it is. Nothing is
    clipped: rows to predict are mapped by the same line, wherever it takes them. Computes in float32 for float32 data,
    in half the time, and in float64 for all else.

    Classes of any kind, strings too. No sample_weight (Boltzmann machines here take every row alike), no sparse
    matrices, and no partial_fit: a layer's pre-training wants all rows before the next one begins.

    Fitted: classes_, dbn_ (fanin.pretraining.DBN, as pre-training left it), network_ (nn.Sequential in evaluation mode,
    scores of classes for scaled rows), loss_curve_ (mean training loss of each epoch), n_iter_, divergence_ (None, or
    where fine-tuning broke off), scaling_ (None, or the map), n_features_in_, feature_names_in_.

    Hinton, Osindero and Teh (2006); Bengio et al. (2007); Erhan et al. (2010).
    """

    def __init__(
        self,
        hidden: int | Sequence[int] = (256, 256),
        *,
        visible: str = "bernoulli",
        binarize: str | None = None,
        method: str = "cd",
        k: int = 1,
        centered: bool = False,
        pretrain_learning_rate: float | Sequence[float] = 0.1,
        pretrain_iter: int | Sequence[int] = 10,
        machine: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        learning_rate: float = 0.003,
        weight_decay: float = 0.0,
        n_iter: int = 100,
        batch_size: int = 32,
        scale: str = "auto",
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.hidden = hidden
        self.visible = visible
        self.binarize = binarize
        self.method = method
        self.k = k
        self.centered = centered
        self.pretrain_learning_rate = pretrain_learning_rate
        self.pretrain_iter = pretrain_iter
        self.machine = machine
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.n_iter = n_iter
        self.batch_size = batch_size
        self.scale = scale
        self.verbose = verbose
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any, *, unlabelled: Any = None) -> Self:
        """Pre-train on the rows of X and of `unlabelled`, then train on X and y, from the start.

        X (rows, features); y (rows,) classes; unlabelled (any rows, features). DivergedError (a FloatingPointError)
        where training diverges: dbn_ and, if it was fine-tuning, network_ are then as before that epoch.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        rows = X
        if unlabelled is not None:
            rows = np.concatenate([X, validate_data(self, unlabelled, reset=False, dtype=X.dtype)])
        seed = seed_of(self.random_state)
        self._pretrain(rows, seed)
        self._finetune(scaled(X, self.scaling_), targets, seed)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, (rows,)."""
        best = self._scores(X).argmax(1).cpu().numpy()
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """P(class | x), (rows, classes), in the order of classes_."""
        return self._scores(X).softmax(1).cpu().numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """log P(class | x), (rows, classes), exact where probabilities round to 0."""
        return self._scores(X).log_softmax(1).cpu().numpy()

    # inside

    def _pretrain(self, rows: np.ndarray, seed: int) -> None:
        same = ("visible", "binarize", "method", "centered", "machine", "device")
        widths = counts("hidden", self.hidden)
        dbn = DBN(
            [widths] if isinstance(widths, int) else widths,
            **{name: getattr(self, name) for name in same},
            k=count("k", self.k),
            lr=rates("pretrain_learning_rate", self.pretrain_learning_rate),
            epochs=counts("pretrain_iter", self.pretrain_iter),
            batch_size=min(count("batch_size", self.batch_size), len(rows)),
            seed=seed,
            dtype=torch_dtype(rows),
        )
        bounded = self.visible == "bernoulli"
        self.scaling_ = learn_scaling(rows, self.scale, bounded=bounded)
        rows = scaled(rows, self.scaling_)
        try:
            dbn.fit(require_unit_interval(rows) if bounded else rows)
        finally:  # what is broken off is there all the same
            self.dbn_ = dbn

    def _finetune(self, X: np.ndarray, targets: np.ndarray, seed: int) -> None:
        network = self.dbn_.to_sequential(len(self.classes_), dropout=self.dropout)
        epochs = train_epochs(
            network,
            self._tensor(X),
            torch.as_tensor(targets, dtype=torch.long, device=self.device),
            lr=rate("learning_rate", self.learning_rate),
            weight_decay=self.weight_decay,
            batch=min(count("batch_size", self.batch_size), len(X)),
            seed=seed,
        )
        wanted = count("n_iter", self.n_iter)
        self.network_: nn.Sequential = network.eval()
        self.loss_curve_: list[float] = []
        self.n_iter_ = 0
        self.divergence_: Divergence | None = None
        try:
            for loss in islice(epochs, wanted):
                self.loss_curve_.append(loss)
                self.n_iter_ += 1
                if self.verbose:
                    print(f"[{type(self).__name__}] Iteration {self.n_iter_}, loss = {loss:.4f}")
        except NotFiniteError as error:
            where = Divergence(self.n_iter_ + 1, error.step, None)
            lower = f"lower learning_rate (now {self.learning_rate})"
            raise diverged(self, "fine-tuning", where, why=error.what, remedy=lower) from None

    def _tensor(self, X: np.ndarray) -> Tensor:
        return torch.tensor(X, dtype=self.dbn_.dtype, device=self.device)

    @torch.no_grad()
    def _scores(self, X: Any) -> Tensor:
        """V h_L + a, (rows, classes)."""
        check_is_fitted(self, "network_")
        dtype = np.float32 if self.dbn_.dtype == torch.float32 else np.float64
        X = validate_data(self, X, reset=False, dtype=dtype)
        return self.network_(self._tensor(scaled(X, self.scaling_)))
