"""DBN: a deep belief network, trained greedily as a stack of restricted Boltzmann machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from fanin.pretraining.autoencoder.modules import chain, head
from fanin.pretraining.boltzmann.rbm import RBM
from fanin.pretraining.conventions import (
    NotFittedError,
    Parameters,
    Rows,
    as_given,
    as_rows,
    check_unit_interval,
    per_layer,
)
from fanin.pretraining.divergence import DivergedError, NotFiniteError, diverged
from fanin.pretraining.downward import Downward, directed, down_draws, down_means, downward
from fanin.pretraining.stacking import check_stack, new_machine, start_transposed, tensors, upward
from fanin.pretraining.updown import Directed, tune
from fanin.record import Divergence


class DBN(Parameters):
    """p(v, h_1, ..., h_L) = p(v | h_1) ... p(h_{L-2} | h_{L-1}) p(h_{L-1}, h_L), the last factor a Boltzmann machine.

    Machine l is trained on what the one below makes of the data, E[h | v] ("means") or draws of it ("samples", new ones
    each epoch). Each one adds to a lower bound of log p(v) if it starts from the transposed weights of the one below,
    samples go up, and it is trained by maximum likelihood; in practice by contrastive divergence, from small weights.
    For generating, and as the start of a classifier or deep autoencoder: `to_sequential`, `unrolled`.

    centered: as RBM's, but off, for centred machines are the better densities and the worse starts of classifiers. On
    MNIST (784-500-500-500, CD-1, 5 epochs at rate 0.05, then SGD at 0.1) fine-tuned networks reach 0.82 to 0.835 with
    100 labels and 0.923 to 0.928 with 1,000; centred 0.79 to 0.80 and 0.904 to 0.92, their units on half of the time
    and not 0.3 of it. Where samples or likelihoods count, take True.

    hidden: widths, bottom up. visible, binarize: of the data, as RBM's. lr and epochs: one value, or one for each
    layer. machine: further parameters of every RBM, by name. transposed: start machine l from the transposed one below
    where widths allow it. seed: that of the first machine; those above have seeds of stream ("machine", seed).

    Fitted: machines_ (the RBMs, bottom up), components_, intercept_hidden_ and intercept_visible_ (lists of copies),
    n_features_in_, history_ (the machines' entries, with the layer from 1), tuning_ (of `finetune`), divergence_.

    Hinton, Osindero and Teh (2006), sections 4 and 6; Hinton and Salakhutdinov (2006).
    """

    def __init__(
        self,
        hidden: Sequence[int] = (500, 500, 2000),
        *,
        visible: str = "bernoulli",
        binarize: str | None = None,
        upward: str = "means",
        method: str = "cd",
        k: int = 1,
        centered: bool = False,
        lr: float | Sequence[float] = 0.05,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        batch_size: int = 100,
        epochs: int | Sequence[int] = 10,
        machine: Mapping[str, Any] | None = None,
        transposed: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        warm_start: bool = False,
    ) -> None:
        self.hidden = hidden
        self.visible = visible
        self.binarize = binarize
        self.upward = upward
        self.method = method
        self.k = k
        self.centered = centered
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.machine = machine
        self.transposed = transposed
        self.seed = seed
        self.device = device
        self.dtype = dtype
        self.warm_start = warm_start

    # training

    def fit(self, X: Rows, y: object = None) -> Self:
        """Train machine after machine, each for its epochs, from the start; with warm_start only what is left of them.

        ValueError for parameters or data that do not fit; `y` is ignored. DivergedError where a machine diverges: the
        network is then as before that epoch, of those machines that have had one, and `divergence_` says where it was.
        """
        for _ in self.fit_epochs(X):
            pass
        return self

    def fit_epochs(self, X: Rows, *, held_out: Rows | None = None) -> Iterator[dict[str, Any]]:
        """`fit`, an epoch each time the iterator is asked, which yields the epoch's entry of history_.

        For showing or saving what there is on the way. held_out: rows for free_energy_gap, as in RBM.fit; each layer's
        machine is given its own view of them.
        """
        rows = self._prepare(X, fresh=not self.warm_start)
        aside = None if held_out is None else self._rows(held_out)
        for place, count in enumerate(per_layer(self.epochs, len(self.hidden), "epochs")):
            machine = self._at(place)
            if getattr(machine, "epochs_", 0) < count:
                with self._naming(place):
                    for entry in machine.fit_epochs(rows, held_out=aside):
                        self._keep(machine, place)
                        yield {"layer": place + 1} | entry
            rows = machine.transform(rows)
            aside = None if aside is None else machine.transform(aside)

    def partial_fit(self, X: Rows, y: object = None) -> Self:
        """One epoch more on X, of the machine that is in turn; of the last one when all have had theirs.

        A fit is the same, bit for bit, as so many calls of this. Errors as fit's.
        """
        rows = self._prepare(X, fresh=False)
        epochs = per_layer(self.epochs, len(self.hidden), "epochs")
        done = [machine.epochs_ for machine in self.machines_] + [0] * (len(epochs) - len(self.machines_))
        place = next((i for i, count in enumerate(epochs) if done[i] < count), len(epochs) - 1)
        for below in self.machines_[:place]:
            rows = below.transform(rows)
        machine = self._at(place)
        with self._naming(place):
            machine.partial_fit(rows)
        self._keep(machine, place)
        return self

    def finetune(self, X: Rows, epochs: int = 10, *, lr: float = 0.01, k: int = 1) -> Self:
        """Fine-tune all layers as one generative model, by the up-down algorithm (fanin.pretraining.updown), in place.

        From then on upward and downward weights differ: transform and to_sequential have the former, sample,
        inverse_transform and decoder the latter. Bernoulli units only. Adds entries to `tuning_`: epoch, and the mean
        squared errors of wake and sleep predictions. DivergedError where numbers are no longer finite: weights are then
        those before that epoch, and the layer of `divergence_` is None.
        """
        self._check_fitted()
        kinds = {(m.visible, m.hidden) for m in self.machines_}
        if kinds != {("bernoulli", "bernoulli")} or len(self.machines_) < 2:
            raise ValueError("finetune: expected two or more layers of bernoulli units; train a DBN of such first")
        rows = self._rows(X)
        check_unit_interval(rows, why="bernoulli units", instead="train with visible='gaussian' and no finetune")
        if len(rows) < self.batch_size:
            raise ValueError(f"X: expected at least batch_size = {self.batch_size} rows; got {len(rows)}")
        *lower, top = directed(self.machines_, self._down())
        tuning = tune(lower, top, rows, batch=self.batch_size, k=k, lr=lr, seed=self.seed, done=len(self.tuning_))
        for epoch in range(len(self.tuning_) + 1, len(self.tuning_) + epochs + 1):
            try:
                wake, sleep = next(tuning)
            except NotFiniteError as error:
                where = Divergence(epoch, error.step, None)
                raise diverged(self, "fine-tuning", where, why=error.what, remedy=f"lower lr (now {lr})") from None
            self.tuning_.append({"epoch": epoch, "wake_error": wake, "sleep_error": sleep})
            self._take_directed([*lower, top])
        return self

    # what a trained network says

    def transform(self, X: Rows) -> Any:
        """Means of the top units, machine after machine, h_l = E[h | v = h_{l-1}], h_0 = X: (N, hidden[-1])."""
        self._check_fitted()
        rows = self._rows(X)
        for machine in self.machines_:
            rows = machine.transform(rows)
        return as_given(rows, X)

    def fit_transform(self, X: Rows, y: object = None) -> Any:
        """fit(X), then transform(X)."""
        return self.fit(X).transform(X)

    def inverse_transform(self, X: Rows) -> Any:
        """Means downwards from top codes X (N, hidden[-1]), v_{l-1} = E[v | h = v_l]: (N, features)."""
        self._check_fitted()
        codes = as_rows(X, dtype=self.dtype, device=self.device, features=len(tensors(self.machines_[-1])[1]))
        return as_given(down_means(self._down(), codes), X)

    def sample(self, n: int, *, steps: int = 1000, means: bool = False) -> np.ndarray:
        """n rows (n, features): `steps` sweeps of the top machine, then one pass downwards, drawing at every layer.

        means: E[v | h_1] instead of a draw in the last step, for pictures. Equal calls of an unchanged network differ.
        """
        self._check_fitted()
        top, lower = self.machines_[-1], self._down()[:-1]
        values = torch.as_tensor(top.sample(n, steps=steps, means=means and not lower), device=self.device)
        self._draws += 1
        return down_draws(lower, values, seed=self.seed, number=self._draws, last_means=means).cpu().numpy()

    # as modules

    def to_sequential(self, classes: int | None = None, *, dropout: float = 0.0) -> nn.Sequential:
        """The recognition network as nn.Sequential(Linear, Sigmoid, [Dropout], ...), with copies of the weights.

        In evaluation mode its outputs are `transform`'s. classes: appends a Linear for so many, Xavier uniform by the
        seed: a classifier to fine-tune. dropout: probability after each activation. ValueError for rectified hidden
        units, whose mean is no activation of torch's.
        """
        up = [(*upward(machine), nn.Sigmoid) for machine in self._checked_machines()]
        modules = chain(up, dropout=dropout)
        if classes is not None:
            modules.append(head(classes, like=up[-1][0], seed=self.seed, place=len(up)))
        return nn.Sequential(*modules)

    def decoder(self) -> nn.Sequential:
        """The means downwards as nn.Sequential(Linear, Sigmoid, ...), the last linear for Gaussian data: copies."""
        visible = self._checked_machines()[0].visible
        if visible not in ("bernoulli", "gaussian"):
            raise ValueError(f"decoder: expected bernoulli or gaussian visible units; got {visible!r}")
        bottom = nn.Sigmoid if visible == "bernoulli" else nn.Identity
        makes = [bottom, *[nn.Sigmoid] * (len(self.machines_) - 1)]
        down = [(layer.weight.T, layer.bias, make) for layer, make in zip(self._down(), makes, strict=True)]
        return nn.Sequential(*chain(down[::-1]))

    def unrolled(self) -> nn.Sequential:
        """The deep autoencoder to_sequential() and decoder() in one nn.Sequential, all weights copies: to fine-tune.

        Hinton and Salakhutdinov (2006), figure 1.
        """
        return nn.Sequential(*self.to_sequential(), *self.decoder())

    # saving

    def state_dict(self) -> dict[str, Any]:
        """All that training has changed: the machines' states, bottom up, downward weights, tuning, samples drawn."""
        self._check_fitted()
        return {
            "machines": [machine.state_dict() for machine in self.machines_],
            "downward": [[p.clone() for p in pair] for pair in self._downward],
            "tuning": [dict(entry) for entry in self.tuning_],
            "draws": self._draws,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take over a state, in a model of equal parameters; partial_fit, or fit with warm_start, go on bit for bit."""
        if not 1 <= len(state["machines"]) <= len(self.hidden):
            raise ValueError(f"state: expected 1 to {len(self.hidden)} machines; got {len(state['machines'])}")
        machines = [
            new_machine(self.get_params(), i).load_state_dict(saved) for i, saved in enumerate(state["machines"])
        ]
        self._take(machines, features=machines[0].n_features_in_, draws=state.get("draws", 0))
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        self._downward = [
            (weight.to(like, copy=True), bias.to(like, copy=True)) for weight, bias in state.get("downward", [])
        ]
        self.tuning_ = [dict(entry) for entry in state.get("tuning", [])]
        return self

    @property
    def components_(self) -> list[np.ndarray]:
        """Weights bottom up, copies of shape (hidden, visible)."""
        return [tensors(m)[0].cpu().numpy().copy() for m in self._checked_machines()]

    @property
    def intercept_hidden_(self) -> list[np.ndarray]:
        """Hidden biases bottom up, copies."""
        return [tensors(m)[1].cpu().numpy().copy() for m in self._checked_machines()]

    @property
    def intercept_visible_(self) -> list[np.ndarray]:
        """Visible biases bottom up, copies."""
        return [tensors(m)[2].cpu().numpy().copy() for m in self._checked_machines()]

    @property
    def history_(self) -> list[dict[str, Any]]:
        """The machines' entries, one for each epoch, with the layer from 1."""
        return [{"layer": i + 1} | e for i, m in enumerate(self._checked_machines()) for e in m.history_]

    # inside

    def _prepare(self, X: Rows, *, fresh: bool) -> Tensor:
        check_stack(self.get_params())
        fresh = fresh or not hasattr(self, "machines_")
        features = None if fresh else self.n_features_in_
        rows = as_rows(X, dtype=self.dtype, device=self.device, features=features)
        if fresh:
            self._take([], features=rows.shape[1], draws=0)
        self.divergence_ = None
        return rows

    def _take(self, machines: list[RBM], *, features: int, draws: int) -> None:
        self.machines_, self.n_features_in_, self._draws = machines, features, draws
        self.divergence_: Divergence | None = None
        self.tuning_: list[dict[str, Any]] = []
        self._downward: list[tuple[Tensor, Tensor]] = []  # of lower layers after fine-tuning: weight, visible bias

    def _at(self, place: int) -> RBM:
        """The machine at a place, with the parameters as they now are; a new one if it is not there yet."""
        machine = new_machine(self.get_params(), place)
        if place < len(self.machines_):
            return self.machines_[place].set_params(**machine.get_params())
        if self.transposed and place:
            start_transposed(machine, self.machines_[place - 1])
        return machine

    def _keep(self, machine: RBM, place: int) -> None:
        """Into the stack with a machine that has had an epoch."""
        if place == len(self.machines_):
            self.machines_.append(machine)

    @contextmanager
    def _naming(self, place: int) -> Iterator[None]:
        """A machine's divergence becomes the network's, with its layer."""
        try:
            yield
        except DivergedError as error:
            where, lower = replace(error.where, layer=place + 1), f"lower lr (now {self.lr})"
            raise diverged(self, f"layer {place + 1}", where, why=error.why, remedy=lower) from None

    def _check_fitted(self) -> None:
        if not getattr(self, "machines_", None):
            raise NotFittedError("this DBN is not fitted yet: call fit, partial_fit or load_state_dict first")

    def _checked_machines(self) -> list[RBM]:
        self._check_fitted()
        return self.machines_

    def _rows(self, X: Rows) -> Tensor:
        return as_rows(X, dtype=self.dtype, device=self.device, features=self.n_features_in_)

    def _down(self) -> list[Downward]:
        return downward(self.machines_, self._downward)

    def _take_directed(self, layers: Sequence[Directed]) -> None:
        self._downward = [(layer.generative.clone(), layer.bias_visible.clone()) for layer in layers[:-1]]
        for machine, layer in zip(self.machines_, layers, strict=True):
            changed = {
                "components": layer.recognition,
                "intercept_hidden": layer.bias_hidden,
                "intercept_visible": layer.bias_visible,
            }
            machine.load_state_dict(machine.state_dict() | changed)
