"""Training as a whole: what is learnt, resuming to the bit, chains that persist, data as it comes, divergence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fanin.pretraining import RBM, DivergedError
from fanin.pretraining.boltzmann.chains import Tempered
from fanin.pretraining.likelihood import free_energy_gap, reconstruction_error
from fanin.record import Divergence
from tests.pretraining.rbm_oracle import (
    bars_and_stripes,
    bernoulli_log_likelihood,
    bits,
    exact_samples,
    state_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def tensors(rbm: RBM) -> dict[str, torch.Tensor]:
    """Every tensor of a state, nested names joined."""
    found = {}
    for name, value in rbm.state_dict().items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": t for key, t in value.items()}
        elif isinstance(value, torch.Tensor):
            found[name] = value
    return found


def small_data(rows: int = 60, features: int = 7, seed: int = 0) -> torch.Tensor:
    return (torch.rand(rows, features, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


def test_bars_and_stripes_are_learnt_nearly_exactly():
    """14 pictures of 3 x 3 pixels: no machine exceeds log(1 / 14) = -2.639 nats."""
    patterns = bars_and_stripes(3)
    assert len(patterns) == 14
    X = patterns.repeat(20, 1)
    rbm = RBM(16, batch_size=70, chains=200, epochs=250, lr=0.3, schedule="linear", momentum=0.5).fit(X)
    learnt, best = bernoulli_log_likelihood(rbm._state, patterns), -math.log(14)
    assert best - 0.4 < learnt < best
    assert bernoulli_log_likelihood(RBM(16, epochs=1, batch_size=70).fit(X)._state, patterns) < best - 2


@pytest.mark.parametrize("method", ["pcd", "fpcd", "pt"])
def test_no_drift_from_its_own_distribution(method):
    """A machine that starts at the teacher and sees the teacher's own samples stays there."""
    teacher = state_of(3, 5, seed=4, scale=1.0)
    X = exact_samples(teacher, 20000, seed=0)
    best = bernoulli_log_likelihood(teacher, X)
    start = {name: t for name, t in teacher.to_dict().items() if name in teacher.parameters()}
    options = {"method": method, "lr": 0.02, "batch_size": 200, "temperatures": 4, "fast_lr": 0.02}
    rbm = RBM(3, epochs=8, dtype=torch.float64, warm_start=True, **options).load_state_dict(start).fit(X)
    assert not torch.equal(rbm._state.components, teacher.components)
    assert best - 0.01 < bernoulli_log_likelihood(rbm._state, X) < best + 0.01
    away = state_of(3, 5, seed=5, scale=1.0)
    assert bernoulli_log_likelihood(away, X) < best - 0.5


def sparse_crosses(rows: int) -> torch.Tensor:
    """3 x 3 pictures in which each row and each column is on with probability 0.15."""
    g = torch.Generator().manual_seed(0)
    across, down = (torch.rand(rows, *shape, generator=g) < 0.15 for shape in ((3, 1), (1, 3)))
    return (across | down).float().view(rows, 9)


def test_inverted_data_gives_the_same_machine_only_if_centred():
    """Sparse data and their negative: equally good when centred; without, the negative is learnt worse."""
    X = sparse_crosses(2000)

    def learnt(data: torch.Tensor, centered: bool) -> float:
        return bernoulli_log_likelihood(RBM(6, centered=centered, epochs=40, lr=0.1).fit(data)._state, data)

    gap = {centered: learnt(X, centered) - learnt(1 - X, centered) for centered in (True, False)}
    assert abs(gap[True]) < 0.03
    assert gap[False] > 0.2


def test_gaussian_units_learn_means_deviations_and_a_mixture():
    """Two clusters: one hidden unit suffices, and beats the best single Gaussian by nearly log 2 less the overlap."""
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 4000)
    X = np.stack([3.0 * z - 1.5, 100 + 30.0 * z], 1) + rng.normal(size=(4000, 2)) * [0.5, 5.0]
    rbm = RBM(1, visible="gaussian", lr=0.05, epochs=20, batch_size=100, dtype=torch.float64).fit(X)
    assert np.exp(rbm.log_sigma_) == pytest.approx([0.5, 5.0], rel=0.15)
    assert np.abs(rbm.components_[0]) == pytest.approx([3.0, 30.0], rel=0.15)
    single = X.std(0)
    best_single = -np.log(single).sum() - 1 - math.log(2 * math.pi)
    log_z = torch.logsumexp(torch.stack([-hidden_free(rbm, h) for h in bits(1)]), 0)
    learnt = float(-rbm.free_energy(X).mean() - log_z)
    assert learnt > best_single + 1.0


def hidden_free(rbm: RBM, h: torch.Tensor) -> torch.Tensor:
    from fanin.pretraining.boltzmann.energy import hidden_free_energy
    from fanin.pretraining.boltzmann.units import Gaussian

    s = rbm._state
    units = Gaussian(s.log_sigma)
    return hidden_free_energy(h, s.components, s.intercept_hidden, s.intercept_visible, visible=units)


METHODS = {
    "cd": {"method": "cd", "k": 2},
    "pcd": {"method": "pcd", "momentum": 0.5, "binarize": "sample"},
    "fpcd": {"method": "fpcd", "chains": 7, "schedule": "linear"},
    "pt": {"method": "pt", "temperatures": 3, "nesterov": True, "momentum": 0.3},
    "gaussian": {"visible": "gaussian", "lr": 0.001, "momentum": 0.5},
    "bf16": {"precision": "bf16"},
    "rectified": {"hidden": "rectified"},
}


@pytest.mark.parametrize("case", METHODS)
def test_resuming_after_any_epoch_is_the_same_to_the_bit(case):
    X = torch.rand(60, 7, generator=torch.Generator().manual_seed(0))
    params = {"n_components": 5, "batch_size": 20, "epochs": 4} | METHODS[case]
    whole = RBM(**params).fit(X)
    for stop in (1, 2, 3):
        first = RBM(**params)
        for _ in range(stop):
            first.partial_fit(X)
        second = RBM(**params, warm_start=True).load_state_dict(first.state_dict()).fit(X)
        assert tensors(second).keys() == tensors(whole).keys()
        for name, t in tensors(whole).items():
            assert torch.equal(t, tensors(second)[name]), name
        assert not torch.equal(first._state.components, whole._state.components)
        assert [e["epoch"] for e in second.history_] == [1, 2, 3, 4]
        assert np.array_equal(second.sample(3, steps=2), whole.sample(3, steps=2).numpy()) or stop > 1


def test_a_saved_state_is_a_copy_and_survives_a_file(tmp_path):
    X = small_data()
    rbm = RBM(4, batch_size=20, epochs=1, momentum=0.5).fit(X)
    saved = rbm.state_dict()
    before = saved["components"].clone()
    rbm.partial_fit(X)
    assert torch.equal(saved["components"], before)
    assert not torch.equal(rbm._state.components, before)
    torch.save(saved, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    again = RBM(4, batch_size=20, epochs=1, momentum=0.5).load_state_dict(loaded).partial_fit(X)
    assert torch.equal(again._state.components, rbm._state.components)


def test_a_start_of_one_s_own_gets_offsets_and_chains():
    X = small_data()
    start = {n: t for n, t in state_of(4, 7, seed=1).to_dict().items() if n.startswith(("comp", "inter"))}
    rbm = RBM(4, batch_size=20, epochs=1, lr=1e-12, offset_rate=0.0, warm_start=True).load_state_dict(start).fit(X)
    torch.testing.assert_close(rbm._state.components.double(), start["components"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rbm._state.offset_visible, X.mean(0))
    expected = torch.sigmoid(X.double().mean(0) @ start["components"].T + start["intercept_hidden"])
    torch.testing.assert_close(rbm._state.offset_hidden.double(), expected, rtol=1e-5, atol=1e-6)
    rbm.set_params(chains=7, epochs=2).fit(X)  # another number of chains: fresh ones
    assert rbm._state.chains.shape == (7, 4)
    for method, fast in (("fpcd", True), ("pcd", False), ("cd", False)):  # and what another method does not want goes
        rbm.set_params(method=method, epochs=rbm.epochs + 1, chains=20).fit(X)
        assert bool(rbm._state.fast) == fast
        assert (rbm._state.chains is None) == (method == "cd")


def test_chains_persist_for_pcd_and_not_for_cd():
    X = small_data()
    pcd = RBM(4, batch_size=20, epochs=1, lr=1e-12).fit(X)
    first = pcd._state.chains.clone()
    pcd.partial_fit(X)
    assert first.shape == (20, 4)
    assert not torch.equal(pcd._state.chains, first)
    other = RBM(4, batch_size=20, epochs=2, lr=1e-12).fit(1 - X)
    assert other._state.chains.shape == (20, 4)
    assert RBM(4, method="cd", batch_size=20, epochs=1).fit(X)._state.chains is None
    # chains never see the data: with a vanishing rate they are the same, whatever data of equal means there are
    shuffled = X[:, :].clone()
    shuffled[:, 0] = X[torch.randperm(len(X), generator=torch.Generator().manual_seed(1)), 0]
    same = RBM(4, batch_size=20, epochs=1, lr=1e-12).fit(shuffled)
    assert torch.equal(same._state.chains, first)


def test_training_is_the_same_whatever_the_form_of_the_data():
    X = small_data()
    params = {"n_components": 4, "batch_size": 20, "epochs": 2}
    whole = RBM(**params).fit(X)._state.components
    forms = (X.numpy(), X.bool(), X.to(torch.uint8).numpy(), X.double().numpy(), X.long(), np.asfortranarray(X.numpy()))
    for form in forms:
        assert torch.equal(RBM(**params).fit(form)._state.components, whole)
    read_only = X.numpy().copy()
    read_only.flags.writeable = False
    assert torch.equal(RBM(**params).fit(read_only)._state.components, whole)


@pytest.mark.parametrize("k", [1, 2])
def test_tempered_training_offers_every_pair_of_neighbours(k, monkeypatch):
    offered = []
    swap = Tempered.swap

    def recorded(self, h, uniforms, *, parity):
        offered.append(parity % 2)
        swap(self, h, uniforms, parity=parity)

    monkeypatch.setattr(Tempered, "swap", recorded)
    RBM(4, method="pt", temperatures=4, k=k, batch_size=20, epochs=2).fit(small_data())
    assert len(offered) == 2 * 3 * k
    assert min(offered.count(0), offered.count(1)) >= len(offered) // 3


def test_binarize():
    X = torch.rand(60, 7, generator=torch.Generator().manual_seed(0))
    params = {"n_components": 4, "batch_size": 20, "epochs": 2}
    threshold = RBM(**params, binarize="threshold").fit(X)._state.components
    assert torch.equal(threshold, RBM(**params).fit((X > 0.5).float())._state.components)
    sampled = RBM(**params, binarize="sample").fit(X)._state.components
    assert not torch.equal(sampled, RBM(**params).fit(X)._state.components)
    sure = (X > 0.5).float()  # pixels that are 0 or 1 are drawn as they are
    assert torch.equal(RBM(**params, binarize="sample").fit(sure)._state.components, threshold)


def test_visible_biases_start_at_the_data():
    X = small_data(60)
    X[:, 0] = 0
    X[:, 1] = 1
    rbm = RBM(4, batch_size=20, lr=1e-12, epochs=1, centered=False).fit(X)
    counts = X.sum(0).double()
    expected = torch.log((counts + 1) / (61 - counts))
    torch.testing.assert_close(rbm.intercept_visible_.double(), expected, rtol=1e-5, atol=1e-6)
    centred = RBM(4, batch_size=20, lr=1e-12, epochs=1).fit(X)
    at_rest = centred.intercept_visible_ + centred._state.offset_hidden @ centred.components_
    torch.testing.assert_close(at_rest.double(), expected, rtol=1e-3, atol=1e-3)
    gaussian = RBM(4, visible="gaussian", batch_size=20, lr=1e-12, epochs=1, centered=False).fit(X[:, 2:])
    torch.testing.assert_close(gaussian.intercept_visible_, X[:, 2:].mean(0))
    torch.testing.assert_close(gaussian.log_sigma_, X[:, 2:].std(0, correction=0).log(), rtol=1e-5, atol=1e-6)


def test_divergence_stops_and_leaves_the_last_finite_epoch():
    X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    lr = lambda epoch: 1e-3 if epoch < 3 else 1e30  # noqa: E731
    good = RBM(4, visible="gaussian", batch_size=20, epochs=2, lr=lr).fit(X)
    assert good.divergence_ is None
    bad = RBM(4, visible="gaussian", batch_size=20, epochs=5, lr=lr)
    with pytest.raises(DivergedError, match=r"RBM: diverged in epoch 3, step \d .* lower lr \(now 1e\+30\)") as caught:
        bad.fit(X)
    assert caught.value.model is bad
    assert caught.value.where == bad.divergence_
    assert isinstance(bad.divergence_, Divergence)
    assert bad.divergence_.epoch == 3
    assert 1 <= bad.divergence_.step <= 3
    assert len(bad.history_) == bad.epochs_ == 2
    for name, t in tensors(good).items():
        assert torch.equal(t, tensors(bad)[name]), name


def test_schedules():
    rates = {
        s: [RBM(lr=0.1, epochs=4, schedule=s)._options().rate(e) for e in (1, 2, 4)] for s in ("linear", "inverse")
    }
    assert rates["linear"] == pytest.approx([0.1, 0.075, 0.025])
    assert rates["inverse"] == pytest.approx([0.1, 0.1 / 3.5, 0.1 / 8.5])
    assert RBM(lr=lambda e: 1 / e)._options().rate(4) == 0.25


def test_the_history_watches_overfitting():
    X, aside = small_data(40, 30, seed=0), small_data(40, 30, seed=1)  # of the same distribution, and few
    rbm = RBM(30, batch_size=10, epochs=60, lr=0.2, momentum=0.5).fit(X, held_out=aside)
    gaps = [e["free_energy_gap"] for e in rbm.history_]
    assert gaps[-1] > gaps[0] + 0.5
    assert gaps[-1] == pytest.approx(float(rbm.free_energy(aside).mean() - rbm.free_energy(X).mean()), rel=1e-4)
    last = rbm.history_[-1]
    assert last["reconstruction_error"] == pytest.approx(float((rbm.reconstruct(X) - X).square().mean()), rel=1e-5)
    assert last["pseudo_likelihood"] == pytest.approx(float(rbm.score_samples(X).mean()), rel=1e-5)
    assert last["pseudo_likelihood"] > rbm.history_[0]["pseudo_likelihood"]


def test_the_history_says_what_likelihood_says_in_double_precision():
    X, aside = small_data(40, 30, seed=0), small_data(40, 30, seed=1)
    rbm = RBM(30, batch_size=10, epochs=3, lr=0.2).fit(X, held_out=aside)
    gap = free_energy_gap(torch.as_tensor(X), torch.as_tensor(aside), **rbm.parameters())
    errors = reconstruction_error(torch.as_tensor(X), **rbm.parameters())
    assert rbm.history_[-1]["free_energy_gap"] == pytest.approx(gap, abs=1e-5)
    assert rbm.history_[-1]["reconstruction_error"] == pytest.approx(float(errors.mean()) / X.shape[1], rel=1e-6)
    assert rbm.history_[0]["free_energy_gap"] != pytest.approx(gap, abs=1e-5)
    assert rbm.history_[0]["reconstruction_error"] != pytest.approx(float(errors.mean()) / X.shape[1], rel=1e-6)


def test_sparsity_lowers_activity():
    X = small_data(200)
    active = [
        float(
            RBM(8, sparsity=target, sparsity_strength=2.0, batch_size=20, epochs=40, lr=0.05).fit(X).transform(X).mean()
        )
        for target in (None, 0.1)
    ]
    assert active[1] < 0.15 < active[0]
