"""StackedAutoencoder: greedy layer-wise training as an estimator in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from fanin.pretraining.autoencoder import stack
from fanin.pretraining.autoencoder.finetune import tune
from fanin.pretraining.autoencoder.greedy import Epochs
from fanin.pretraining.autoencoder.layer import Layer, reconstruction_loss
from fanin.pretraining.autoencoder.modules import chain, head
from fanin.pretraining.autoencoder.settings import Settings
from fanin.pretraining.autoencoder.state import gathered, restored
from fanin.pretraining.conventions import NotFittedError, Parameters, Rows, as_given, as_rows
from fanin.pretraining.divergence import DivergedError, NotFiniteError, diverged
from fanin.record import Divergence


class StackedAutoencoder(Parameters):
    """Autoencoders h = f(x~ W^T + b), y = g(h D + c), each trained to give back the clean codes of the one below.

    Layer l minimises the mean over a batch of L(x, y), x the clean input of that layer, x~ its corrupted one: L is the
    cross-entropy with a sigmoid g (for data in [0, 1]), or |y - x|^2 / 2 with a linear g (for real data). Above the
    first layer g is the activation f, with cross-entropy where f is the sigmoid. For networks that do not train from
    random starts, and where labels are few: fit on all rows, then `to_sequential(classes)` and train as usual.

    hidden: widths, bottom up. corruption, amount: "none", "masking" and "salt_and_pepper" (share of entries),
    "gaussian" (standard deviation); fanin.pretraining.corruption. tied: D is W. activation: a name of
    fanin.catalogue.ACTIVATIONS or {"name": ..., option: ...}. output: "sigmoid" or "linear". init: a name or table of
    fanin.catalogue.INITIALIZERS. amount, lr and epochs may be one value or one for each layer. momentum: as in
    torch.optim.SGD. warm_start: `fit` goes on where training stands. device, dtype: where and in what it computes.

    Fitted: coefs_ and intercepts_ (encoder, (in, out) as scikit-learn's MLPs have them), decoder_coefs_ and
    decoder_intercepts_ (of layer l: from its codes to its input), n_features_in_, history_ (a dict per epoch: layer and
    epoch from 1, mean loss of its batches while weights moved), divergence_ (None, or where training broke off).

    Bengio et al. (2007), section 3; Vincent et al. (2008, 2010).
    """

    def __init__(
        self,
        hidden: Sequence[int] = (500, 500),
        *,
        corruption: str = "none",
        amount: float | Sequence[float] = 0.25,
        tied: bool = True,
        activation: str | Mapping[str, Any] = "sigmoid",
        output: str = "sigmoid",
        init: str | Mapping[str, Any] = "xavier_uniform",
        lr: float | Sequence[float] = 0.1,
        momentum: float = 0.0,
        batch_size: int = 100,
        epochs: int | Sequence[int] = 10,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        warm_start: bool = False,
    ) -> None:
        self.hidden = hidden
        self.corruption = corruption
        self.amount = amount
        self.tied = tied
        self.activation = activation
        self.output = output
        self.init = init
        self.lr = lr
        self.momentum = momentum
        self.batch_size = batch_size
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.dtype = dtype
        self.warm_start = warm_start

    def fit(self, X: Rows, y: object = None) -> Self:
        """Train layer by layer, each for its epochs, from the start; with warm_start only what is left of them.

        ValueError for parameters or data that do not fit; `y` is ignored. DivergedError where a loss is not finite:
        weights are then those before that epoch, and `divergence_` says where it was; after
        set_params(lr=..., warm_start=True) another fit goes on from there.
        """
        for _ in self.fit_epochs(X):
            pass
        return self

    def fit_epochs(self, X: Rows) -> Iterator[dict[str, Any]]:
        """`fit`, an epoch each time the iterator is asked, which yields the epoch's entry of history_.

        For showing or saving what there is on the way: data are checked once, and encoded once for each layer.
        """
        settings, rows = self._prepare(X, fresh=not self.warm_start)
        codes = stack.encode(rows, self._layers[: self._place], settings.activation)
        while True:
            yield from self._train(settings, codes, settings.epochs[self._place] - self._epoch)
            if self._place == len(self._layers) - 1:
                return
            codes = stack.encode(codes, self._layers[self._place : self._place + 1], settings.activation)
            self._enter(self._place + 1)

    def partial_fit(self, X: Rows, y: object = None) -> Self:
        """One epoch more on X, of the layer that is in turn; of the last one when all have had theirs. Errors as fit's.

        A fit is the same, bit for bit, as so many calls of this; between them the state can be kept (`state_dict`).
        """
        settings, rows = self._prepare(X, fresh=False)
        while self._epoch >= settings.epochs[self._place] and self._place < len(self._layers) - 1:
            self._enter(self._place + 1)
        for _ in self._train(settings, stack.encode(rows, self._layers[: self._place], settings.activation), 1):
            pass
        return self

    def finetune(self, X: Rows, epochs: int = 10) -> Self:
        """Train encoder and decoder of the whole stack on L(x, y) of its own input and output, for so many epochs.

        The second step of Hinton and Salakhutdinov (2006), by autograd and torch.optim.SGD: lr, corruption and amount
        as in the first layer. Tied weights stay tied. Velocities start at 0 in each call. Errors as fit's; of a
        divergence the layer is None.
        """
        self._fitted()
        settings, rows = self._prepare(X, fresh=False)
        tuning = tune(
            self._layers,
            rows,
            settings.task(0, rows),
            lr=settings.lr[0],
            momentum=self.momentum,
            batch=self.batch_size,
            seed=self.seed,
            done=self._tuned,
        )
        for _ in range(epochs):
            try:
                loss = next(tuning)
            except NotFiniteError as error:
                raise self._diverged(error, self._tuned + 1, None) from None
            self._tuned += 1
            self.history_.append({"layer": None, "epoch": self._tuned, "loss": loss})
        return self

    def transform(self, X: Rows) -> Any:
        """Codes of the top layer, h_l = f(h_{l-1} W_l^T + b_l), h_0 = X: (N, hidden[-1]); a tensor for a tensor."""
        layers = self._fitted()
        return as_given(stack.encode(self._rows(X), layers, self._settings().activation), X)

    def fit_transform(self, X: Rows, y: object = None) -> Any:
        """fit(X), then transform(X)."""
        return self.fit(X).transform(X)

    def inverse_transform(self, X: Rows) -> Any:
        """Reconstructions of codes X (N, hidden[-1]), h_{l-1} = g_l(h_l D_l + c_l) from the top down: (N, features)."""
        layers, settings = self._fitted(), self._settings()
        codes = as_rows(X, dtype=self.dtype, device=self.device, features=len(layers[-1].bias))
        z = stack.scores(codes, layers, settings.activation)
        settings.output(0).apply(z, z)
        return as_given(z, X)

    def score(self, X: Rows, y: object = None) -> float:
        """Minus the mean over rows of L(x, y), y the reconstruction of x from the top codes: higher is better."""
        layers, settings, rows = self._fitted(), self._settings(), self._rows(X)
        settings.check_data(rows)
        z = stack.scores(stack.encode(rows, layers, settings.activation), layers, settings.activation)
        loss = reconstruction_loss(z, rows, settings.loss(0), settings.output(0), torch.empty_like(z))
        return -float(loss) / len(rows)

    def to_sequential(self, classes: int | None = None, *, dropout: float = 0.0) -> nn.Sequential:
        """The encoder as nn.Sequential(Linear, activation, [Dropout], ...), with copies of the weights.

        In evaluation mode its outputs are `transform`'s. classes: appends a Linear for so many, Xavier uniform by the
        seed: a classifier to fine-tune. dropout: probability after each activation.
        """
        layers, activation = self._fitted(), self._settings().activation
        modules = chain([(p.weight, p.bias, activation.module) for p in layers], dropout=dropout)
        if classes is not None:
            modules.append(head(classes, like=layers[-1].weight, seed=self.seed, place=len(layers)))
        return nn.Sequential(*modules)

    def decoder(self) -> nn.Sequential:
        """The decoder as nn.Sequential(Linear, activation, ...), top down, with copies: `inverse_transform`."""
        layers, settings = self._fitted(), self._settings()
        down = [(p.decoder.T, p.decoder_bias, settings.output(i).module) for i, p in enumerate(layers)]
        return nn.Sequential(*chain(down[::-1]))

    def unrolled(self) -> nn.Sequential:
        """Encoder and mirrored decoder in one nn.Sequential, all weights copies: a deep autoencoder to train freely."""
        return nn.Sequential(*self.to_sequential(), *self.decoder())

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from: layers, velocities, place, history; plain data for torch.save."""
        layers = self._fitted()
        progress = {"place": self._place, "epoch": self._epoch, "tuned": self._tuned}
        history = [dict(entry) for entry in self.history_]
        return {**gathered(layers, self._velocity), **progress, "history": history}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take over a state, in a model of the same parameters; partial_fit, or fit with warm_start, go on bit for bit.

        ValueError where shapes do not fit `hidden` and `tied`.
        """
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        layers, velocity = restored(state, hidden=tuple(self.hidden), tied=self.tied, like=like)
        self._layers, self._velocity = layers, velocity
        self._place, self._epoch, self._tuned = state["place"], state["epoch"], state["tuned"]
        self.n_features_in_ = layers[0].weight.shape[1]
        self.history_ = [dict(entry) for entry in state["history"]]
        self.divergence_ = None
        return self

    @property
    def coefs_(self) -> list[np.ndarray]:
        """Encoder weights bottom up, copies of shape (in, out)."""
        return [p.weight.T.cpu().numpy().copy() for p in self._fitted()]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """Encoder biases bottom up, copies."""
        return [p.bias.cpu().numpy().copy() for p in self._fitted()]

    @property
    def decoder_coefs_(self) -> list[np.ndarray]:
        """Decoder weights bottom up, copies: of layer l from its codes to its input, (hidden, visible)."""
        return [p.decoder.cpu().numpy().copy() for p in self._fitted()]

    @property
    def decoder_intercepts_(self) -> list[np.ndarray]:
        """Decoder biases bottom up, copies."""
        return [p.decoder_bias.cpu().numpy().copy() for p in self._fitted()]

    def _settings(self) -> Settings:
        return Settings.of(self.get_params())

    def _fitted(self) -> list[Layer]:
        if not hasattr(self, "n_features_in_"):
            raise NotFittedError(f"{type(self).__name__} is not fitted yet: call fit or partial_fit first")
        return self._layers

    def _rows(self, X: Rows) -> Tensor:
        return as_rows(X, dtype=self.dtype, device=self.device, features=self.n_features_in_)

    def _prepare(self, X: Rows, *, fresh: bool) -> tuple[Settings, Tensor]:
        """Checked parameters and rows to train on, and layers to train: new ones if fresh, or if there are none yet."""
        settings = self._settings()
        fresh = fresh or not hasattr(self, "n_features_in_")
        features = None if fresh else self.n_features_in_
        rows = as_rows(X, dtype=self.dtype, device=self.device, features=features)
        settings.check_data(rows)
        if len(rows) < self.batch_size:
            raise ValueError(
                f"X: expected at least batch_size = {self.batch_size} rows; got {len(rows)}: lower batch_size"
            )
        if fresh:
            self._layers = settings.start(rows)
            self.n_features_in_ = rows.shape[1]
            self.history_: list[dict[str, Any]] = []
            self._tuned = 0
            self._enter(0)
        self.divergence_: Divergence | None = None
        return settings, rows

    def _enter(self, place: int) -> None:
        self._place, self._epoch = place, 0
        self._velocity = self._layers[place].zeros()

    def _train(self, settings: Settings, codes: Tensor, count: int) -> Iterator[dict[str, Any]]:
        """So many epochs more of the layer in turn; one that is broken off leaves it as it was before."""
        place, layer, velocity = self._place, self._layers[self._place], self._velocity
        epochs = Epochs(layer, velocity, codes, settings.task(place, codes), batch=self.batch_size, seed=self.seed)
        for _ in range(count):
            before = layer.copy(), velocity.copy()
            try:
                loss = epochs.run(self._epoch + 1, lr=settings.lr[place], momentum=self.momentum)
            except BaseException as error:  # Ctrl-C too
                layer.assign(before[0])
                velocity.assign(before[1])
                if isinstance(error, NotFiniteError):
                    raise self._diverged(error, self._epoch + 1, place + 1) from None
                raise
            self._epoch += 1
            self.history_.append({"layer": place + 1, "epoch": self._epoch, "loss": loss})
            yield self.history_[-1]

    def _diverged(self, error: NotFiniteError, epoch: int, layer: int | None) -> DivergedError:
        what = "fine-tuning" if layer is None else f"layer {layer}"
        remedy = f"lower lr (now {self.lr}) or momentum (now {self.momentum}), or rescale X"
        return diverged(self, what, Divergence(epoch, error.step, layer), why=error.what, remedy=remedy)
