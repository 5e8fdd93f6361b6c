"""DBN: a stack of RBMs as they are alone, its modules, its states, its samples, and the bound by enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, logsumexp, xlogy
from sklearn.base import clone
from torch import nn

from fanin.pretraining.boltzmann.rbm import RBM
from fanin.pretraining.dbn import DBN
from fanin.pretraining.divergence import DivergedError

pytestmark = pytest.mark.usefixtures("one_thread")


def data(rows: int = 40, features: int = 6) -> np.ndarray:
    return (np.random.default_rng(2).uniform(size=(rows, features)) < 0.4).astype(np.float32)


def model(**params: Any) -> DBN:
    return DBN(**{"hidden": (5, 4), "batch_size": 10, "epochs": 2} | params)


def weights(fitted: DBN) -> list[np.ndarray]:
    return [*fitted.components_, *fitted.intercept_hidden_, *fitted.intercept_visible_]


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_machines_are_those_that_would_be_trained_alone() -> None:
    fitted = model(lr=(0.05, 0.02), epochs=(2, 3), machine={"sparsity": 0.1}).fit(data())
    shared = {"method": "cd", "centered": False, "batch_size": 10, "sparsity": 0.1}
    first = RBM(5, lr=0.05, epochs=2, **shared).fit(data())
    second = RBM(4, lr=0.02, epochs=3, seed=fitted.machines_[1].seed, **shared).fit(first.transform(data()))
    alone = [first.components_, second.components_, first.intercept_hidden_, second.intercept_hidden_]
    assert equal(weights(fitted)[:4], alone)
    assert np.array_equal(fitted.transform(data()), second.transform(first.transform(data())))
    assert [(e["layer"], e["epoch"]) for e in fitted.history_] == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    assert fitted.machines_[1].seed != fitted.machines_[0].seed == 0
    assert not any(m.centered for m in fitted.machines_)
    assert all(m.centered for m in model(centered=True).fit(data()).machines_)
    assert all(m.centered for m in model(machine={"centered": True}).fit(data()).machines_)
    assert not equal(weights(model(lr=(0.05, 0.02), epochs=(2, 3)).fit(data()))[:4], alone)


def test_partial_fits_are_a_fit_and_the_state_resumes_bit_for_bit() -> None:
    params = {"method": "pcd", "momentum": 0.5, "epochs": (1, 2), "upward": "samples"}
    whole, one = model(**params).fit(data()), model(**params)
    for done in range(1, 4):
        one.partial_fit(data())
        other = model(**params, warm_start=True).load_state_dict(one.state_dict()).fit(data())
        assert equal(weights(other), weights(whole)), f"resumed after {done} epochs"
    assert equal(weights(one), weights(whole))
    assert not equal(weights(one.partial_fit(data())), weights(whole))
    assert equal(weights(one.fit(data())), weights(whole)), "fit starts anew"


def test_upward_samples_differ_from_means() -> None:
    means, samples = model().fit(data()), model(upward="samples").fit(data())
    assert np.array_equal(means.components_[0], samples.components_[0])
    assert not np.array_equal(means.components_[1], samples.components_[1])


def real() -> np.ndarray:
    return np.random.default_rng(7).normal(2.0, [0.5, 1, 2, 3, 1, 1], size=(40, 6))


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_modules_compute_what_the_model_does(visible: str) -> None:
    rows = torch.from_numpy(data() if visible == "bernoulli" else real()).double()
    fitted = model(visible=visible, dtype=torch.float64, lr=0.05, epochs=5).fit(rows)
    codes = fitted.transform(rows)
    with torch.no_grad():
        torch.testing.assert_close(fitted.to_sequential(dropout=0.5).eval()(rows), codes, rtol=0, atol=1e-10)
        torch.testing.assert_close(fitted.decoder()(codes), fitted.inverse_transform(codes), rtol=0, atol=1e-10)
        torch.testing.assert_close(fitted.unrolled()(rows), fitted.inverse_transform(codes), rtol=0, atol=1e-10)
        assert not torch.allclose(fitted.to_sequential()(rows + 0.1), codes, rtol=0, atol=1e-10)
    assert isinstance(list(fitted.decoder())[-1], nn.Sigmoid if visible == "bernoulli" else nn.Linear)


def test_single_precision_modules_agree_to_a_millionth() -> None:
    rows = torch.from_numpy(data())
    fitted = model(hidden=(50, 40, 30)).fit(rows)
    mlp = fitted.to_sequential(classes=3)
    assert [m.out_features for m in mlp if isinstance(m, nn.Linear)] == [50, 40, 30, 3]
    with torch.no_grad():
        torch.testing.assert_close(mlp[:-1](rows), fitted.transform(rows), rtol=0, atol=1e-6)


def test_codes_are_those_of_the_definition() -> None:
    fitted, codes = model().fit(data()), data().astype(np.float64)
    for W, c in zip(fitted.components_, fitted.intercept_hidden_, strict=True):
        codes = expit(codes @ W.T + c)
    np.testing.assert_allclose(fitted.transform(data()), codes, atol=1e-6)
    for W, b in zip(fitted.components_[::-1], fitted.intercept_visible_[::-1], strict=True):
        codes = expit(codes @ W + b)
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(data())), codes, atol=1e-6)


def states(n: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def machine_logs(W: np.ndarray, c: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p(v) of all visible states, and log p(v | h) (h, v), of a Bernoulli machine."""
    v = states(len(b))
    unnormalised = v @ b + np.logaddexp(0, v @ W.T + c).sum(1)
    inputs = states(len(c)) @ W + b
    conditional = inputs @ v.T - np.logaddexp(0, inputs).sum(1, keepdims=True)
    return unnormalised - logsumexp(unnormalised), conditional


def bound_and_truth(fitted: DBN, x: np.ndarray) -> tuple[float, float]:
    """Mean over rows of E_q[log p(v | h) + log p(h) - log q(h | v)], and of log p(v) itself, of two machines."""
    (W1, W2), (c1, c2), (b1, b2) = (
        [p.astype(float) for p in part]
        for part in (fitted.components_, fitted.intercept_hidden_, fitted.intercept_visible_)
    )
    prior, _ = machine_logs(W2, c2, b2)
    _, given_h = machine_logs(W1, c1, b1)
    place = (x @ 2 ** np.arange(x.shape[1])[::-1]).astype(int)
    q1 = expit(x @ W1.T + c1)
    h = states(len(c1))
    q = np.exp(xlogy(h[None], q1[:, None]).sum(2) + xlogy(1 - h[None], 1 - q1[:, None]).sum(2))
    bound = (q * (given_h[:, place].T + prior[None]) - xlogy(q, q)).sum(1).mean()
    return bound, logsumexp(given_h[:, place].T + prior[None], axis=1).mean()


def test_a_second_machine_from_the_transposed_first_never_lowers_the_bound() -> None:
    """At its start the bound is the first machine's own log-likelihood, exactly; training raises it (section 4)."""
    x = data(200, 5)
    x[:, 3], x[:, 4] = x[:, 0] * x[:, 1], 1 - x[:, 2]
    rng = np.random.default_rng(0)
    W, c, b = 1.5 * rng.normal(size=(3, 5)), rng.normal(size=3), rng.normal(size=5)
    given = {"components": W, "intercept_hidden": c, "intercept_visible": b}
    first = {name: torch.from_numpy(value) for name, value in given.items()}
    state = {"machines": [first | {"epoch": 1}], "draws": 0}

    def trained(epochs: int, **params: Any) -> list[tuple[float, float]]:
        machine = {"method": "pcd", "chains": 500, "k": 2}
        params = {"lr": 0.02, "transposed": True, "upward": "samples", "batch_size": 20, "machine": machine} | params
        network = model(hidden=(3, 5), epochs=(1, epochs), dtype=torch.float64, **params).load_state_dict(state)
        found = []
        for _ in range(epochs // 5):
            for _ in range(5):
                network.partial_fit(x)
            found.append(bound_and_truth(network, x))
        return found

    alone, _ = machine_logs(W, c, b)
    likelihood = alone[(x @ 2 ** np.arange(5)[::-1]).astype(int)].mean()
    start, truth = trained(5, lr=1e-12)[0]
    assert truth == pytest.approx(likelihood, abs=1e-7)
    assert start == pytest.approx(truth, abs=1e-7), "q is the exact posterior of transposed weights"
    bounds = trained(30)
    rising = [start, *(bound for bound, _ in bounds)]
    assert all(after > before for before, after in itertools.pairwise(rising)), rising
    assert all(bound < truth for bound, truth in bounds)
    assert rising[-1] > start + 0.4
    other = trained(5, transposed=False, lr=1e-12)[0]
    assert other[0] != pytest.approx(likelihood, abs=0.01), "small weights are another network"


def test_samples_have_the_distribution_of_the_network() -> None:
    """p(v) = sum_h p(v | h) p(h), by enumeration: a chi-square test over all 16 states."""
    x = data(40, 4)
    x[:, 1], x[:, 3] = x[:, 0], 1 - x[:, 2]
    fitted = model(hidden=(3, 2), epochs=(60, 5), lr=0.5, dtype=torch.float64).fit(x)
    prior, given_h = (
        machine_logs(fitted.components_[i], fitted.intercept_hidden_[i], fitted.intercept_visible_[i]) for i in (1, 0)
    )
    p = np.exp(given_h[1] + prior[0][:, None]).sum(0)
    drawn = fitted.sample(20_000, steps=40)
    assert drawn.shape == (20_000, 4)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    counts = np.bincount((drawn @ 2 ** np.arange(4)[::-1]).astype(int), minlength=16)
    assert stats.chisquare(counts, 20_000 * p).pvalue > 1e-4
    wrong = np.exp(machine_logs(fitted.components_[0], fitted.intercept_hidden_[0], fitted.intercept_visible_[0])[0])
    assert stats.chisquare(counts, 20_000 * wrong).pvalue < 1e-4, "the first machine alone is another distribution"
    means = fitted.sample(20_000, steps=40, means=True)
    np.testing.assert_allclose(means.mean(0), states(4).T @ p, atol=0.015)
    assert not set(np.unique(means)) <= {0.0, 1.0}


def test_a_single_machine_samples_as_it_would_alone() -> None:
    fitted = model(hidden=(5,), lr=0.5, epochs=20).fit(data())
    alone = RBM(5, method="cd", batch_size=10).load_state_dict(fitted.machines_[0].state_dict())
    drawn = fitted.sample(30, steps=7)
    assert np.array_equal(drawn, alone.sample(30, steps=7))
    assert not np.array_equal(drawn, alone.load_state_dict(alone.state_dict() | {"draws": 0}).sample(30, steps=6))
    assert not np.array_equal(drawn, fitted.sample(30, steps=7)), "equal calls differ"


def test_parameters_and_arrays() -> None:
    made = model(machine={"k": 2})
    assert clone(made).get_params() == made.get_params()
    assert isinstance(made.fit(torch.from_numpy(data())).transform(torch.from_numpy(data())), torch.Tensor)
    assert isinstance(made.transform(data()), np.ndarray)
    assert np.array_equal(made.fit_transform(data()), made.transform(data()))


def test_divergence_is_recorded() -> None:
    broken = model(lr=(0.05, 3e38), momentum=0.9)
    with pytest.raises(DivergedError, match=r"layer 2: diverged in epoch 1, step \d .* lower lr") as caught:
        broken.fit(data())
    found = broken.divergence_
    assert found == caught.value.where
    assert (found.layer, found.epoch) == (2, 1)
    assert caught.value.model is broken
    first = model(hidden=(5,), lr=0.05, momentum=0.9).fit(data())
    assert equal(weights(broken), weights(first)), "the layers before it are kept"
    mended = broken.set_params(lr=0.05, warm_start=True).fit(data())
    assert mended.divergence_ is None
    assert equal(weights(mended), weights(model(lr=0.05, momentum=0.9).fit(data())))


def test_a_network_whose_first_epoch_diverges_is_as_before_it() -> None:
    broken = model(visible="gaussian", lr=(1e30, 0.05))
    for attempt in (broken.fit, broken.partial_fit):
        with pytest.raises(DivergedError, match="layer 1: diverged in epoch 1"):
            attempt(real())
        assert broken.machines_ == []
    assert len(broken.set_params(lr=1e-3).fit(real()).machines_) == 2


def test_epochs_one_by_one_are_a_fit() -> None:
    whole, one = model().fit(data()), model()
    seen = []
    for entry in one.fit_epochs(data(), held_out=data()[:20]):
        seen.append((entry["layer"], entry["epoch"]))
        assert one.history_[-1] == entry
        assert one.transform(data()).shape == (40, 5 if entry["layer"] == 1 else 4)
    assert seen == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert equal(weights(one), weights(whole))
    gaps = [e["free_energy_gap"] for e in one.history_]
    codes = (one.machines_[0].transform(x) for x in (data()[:20], data()))
    held_out, seen_by_it = (one.machines_[1].free_energy(x).mean() for x in codes)
    assert gaps[-1] == pytest.approx(float(held_out - seen_by_it), abs=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hidden": ()}, "hidden: expected widths"),
        ({"upward": "both"}, "upward: expected means or samples"),
        ({"lr": (0.1, 0.1, 0.1)}, "lr: expected one value, or one for each of 2"),
        ({"method": "xcd"}, "method"),
        ({"batch_size": 41}, "rows; got 40"),
    ],
)
def test_what_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**params).fit(data())


def test_before_a_fit_and_with_the_wrong_data() -> None:
    for ask in (lambda m: m.transform(data()), lambda m: m.components_, lambda m: m.unrolled(), lambda m: m.sample(2)):
        with pytest.raises(ValueError, match="not fitted yet"):
            ask(model())
    fitted = model().fit(data())
    with pytest.raises(ValueError, match="expected 6 features"):
        fitted.transform(data()[:, :5])
    with pytest.raises(ValueError, match="expected 1 to 1 machines; got 2"):
        model(hidden=(5,)).load_state_dict(fitted.state_dict())
    rectified = model(machine={"hidden": "rectified"}, hidden=(5,)).fit(data())
    with pytest.raises(ValueError, match="expected bernoulli hidden units, whose mean is a sigmoid; got 'rectified'"):
        rectified.to_sequential()
    categorical = model(visible="categorical", machine={"categories": 2}, hidden=(5,))
    with pytest.raises(ValueError, match="decoder: expected bernoulli or gaussian visible units; got 'categorical'"):
        categorical.fit(np.stack([data()[:, :3], 1 - data()[:, :3]], axis=2).reshape(40, 6)).decoder()
