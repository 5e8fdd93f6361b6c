"""RBM as an estimator: scikit-learn's conventions, arrays in and out, and what it says to wrong input."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from fanin.pretraining import RBM
from tests.pretraining.rbm_oracle import bernoulli_log_likelihood, bits, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


def loaded(hidden: int = 3, visible: int = 5, **params) -> RBM:
    """A machine with known float64 parameters."""
    saved = state_of(hidden, visible, seed=2).to_dict()
    return RBM(hidden, dtype=torch.float64, **params).load_state_dict(saved)


X = (np.random.default_rng(0).random((40, 5)) < 0.4).astype(np.float32)


def test_parameters_are_stored_and_nothing_else_is_done():
    rbm = RBM(7, lr=0.3, method="no such method")
    assert rbm.get_params()["lr"] == 0.3
    assert rbm.set_params(lr=0.2, k=4).k == 4
    assert RBM(**rbm.get_params()).get_params() == rbm.get_params()
    with pytest.raises(ValueError, match="no parameter 'momentun'; did you mean 'momentum'"):
        rbm.set_params(momentun=1)
    with pytest.raises(ValueError, match="method: expected one of cd, pcd, fpcd, pt; got 'no such method'"):
        rbm.fit(X)


def test_scikit_learn_clones_and_pipes_it():
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rbm = RBM(4, batch_size=10, epochs=2)
    assert clone(rbm).get_params() == rbm.get_params()
    y = X[:, 0].astype(int)
    assert make_pipeline(rbm, LogisticRegression(C=100)).fit(X, y).score(X, y) > 0.5


def test_shapes_and_kinds():
    for data in (X, torch.from_numpy(X)):
        rbm = RBM(4, batch_size=10, epochs=1).fit(data)
        kind = type(data)
        assert isinstance(rbm.components_, kind)
        assert rbm.components_.shape == (4, 5)
        assert rbm.intercept_hidden_.shape == (4,)
        assert rbm.intercept_visible_.shape == (5,)
        assert rbm.n_features_in_ == 5
        assert rbm.log_sigma_ is None
        for values, shape in (
            (rbm.transform(data), (40, 4)),
            (rbm.reconstruct(data), (40, 5)),
            (rbm.free_energy(data), (40,)),
            (rbm.score_samples(data), (40,)),
            (rbm.gibbs(data), (40, 5)),
            (rbm.sample(3, steps=2), (3, 5)),
        ):
            assert isinstance(values, kind)
            assert tuple(values.shape) == shape


def test_means_and_free_energy_by_their_formulas():
    rbm, v = loaded(), bits(5)
    W, c, b = rbm.components_, rbm.intercept_hidden_, rbm.intercept_visible_
    h = 1 / (1 + np.exp(-(v.numpy() @ W.T + c)))
    np.testing.assert_allclose(rbm.transform(v.numpy()), h, rtol=1e-12)
    np.testing.assert_allclose(rbm.reconstruct(v.numpy()), 1 / (1 + np.exp(-(h @ W + b))), rtol=1e-12)
    by_sum = -np.log(sum(np.exp(v.numpy() @ (b + g @ W) + g @ c) for g in bits(3).numpy()))
    np.testing.assert_allclose(rbm.free_energy(v.numpy()), by_sum, rtol=1e-12)


def test_score_samples_is_unbiased_and_scikit_learns():
    rbm = loaded()
    v = bits(5)
    flips = torch.stack([rbm.free_energy((v + torch.eye(5)[i]) % 2) for i in range(5)], 1)
    one_bit = 5 * torch.nn.functional.logsigmoid(flips - rbm.free_energy(v)[:, None])
    score = rbm.score_samples(v)
    assert (torch.isclose(score[:, None], one_bit, rtol=1e-10).any(1)).all()
    many = v[:1].repeat(50000, 1)
    spread = float(one_bit[0].std()) / 50000**0.5
    assert float(rbm.score_samples(many).mean()) == pytest.approx(float(one_bit[0].mean()), abs=5 * spread)

    from sklearn.neural_network import BernoulliRBM

    theirs = BernoulliRBM(3)
    theirs.components_, theirs.intercept_hidden_ = rbm.components_, rbm.intercept_hidden_
    theirs.intercept_visible_ = rbm.intercept_visible_
    theirs.random_state, theirs.n_features_in_ = 0, 5
    assert theirs.score_samples(many.numpy()).mean() == pytest.approx(float(one_bit[0].mean()), abs=5 * spread)
    np.testing.assert_allclose(theirs.transform(v.numpy()), rbm.transform(v.numpy()))


def test_gibbs_and_sample_draw_anew_each_time_and_again_for_a_twin():
    rbm, twin, v = loaded(), loaded(), bits(5)
    first, second = rbm.gibbs(v), rbm.gibbs(v)
    assert not torch.equal(first, second)
    assert torch.equal(twin.gibbs(v), first)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not np.array_equal(rbm.sample(20, steps=3), rbm.sample(20, steps=3))


@pytest.mark.parametrize("params", [{}, {"visible": "gaussian"}, {"hidden": "rectified"}], ids=str)
def test_its_parameters_are_what_likelihoods_take(params):
    from fanin.pretraining.likelihood import free_energy, log_likelihood

    data = torch.from_numpy(X)
    rbm = RBM(3, batch_size=10, epochs=2, lr=1e-3, **params).fit(data)
    found = rbm.parameters()
    torch.testing.assert_close(free_energy(data, **found).float(), rbm.free_energy(data), rtol=1e-5, atol=1e-5)
    if not params:
        exact = log_likelihood(data, **found).mean()
        assert float(exact) == pytest.approx(bernoulli_log_likelihood(rbm._state, data), rel=1e-10)


def test_samples_have_the_machine_s_means():
    rbm, v = loaded(), bits(5)
    p = torch.softmax(-rbm.free_energy(v), 0)
    exact = (p @ v).numpy()
    drawn, means = rbm.sample(20000, steps=30), rbm.sample(20000, steps=30, means=True)
    assert np.abs(drawn.mean(0) - exact).max() < 0.02
    assert np.abs(means.mean(0) - exact).max() < 0.02
    assert 0 < means.min() < means.max() < 1
    assert np.abs(v.mean(0).numpy() - exact).max() > 0.1  # no trivial distribution


def test_copies_and_pickles():
    rbm = RBM(4, batch_size=10, epochs=1).fit(X)
    for other in (copy.deepcopy(rbm), pickle.loads(pickle.dumps(rbm))):
        np.testing.assert_array_equal(other.transform(X), rbm.transform(X))
        np.testing.assert_array_equal(other.partial_fit(X).components_, copy.deepcopy(rbm).partial_fit(X).components_)


def test_fit_starts_anew_unless_warm():
    rbm = RBM(4, batch_size=10, epochs=2).fit(X)
    once = rbm.components_.copy()
    np.testing.assert_array_equal(rbm.fit(X).components_, once)
    assert len(rbm.history_) == 2
    rbm.set_params(warm_start=True, epochs=3).fit(X)
    assert len(rbm.history_) == 3
    assert not np.array_equal(rbm.components_, once)


@pytest.mark.parametrize("kind", ["gaussian", "categorical", "rectified"])
def test_other_visible_units(kind):
    rng = np.random.default_rng(0)
    data = {
        "gaussian": rng.normal(size=(40, 6)),
        "rectified": np.abs(rng.normal(size=(40, 6))),
        "categorical": np.eye(3)[rng.integers(0, 3, (40, 2))].reshape(40, 6),
    }[kind]
    rbm = RBM(4, visible=kind, categories=3 if kind == "categorical" else None, batch_size=10, lr=1e-3, epochs=2)
    sample = rbm.fit(data).sample(30, steps=5)
    assert np.isfinite(sample).all()
    assert rbm.transform(data).shape == (40, 4)
    if kind == "categorical":
        np.testing.assert_array_equal(sample.reshape(30, 2, 3).sum(-1), 1)
    assert (rbm.log_sigma_ is not None) == (kind == "gaussian")
    assert (sample.min() < 0) == (kind == "gaussian")
    with pytest.raises(ValueError, match="score_samples: expected Bernoulli"):
        rbm.score_samples(data)


@pytest.mark.parametrize(
    ("params", "data", "message"),
    [
        ({}, X * 255, "values between 0 and 1; got 0 to 255: scale them"),
        ({}, np.where(X > 0, np.nan, X), r"X: expected finite numbers; got nan in row 0, column \d: drop such rows"),
        ({}, X[:5], "at least batch_size = 10 rows; got 5"),
        ({}, X[0], r"expected a matrix of rows and features, none of them zero; got shape \(5,\)"),
        ({}, X[:, :0], "none of them zero"),
        ({"k": 0}, X, "k: expected a number >= 1; got 0"),
        ({"lr": -1.0}, X, "lr: expected a number > 0"),
        ({"momentum": 1.0}, X, "momentum: expected 0 <= number < 1; got 1.0"),
        ({"nesterov": True}, X, "nesterov: expected momentum > 0"),
        ({"sparsity": 1.5}, X, "sparsity: expected None or 0 < target < 1"),
        ({"method": "cd", "chains": 3}, X, "chains: CD starts one at each row"),
        ({"method": "pt", "visible": "gaussian"}, X, "method='pt': expected Bernoulli units"),
        ({"method": "pt", "temperatures": (1.0, 1.0)}, X, "temperatures: expected inverse temperatures that fall"),
        ({"method": "pt", "temperatures": 1}, X, "temperatures: expected a number >= 2"),
        ({"visible": "gaussian", "hidden": "rectified"}, X, "no normalisable distribution"),
        ({"visible": "gaussian"}, np.c_[X, np.full(40, 0.1)], r"got 1 constant ones \(first: \[5\]\)"),
        ({"visible": "gaussian", "binarize": "sample"}, X, "binarize: expected None for gaussian units"),
        ({"visible": "rectified"}, -X, "values >= 0; got -1"),
        ({"visible": "categorical", "categories": 2}, X, "categories: expected a number >= 2 that divides 5"),
        ({"visible": "categorical", "categories": 5}, X, "to sum to 1"),
        ({"precision": "fp16"}, X, "precision: expected one of fp32, bf16; got 'fp16'; did you mean"),
    ],
)
def test_wrong_input_is_told(params, data, message):
    with pytest.raises(ValueError, match=message):
        RBM(4, **({"batch_size": 10, "epochs": 1} | params)).fit(data)


def test_wrong_input_after_fitting():
    with pytest.raises(ValueError, match="not fitted yet"):
        RBM(4).transform(X)
    rbm = RBM(4, batch_size=10, epochs=1).fit(X)
    with pytest.raises(ValueError, match="expected 5 features, as fitted; got 4"):
        rbm.transform(X[:, :4])
    with pytest.raises(ValueError, match="expected 5 features"):
        rbm.partial_fit(X[:, :4])
    with pytest.raises(ValueError, match="held_out: bernoulli visible units expect values between 0 and 1"):
        RBM(4, batch_size=10).fit(X, held_out=X - 1)
    with pytest.raises(TypeError, match="expected an array of real numbers"):
        rbm.transform(np.array([["a"]]))
    with pytest.raises(ValueError, match="intercept_visible missing"):
        RBM(4).load_state_dict({"components": torch.zeros(4, 5), "intercept_hidden": torch.zeros(4)})
    with pytest.raises(ValueError, match="expected 3 rows, n_components; got 4"):
        RBM(3).load_state_dict(rbm.state_dict())
    saved = rbm.state_dict() | {"intercept_visible": torch.zeros(4)}
    with pytest.raises(ValueError, match=r"intercept_visible: expected shape \(5,\); got \(4,\)"):
        RBM(4).load_state_dict(saved)
