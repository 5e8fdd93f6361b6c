"""RBM: a restricted Boltzmann machine as an estimator in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from fanin.pretraining.boltzmann import inference
from fanin.pretraining.boltzmann.chains import Machine, Sweep
from fanin.pretraining.boltzmann.epochs import train_epochs
from fanin.pretraining.boltzmann.options import Options
from fanin.pretraining.boltzmann.products import full_precision
from fanin.pretraining.boltzmann.rows import check_range
from fanin.pretraining.boltzmann.start import initial_state
from fanin.pretraining.boltzmann.state import State
from fanin.pretraining.boltzmann.training import machine
from fanin.pretraining.boltzmann.uniforms import Uniforms
from fanin.pretraining.conventions import NotFittedError, Parameters, Rows, as_given, matrix
from fanin.pretraining.divergence import NotFiniteError, diverged
from fanin.record import Divergence


class RBM(Parameters):
    """A machine p(v, h) ~ exp(-E(v, h)), trained to ascend <d(-E)>_data - <d(-E)>_model, E of boltzmann.energy.

    n_components: hidden units. method: where the model's mean comes from: "cd", chains that start at the data and take
    k sweeps (Hinton, 2002); "pcd", chains that persist (Tieleman, 2008); "fpcd", those driven by fast weights besides,
    of rate fast_lr (None: lr) and decay fast_decay (Tieleman and Hinton, 2009); "pt", chains at `temperatures` (their
    number, or inverse temperatures from 1 down) that swap (Desjardins et al., 2010). The gradient is centred by offsets
    that move by offset_rate a step (Montavon and Mueller, 2012; Melchior, Fischer and Wiskott, 2016).

    visible: "bernoulli" (data in [0, 1]), "gaussian" (real), "categorical" (one-hot groups of `categories` features),
    "rectified" (>= 0); hidden: "bernoulli" or "rectified". binarize: "sample" draws each pixel anew with its value as
    probability, "threshold" takes x > 1/2, None takes values as they are. learn_sigma: of Gaussian units, whose
    weights and biases ascend sigma^2 times the gradient, so that a feature's unit of measurement changes nothing.

    lr: the rate, or a function of the epoch (from 1); schedule: "constant", "linear" (to 0) or "inverse". momentum,
    nesterov, weight_decay: as in torch.optim.SGD; decay spares biases. sparsity: pulls each hidden unit's input by
    sparsity_strength (target - mean over the batch) (Hinton, 2010, section 11). chains: None is batch_size. precision:
    "bf16" rounds what products read. warm_start: `fit` goes on where training stands.

    Fitted: components_ (hidden, visible), intercept_hidden_, intercept_visible_ (plain, offsets folded in),
    log_sigma_ (None but for Gaussian units), n_features_in_, epochs_, history_ (a dict per epoch), divergence_ (None,
    or where training broke off: all is then as before that epoch).
    """

    def __init__(
        self,
        n_components: int = 256,
        *,
        method: str = "pcd",
        k: int = 1,
        centered: bool = True,
        offset_rate: float = 0.01,
        visible: str = "bernoulli",
        hidden: str = "bernoulli",
        categories: int | None = None,
        learn_sigma: bool = True,
        lr: float | Callable[[int], float] = 0.01,
        schedule: str = "constant",
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        sparsity: float | None = None,
        sparsity_strength: float = 0.1,
        batch_size: int = 100,
        epochs: int = 10,
        chains: int | None = None,
        temperatures: int | Sequence[float] = 10,
        fast_lr: float | None = None,
        fast_decay: float = 0.95,
        binarize: str | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        dtype: torch.dtype = torch.float32,
        warm_start: bool = False,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.k = k
        self.centered = centered
        self.offset_rate = offset_rate
        self.visible = visible
        self.hidden = hidden
        self.categories = categories
        self.learn_sigma = learn_sigma
        self.lr = lr
        self.schedule = schedule
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.sparsity = sparsity
        self.sparsity_strength = sparsity_strength
        self.batch_size = batch_size
        self.epochs = epochs
        self.chains = chains
        self.temperatures = temperatures
        self.fast_lr = fast_lr
        self.fast_decay = fast_decay
        self.binarize = binarize
        self.seed = seed
        self.device = device
        self.precision = precision
        self.dtype = dtype
        self.warm_start = warm_start

    # training

    def fit(self, X: Rows, y: object = None, *, held_out: Rows | None = None) -> Self:
        """Train for `epochs` epochs on X (rows, features); y is ignored. DivergedError where numbers are not finite.

        Each epoch adds to history_: epoch, lr, seconds, reconstruction_error (mean square), pseudo_likelihood (if
        visible units are Bernoulli) and, if rows are held out, free_energy_gap = mean F(held_out) - mean F(X), which
        grows as the machine overfits; each from 500 rows. To resume a saved state is the same, to the bit, as never to
        have stopped. An epoch that is broken off, by divergence or from the keyboard, leaves all as it was before it.
        """
        for _ in self.fit_epochs(X, held_out=held_out):
            pass
        return self

    def fit_epochs(self, X: Rows, *, held_out: Rows | None = None) -> Iterator[dict[str, Any]]:
        """`fit`, an epoch each time the iterator is asked, which yields the epoch's entry of history_.

        For showing or saving what there is on the way: data are checked and converted once, not in every epoch as by
        `partial_fit`. Between epochs the machine is fitted as far as it has come; leave its parameters alone.
        """
        if not (self.warm_start and hasattr(self, "_state")):
            self._forget()
        done = self._state.epoch if hasattr(self, "_state") else 0
        yield from self._train(X, held_out, max(0, self.epochs - done))

    def partial_fit(self, X: Rows, y: object = None, *, held_out: Rows | None = None) -> Self:
        """Train for one epoch more on X, from where training stands, or from the start. Errors as fit's."""
        for _ in self._train(X, held_out, 1):
            pass
        return self

    def _train(self, X: Rows, held_out: Rows | None, epochs: int) -> Iterator[dict[str, Any]]:
        options = self._options()
        data = self._data(X, options)
        aside = None if held_out is None else self._data(held_out, options, name="held_out")
        if len(data) < options.batch_size:
            raise ValueError(f"X: expected at least batch_size = {options.batch_size} rows; got {len(data)}")
        if not hasattr(self, "_state"):
            self._state, self.history_, self._draws = initial_state(options, data), [], 0
        self._check_features(data, "X")
        self.n_features_in_ = data.shape[1]
        self.divergence_: Divergence | None = None
        self._publish(numpy=not isinstance(X, Tensor))
        try:
            for entry in train_epochs(self._state, options, data, aside, count=epochs):
                self.history_.append(entry)
                self._publish(numpy=not isinstance(X, Tensor))
                yield entry
        except NotFiniteError as error:
            where = Divergence(self._state.epoch + 1, error.step, None)
            lower = f"lower lr (now {options.rate(where.epoch):g})"
            raise diverged(self, "RBM", where, why=error.what, remedy=lower) from None

    # what a trained machine says

    def transform(self, X: Rows) -> Any:
        """E[h | v] = sigmoid(c + W v) for Bernoulli units, (rows, hidden)."""
        return as_given(self._by_rows(X, inference.hidden_means), X)

    def reconstruct(self, X: Rows) -> Any:
        """E[v | h = E[h | v]], (rows, features): deterministic, for pictures; it says little of the likelihood."""
        return as_given(self._by_rows(X, inference.reconstruction), X)

    def free_energy(self, X: Rows) -> Any:
        """F(v) = -log sum_h exp(-E(v, h)), (rows,): -log p(v) but for a constant of the machine."""
        return as_given(self._by_rows(X, inference.free_energies), X)

    def score_samples(self, X: Rows) -> Any:
        """V log p(v_i | all other v) of one random bit i, (rows,): a stochastic log pseudo-likelihood, unbiased.

        As scikit-learn's BernoulliRBM.score_samples, but the bits are those of stream ("pseudo", seed): equal at each
        call. Bernoulli visible units only.
        """
        if self.visible != "bernoulli":
            raise ValueError(f"score_samples: expected Bernoulli visible units; got {self.visible!r}: use free_energy")
        rows = self._fitted_data(X)
        with full_precision():
            return as_given(inference.pseudo_likelihoods(self._machine(), rows, self.seed), X)

    def gibbs(self, v: Rows) -> Any:
        """One sweep from each row: h from P(h | v), then v' from P(v | h), (rows, features); new numbers each call."""
        values = self._fitted_data(v)
        uniforms, model = self._next_draws(), self._machine()
        x = model.up_(model.visible.features(values), values.new_empty(len(values), len(model.weights)))
        h = model.hidden.sample_(x, uniforms.fill_(torch.empty_like(x)))
        inputs = model.down_(h, torch.empty_like(values))
        return as_given(model.visible.sample_(inputs, uniforms.fill_(torch.empty_like(values))), v)

    def sample(self, n: int, *, steps: int = 1000, means: bool = False) -> Any:
        """n rows of chains after `steps` sweeps, (n, features); means: E[v | h] instead of v in the last one.

        Chains go on from those of training, where there are any (they stay as they are), else start at the means that
        visible biases alone give. New numbers each call.
        """
        self._check_fitted()
        uniforms, model = self._next_draws(), self._machine()
        h = inference.chain_starts(model, self._state, self._options().particles, n, uniforms)
        sweep = Sweep(h.new_empty(n, self.n_features_in_), torch.empty_like(h), h.new_empty(n, self.n_features_in_))
        for step in range(steps):
            sweep.run(model, h, uniforms.at(epoch=self._draws, step=step + 1))
        x = model.down_(h, sweep.room)
        v = model.visible.sample_(x, uniforms.fill_(sweep.v))  # and x becomes the means
        return as_given(x if means else v, self._like)

    def parameters(self) -> dict[str, Any]:
        """What functions of a machine take by name: components, intercept_hidden, intercept_visible, visible (Units).

        As in fanin.pretraining.likelihood.log_likelihood(X, **rbm.parameters()); rectified hidden units come as hidden.
        """
        self._check_fitted()
        found, model = dict(self._state.parameters()), self._machine()
        found.pop("log_sigma", None)
        units = {"visible": model.visible} | ({} if self.hidden == "bernoulli" else {"hidden": model.hidden})
        return found | units

    # saving

    def state_dict(self) -> dict[str, Any]:
        """All that training has changed, as tensors and plain data: parameters, offsets, velocities, chains ..."""
        self._check_fitted()
        return self._state.to_dict() | {"history": [dict(e) for e in self.history_], "draws": self._draws}

    def load_state_dict(self, saved: Mapping[str, Any]) -> Self:
        """Take a saved state (copied); `partial_fit`, or `fit` with warm_start, then goes on as if never stopped.

        components, intercept_hidden and intercept_visible suffice: the rest then starts as usual, offsets at
        the data's means.
        """
        options = self._options()
        state = State.from_dict(saved, like=torch.empty(0, dtype=options.dtype, device=options.device))
        if len(state.components) != self.n_components:
            raise ValueError(
                f"components: expected {self.n_components} rows, n_components; got {len(state.components)}"
            )
        self._state = state
        self.history_ = [dict(e) for e in saved.get("history", [])]
        self._draws, self.divergence_ = saved.get("draws", 0), None
        self.n_features_in_ = state.components.shape[1]
        self._publish(numpy=True)
        return self

    # inside

    def _options(self) -> Options:
        return Options(**{name: value for name, value in self.get_params().items() if name != "warm_start"})

    def _forget(self) -> None:
        for name in ("_state", "history_", "divergence_", "n_features_in_"):
            self.__dict__.pop(name, None)

    def _publish(self, *, numpy: bool) -> None:
        """The fitted attributes, which share the state's memory where they can."""
        state = self._state
        self._like: object = None if numpy else state.components
        for name in ("components", "intercept_hidden", "intercept_visible"):
            setattr(self, name + "_", as_given(getattr(state, name), self._like))
        self.log_sigma_ = None if state.log_sigma is None else as_given(state.log_sigma, self._like)
        self.epochs_ = state.epoch

    def _check_fitted(self) -> None:
        if not hasattr(self, "_state"):
            raise NotFittedError("this RBM is not fitted yet: call fit, partial_fit or load_state_dict first")

    def _check_features(self, X: Tensor, name: str) -> None:
        features = self._state.components.shape[1]
        if X.shape[1] != features:
            raise ValueError(f"{name}: expected {features} features, as fitted; got {X.shape[1]}")

    def _data(self, X: Rows, options: Options, *, name: str = "X") -> Tensor:
        """Checked rows on the device; bytes stay bytes."""
        rows = matrix(X, name=name)
        check_range(rows, options.visible, categories=options.categories, name=name)
        dtype = torch.uint8 if rows.dtype in (torch.uint8, torch.bool) else options.dtype
        return rows.to(device=options.device, dtype=dtype)

    def _fitted_data(self, X: Rows) -> Tensor:
        self._check_fitted()
        options = self._options()
        rows = self._data(X, options).to(options.dtype)
        self._check_features(rows, "X")
        return rows

    def _by_rows(self, X: Rows, function: Callable[[Machine, Tensor], Tensor]) -> Tensor:
        """A function of rows, some thousand at a time."""
        rows = self._fitted_data(X)
        with full_precision():
            return torch.cat([function(self._machine(), part) for part in rows.split(8192)])

    def _machine(self) -> Machine:
        """The trained machine; its products are exact, whatever those of training are."""
        return machine(self._state.parameters(), self._options())

    def _next_draws(self) -> Uniforms:
        self._draws += 1
        return Uniforms(self.seed, "draw", device=self._state.components.device).at(epoch=self._draws, step=0)
