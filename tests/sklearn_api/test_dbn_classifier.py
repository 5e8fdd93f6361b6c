"""DBNClassifier: its network by hand, its training by a plain loop, labels of any kind, unlabelled rows, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.datasets import load_digits
from torch import nn

from fanin.pretraining import DBN, DivergedError
from fanin.sklearn import DBNClassifier
from fanin.sklearn.supervised import train_epochs
from fanin.streams import Stream

DIGITS, CLASSES = load_digits(return_X_y=True)
X, Y = (DIGITS / 16)[:200], CLASSES[:200]


def model(**params: Any) -> DBNClassifier:
    return DBNClassifier(**{"hidden": (12, 8), "pretrain_iter": 2, "n_iter": 3, "random_state": 0} | params)


def test_probabilities_are_the_networks_by_hand() -> None:
    fitted = model().fit(X, Y)
    h = X
    layers = [part for part in fitted.network_ if isinstance(part, nn.Linear)]
    for layer in layers[:-1]:
        h = expit(h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())
    scores = h @ layers[-1].weight.detach().numpy().T + layers[-1].bias.detach().numpy()
    np.testing.assert_allclose(fitted.predict_proba(X), softmax(scores, axis=1), rtol=1e-9)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), fitted.predict_proba(X), rtol=1e-9)
    assert np.array_equal(fitted.predict(X), scores.argmax(1))
    assert [layer.out_features for layer in layers] == [12, 8, 10]
    assert (fitted.n_iter_, len(fitted.loss_curve_)) == (3, 3)


def test_pretraining_is_the_networks_start_and_sees_unlabelled_rows() -> None:
    more = (DIGITS / 16)[200:300]
    fitted = model().fit(X, Y, unlabelled=more)
    shared = {"lr": 0.1, "epochs": 2, "batch_size": 32, "dtype": torch.float64, "centered": False}
    alone = DBN((12, 8), **shared).fit(np.concatenate([X, more]))
    for mine, its in zip(fitted.dbn_.components_, alone.components_, strict=True):
        assert np.array_equal(mine, its)
    start = fitted.dbn_.to_sequential(10)[0].weight
    assert 0 < (fitted.network_[0].weight - start).abs().max() < 0.2, "fine-tuning moves it, a little"
    assert not np.array_equal(model().fit(X, Y).dbn_.components_[0], alone.components_[0])
    with pytest.raises(ValueError, match="63 features"):
        model().fit(X, Y, unlabelled=more[:, :63])


def test_training_is_a_plain_loop() -> None:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)).double()
    other = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)).double()
    other.load_state_dict(network.state_dict())
    rows, y = torch.rand(10, 4, dtype=torch.float64), torch.arange(10) % 2
    losses = train_epochs(network, rows, y, lr=0.1, weight_decay=0.01, batch=4, seed=5)
    found = [next(losses), next(losses)]
    optimizer = torch.optim.AdamW(other.parameters(), lr=0.1, weight_decay=0.01)
    for epoch in (1, 2):
        order = Stream(5, "order", epoch=epoch).permutation(10)
        seen = []
        for part in (order[:4], order[4:8], order[8:]):
            loss = -other(rows[part]).log_softmax(1)[torch.arange(len(part)), y[part]].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(float(loss.detach()))
        assert found[epoch - 1] == pytest.approx(np.mean(seen), rel=1e-12)
    for mine, its in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)


def test_labels_may_be_strings() -> None:
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    named, plain = model().fit(X, names[Y]), model().fit(X, Y)
    assert [*named.classes_] == sorted(names)
    assert set(named.predict(X)) <= set(names)
    binary = model(n_iter=60, learning_rate=0.01).fit(X[Y < 2], np.where(Y[Y < 2], "one", "zero"))
    assert binary.score(X[Y < 2], np.where(Y[Y < 2], "one", "zero")) == 1
    assert plain.predict_proba(X).shape == (200, 10)


def test_dropout_is_reproducible_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = model(dropout=0.5).fit(X, Y)
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(model(dropout=0.5).fit(X, Y).predict_proba(X), first.predict_proba(X))
    assert np.array_equal(first.predict_proba(X), first.predict_proba(X)), "no dropout in predictions"
    assert not np.array_equal(model().fit(X, Y).predict_proba(X), first.predict_proba(X))


def test_gaussian_units_take_real_data_as_they_are() -> None:
    real = np.random.default_rng(0).normal(5, 3, size=(60, 5))
    y = (real[:, 0] > 5).astype(int)
    fitted = model(visible="gaussian", n_iter=200, learning_rate=0.02).fit(real, y)
    assert fitted.scaling_ is None
    assert fitted.score(real, y) > 0.9
    assert model().fit(real, y).scaling_ is not None


def test_float32_stays_float32() -> None:
    fitted = model().fit(X.astype(np.float32), Y)
    assert fitted.predict_proba(X).dtype == np.float32
    assert model().fit(X, Y).predict_proba(X.astype(np.float32)).dtype == np.float64


def test_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    fitted = model(verbose=1).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"[DBNClassifier] Iteration {i + 1}, loss = {x:.4f}" for i, x in enumerate(fitted.loss_curve_)]


def test_what_it_refuses() -> None:
    with pytest.raises(TypeError, match="sample_weight"):
        model().fit(X, Y, sample_weight=np.ones(len(X)))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        model().fit(X, Y + 0.5)
    with pytest.raises(ValueError, match="learning_rate: expected a number > 0; got -1"):
        model(learning_rate=-1).fit(X, Y)
    with pytest.raises(ValueError, match="pretrain_iter: expected a number >= 1; got 0"):
        model(pretrain_iter=0).fit(X, Y)


def test_divergence_keeps_what_was_before() -> None:
    broken = model(learning_rate=1e308)
    with pytest.raises(DivergedError, match=r"fine-tuning: diverged in epoch 1, step \d .* lower learning") as found:
        broken.fit(X, Y)
    assert (found.value.model, found.value.where) == (broken, broken.divergence_)
    start = broken.dbn_.to_sequential(10)
    assert all(torch.equal(p, q) for p, q in zip(broken.network_.parameters(), start.parameters(), strict=True))
    assert broken.predict(X).shape == Y.shape
    assert model().fit(X, Y).divergence_ is None
    with pytest.raises(DivergedError, match="layer 1: diverged"):
        broken.set_params(pretrain_learning_rate=1e308, machine={"momentum": 0.9}).fit(X, Y)
    assert broken.dbn_.divergence_.layer == 1
