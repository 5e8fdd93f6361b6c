"""BernoulliRBM beside scikit-learn's of that name: interface, scores by brute force, likelihoods and features."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, minmax_scale

from fanin.pretraining import RBM, DivergedError
from fanin.pretraining.likelihood import pseudo_likelihood
from fanin.sklearn import BernoulliRBM

DIGITS, CLASSES = load_digits(return_X_y=True)


def bars(rows: int = 40) -> np.ndarray:
    return (np.random.default_rng(0).uniform(size=(rows, 6)) < [0.1, 0.9, 0.5, 0.3, 0.7, 0.5]).astype(float)


def test_takes_what_scikit_learns_takes_with_the_same_defaults() -> None:
    ours = inspect.signature(BernoulliRBM).parameters
    for name, parameter in inspect.signature(neural_network.BernoulliRBM).parameters.items():
        assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind), name
    public = {name for name in dir(neural_network.BernoulliRBM) if not name.startswith("_")}
    assert public <= set(dir(BernoulliRBM))
    theirs = neural_network.BernoulliRBM(3, n_iter=1).fit(bars())
    mine = BernoulliRBM(3, n_iter=1).fit(bars())
    for name in [name for name in vars(theirs) if name.endswith("_") and not name.startswith("_")]:
        assert np.shape(getattr(mine, name)) == np.shape(getattr(theirs, name)), name


def test_is_fanins_machine() -> None:
    mine = BernoulliRBM(3, n_iter=4, random_state=5, momentum=0.5, machine={"sparsity": 0.2}).fit(bars())
    shared = {"lr": 0.1, "batch_size": 10, "centered": False, "momentum": 0.5, "sparsity": 0.2, "dtype": torch.float64}
    other = RBM(3, epochs=4, seed=5, **shared).fit(bars())
    assert np.array_equal(mine.components_, other.components_)
    assert np.array_equal(mine.intercept_hidden_, other.intercept_hidden_)
    np.testing.assert_allclose(mine.transform(bars()), other.transform(bars()), rtol=1e-12)
    assert not np.array_equal(mine.components_, BernoulliRBM(3, n_iter=4, random_state=5).fit(bars()).components_)


def test_partial_fits_are_a_fit_and_small_batches_keep_the_chains() -> None:
    whole = BernoulliRBM(3, n_iter=3, random_state=1).fit(bars())
    parts = BernoulliRBM(3, random_state=1)
    for _ in range(3):
        assert parts.partial_fit(bars()) is parts
    assert np.array_equal(parts.components_, whole.components_)
    chains = parts.h_samples_
    assert chains.shape == (10, 3)
    assert set(np.unique(chains)) <= {0, 1}
    parts.partial_fit(bars()[:4])
    assert parts.h_samples_.shape == (10, 3)
    assert not np.array_equal(parts.components_, whole.components_)
    with pytest.raises(AttributeError, match="'cd' keeps no chains"):
        _ = BernoulliRBM(3, n_iter=1, method="cd").fit(bars()).h_samples_


def free_energy(machine: BernoulliRBM, v: np.ndarray) -> np.ndarray:
    """-log of the sum over all hidden states, one by one."""
    total = 0.0
    for number in range(2 ** len(machine.components_)):
        h = np.array([number >> i & 1 for i in range(len(machine.components_))])
        total = total + np.exp(v @ machine.intercept_visible_ + h @ (machine.components_ @ v.T).reshape(len(h), -1)
                               + h @ machine.intercept_hidden_)  # fmt: skip
    return -np.log(total)


def test_score_is_one_bits_term_and_right_on_average() -> None:
    X = bars(5)
    machine = BernoulliRBM(3, n_iter=20, random_state=0).fit(bars())
    terms = np.empty(X.shape)
    for i in range(X.shape[1]):
        other = X.copy()
        other[:, i] = 1 - other[:, i]
        terms[:, i] = 6 * np.log(expit(free_energy(machine, other) - free_energy(machine, X)))
    scores = []
    for seed in range(400):
        machine.rbm_.seed = seed
        scores.append(machine.score_samples(X))
        assert np.isclose(scores[-1][:, None], terms).any(1).all()
    error = terms.std(1) / 20
    assert np.all(np.abs(np.mean(scores, 0) - terms.mean(1)) < 4.5 * error)
    assert not np.all(np.abs(np.mean(scores, 0) - terms.min(1)) < 4.5 * error)


def test_score_of_a_row_does_not_depend_on_others() -> None:
    machine = BernoulliRBM(3, n_iter=2, random_state=0).fit(bars())
    scores = machine.score_samples(bars())
    np.testing.assert_allclose(machine.score_samples(bars()[::-1])[::-1], scores, rtol=1e-12)
    np.testing.assert_allclose(machine.score_samples(-1 * -bars()[:1]), scores[:1], rtol=1e-12)


def test_gibbs_draws_from_its_conditionals() -> None:
    machine = BernoulliRBM(2, n_iter=30, random_state=0).fit(bars())
    v = np.repeat(bars(1), 20000, axis=0)
    swept = machine.gibbs(v)
    assert set(np.unique(swept)) == {0, 1}
    p = expit(v[0] @ machine.components_.T + machine.intercept_hidden_)
    mean = 0.0  # over the four hidden states
    for h in np.array([[0, 0], [0, 1], [1, 0], [1, 1]]):
        mean = mean + np.prod(np.where(h, p, 1 - p)) * expit(machine.intercept_visible_ + h @ machine.components_)
    error = np.sqrt(mean * (1 - mean) / len(v))
    assert np.all(np.abs(swept.mean(0) - mean) < 4.5 * error)
    assert not np.all(np.abs(v.mean(0) - mean) < 4.5 * error)


def test_verbose_prints_an_epoch_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    machine = BernoulliRBM(3, n_iter=2, verbose=1, random_state=0).fit(bars())
    lines = capsys.readouterr().out.splitlines()
    found = machine.rbm_.history_[1]["pseudo_likelihood"]
    assert lines[1].startswith(f"[BernoulliRBM] Iteration 2, pseudo-likelihood = {found:.2f}, time = ")
    assert len(lines) == 2
    machine.set_params(verbose=0).fit(bars())
    assert not capsys.readouterr().out


def test_divergence_keeps_the_epochs_start() -> None:
    machine = BernoulliRBM(3, learning_rate=1e308, weight_decay=10.0, random_state=0)
    with pytest.raises(DivergedError, match="diverged in epoch 1"):
        machine.fit(bars())
    assert np.isfinite(machine.components_).all()
    assert machine.rbm_.history_ == []
    assert (machine.rbm_.divergence_.epoch, machine.rbm_.epochs_) == (1, 0)


@pytest.mark.parametrize(
    ("params", "kind", "says"),
    [
        ({"n_components": 2.5}, TypeError, "n_components: expected an integer; got 2.5"),
        ({"n_iter": 0}, ValueError, "n_iter: expected a number >= 1; got 0"),
        ({"learning_rate": 0}, ValueError, "learning_rate: expected a number > 0; got 0"),
        ({"method": "pdc"}, ValueError, "did you mean 'pcd'"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        BernoulliRBM(**params).fit(bars())


def test_pseudo_likelihood_on_digits_is_no_lower_than_scikit_learns() -> None:
    """Exact, over all bits, with equal settings: scikit-learn's spreads by 0.1 to 0.2 nats over seeds."""
    X = (DIGITS > 7.5).astype(float)

    def judged(kind: type) -> np.ndarray:
        found = []
        for seed in range(3):
            machine = kind(32, learning_rate=0.05, n_iter=5, random_state=seed).fit(X)
            parts = (machine.components_, machine.intercept_hidden_, machine.intercept_visible_)
            tensors = [torch.tensor(np.ascontiguousarray(p)) for p in parts]
            found.append(float(pseudo_likelihood(torch.tensor(X), *tensors).mean()))
        return np.array(found)

    ours, theirs = judged(BernoulliRBM), judged(neural_network.BernoulliRBM)
    independent = X.mean(0).clip(1e-9, 1 - 1e-9)
    chance = (X * np.log(independent) + (1 - X) * np.log(1 - independent)).sum(1).mean()
    assert theirs.mean() > chance + 3, "both have learnt something"
    error = np.hypot(ours.std(ddof=1), theirs.std(ddof=1)) / np.sqrt(3)
    assert ours.mean() > theirs.mean() - 3 * error
    assert abs(ours.mean() - theirs.mean()) < 1.5


def test_logistic_regression_gains_by_features_as_in_scikit_learns_example() -> None:
    """Digits moved by a pixel each way: raw pixels are no longer enough for a linear classifier, features are."""
    pictures = np.pad(DIGITS.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    moves = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    moved = np.concatenate([pictures[:, 1 + a : 9 + a, 1 + b : 9 + b].reshape(-1, 64) for a, b in moves])
    X, test, y, labels = train_test_split(minmax_scale(moved), np.tile(CLASSES, 5), test_size=0.2, random_state=0)

    def accuracy(*before: Any) -> float:
        pipe = make_pipeline(*before, StandardScaler(), LogisticRegression(C=100, max_iter=40))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lbfgs stops early: far enough to tell
            return pipe.fit(X, y).score(test, labels)

    params = {"n_components": 100, "learning_rate": 0.06, "n_iter": 4, "random_state": 0}
    raw, ours, theirs = (
        accuracy(),
        accuracy(BernoulliRBM(**params)),
        accuracy(neural_network.BernoulliRBM(**params)),
    )
    assert ours > raw + 0.03
    assert abs(ours - theirs) < 0.04
