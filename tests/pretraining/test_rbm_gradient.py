"""The gradient: by enumeration, finite differences, autograd, a slow loop, and by long chains."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate
from torch import Tensor

from fanin.pretraining.boltzmann import energy
from fanin.pretraining.boltzmann.options import Options
from fanin.pretraining.boltzmann.start import add_companions
from fanin.pretraining.boltzmann.state import State
from fanin.pretraining.boltzmann.training import Trainer
from fanin.pretraining.boltzmann.uniforms import Uniforms
from fanin.pretraining.boltzmann.units import hidden_units, visible_units
from tests.pretraining.rbm_oracle import bits, one_hots, options_of, state_of

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {
    "bernoulli": {},
    "gaussian": {"visible": "gaussian"},
    "categorical": {"visible": "categorical", "categories": 2},
    "rectified visible": {"visible": "rectified"},
    "rectified hidden": {"hidden": "rectified"},
}
H, V = 3, 4


def machine_of(kind: str) -> tuple[Options, State]:
    options = options_of(n_components=H, **KINDS[kind])
    return options, state_of(H, V, seed=7, scale=0.6, sigma=kind == "gaussian")


def data_of(kind: str, rows: int) -> Tensor:
    g = torch.Generator().manual_seed(11)
    if kind == "categorical":
        return one_hots(2, 2)[torch.randint(4, (rows,), generator=g)]
    X = torch.randn(rows, V, generator=g, dtype=torch.float64)
    return X if kind == "gaussian" else X.abs() if kind == "rectified visible" else (X > 0.3).double()


def log_likelihood(p: dict[str, Tensor], X: Tensor, options: Options) -> Tensor:
    """Mean log p(v), log Z summed over the side that has finitely many states."""
    visible = visible_units(options.visible, log_sigma=p.get("log_sigma"), categories=options.categories)
    hidden = hidden_units(options.hidden)
    args = (p["components"], p["intercept_hidden"], p["intercept_visible"])
    if options.hidden == "bernoulli":
        log_z = (-energy.hidden_free_energy(bits(H), *args, visible=visible, hidden=hidden)).logsumexp(0)
    else:
        log_z = (-energy.free_energy(bits(V), *args, visible=visible, hidden=hidden)).logsumexp(0)
    return -energy.free_energy(X, *args, visible=visible, hidden=hidden).mean() - log_z


def exact_gradient(state: State, X: Tensor, options: Options) -> dict[str, Tensor]:
    p = {name: t.clone().requires_grad_() for name, t in state.parameters().items()}
    grads = torch.autograd.grad(log_likelihood(p, X, options), [*p.values()])
    return dict(zip(p, grads, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_both_free_energies_sum_to_the_same_z(kind):
    """sum_v exp(-F(v)) = sum_h exp(-F(h)) = sum over both of exp(-E), integrals by quadrature, one unit at a side."""
    options = options_of(n_components=1, **KINDS[kind])
    width = 2 if kind == "categorical" else 1
    state = state_of(1, width, seed=3, sigma=kind == "gaussian")
    args = (state.components, state.intercept_hidden, state.intercept_visible)
    units = {
        "visible": visible_units(options.visible, log_sigma=state.log_sigma, categories=options.categories),
        "hidden": hidden_units(options.hidden),
    }

    def total(function, unbounded: str | None, states: Tensor) -> float:
        if unbounded is None:
            return float(torch.exp(-function(states)).sum())
        low = -40.0 if unbounded == "gaussian" else 0.0
        one = lambda u: float(torch.exp(-function(torch.tensor([[u]], dtype=torch.float64))))  # noqa: E731
        return integrate.quad(one, low, 40.0, points=[0.0, 2.0], limit=200)[0]

    v_states = one_hots(1, 2) if kind == "categorical" else bits(1)
    v_kind = options.visible if options.visible in ("gaussian", "rectified") else None
    h_kind = "rectified" if options.hidden == "rectified" else None
    by_v = total(lambda v: energy.free_energy(v, *args, **units), v_kind, v_states)
    by_h = total(lambda h: energy.hidden_free_energy(h, *args, **units), h_kind, bits(1))
    assert by_v == pytest.approx(by_h, rel=1e-7)
    if h_kind is None:
        h = bits(1)
        both = sum(
            total(lambda v, h=h[i : i + 1]: energy.energy(v, h, *args, **units), v_kind, v_states) for i in (0, 1)
        )
    else:
        both = sum(
            total(lambda u, v=v: energy.energy(v, u, *args, **units), h_kind, bits(1)) for v in bits(1).unsqueeze(1)
        )
    assert both == pytest.approx(by_h, rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_autograd_of_free_energies_is_the_difference_quotient(kind):
    options, state = machine_of(kind)
    X, step = data_of(kind, 6), 1e-5
    gradient = exact_gradient(state, X, options)
    for name, p in state.parameters().items():
        for i in range(p.numel()):
            ends = []
            for sign in (1, -1):
                moved = state.clone().parameters()
                moved[name].view(-1)[i] += sign * step
                ends.append(float(log_likelihood(moved, X, options)))
            assert gradient[name].flatten()[i].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def change(options: Options, state: State, X: Tensor, *, lr: float, steps: int = 1) -> dict[str, Tensor]:
    """What training steps add to the parameters, by lr."""
    before = state.clone().parameters()
    trainer = Trainer(options, state)
    for step in range(steps):
        trainer.rows.copy_(X)
        assert trainer.step(1, step, lr)
    return {name: (p - before[name]) / lr for name, p in state.parameters().items()}


def centred_ascent(state: State, X: Tensor, options: Options, lr: float) -> dict[str, Tensor]:
    """The plain parameters' change, by lr, as parameters of the centred machine ascend, by autograd through

    E = sum (v - b')^2 / (2 sigma^2) - c' h - (h - lam) W (v - m) / sigma^2 (or without sigma); weights and b' of
    Gaussian units ascend sigma^2 times the gradient.
    """
    lam, before = state.offset_hidden, state.clone().parameters()
    variance = 1.0 if state.log_sigma is None else torch.exp(2 * state.log_sigma)
    m = state.offset_visible * variance

    def plain(q: dict[str, Tensor]) -> dict[str, Tensor]:
        mu = m * torch.exp(-2 * q["log_sigma"]) if "log_sigma" in q else m
        W = q["components"]
        c, b = q["intercept_hidden"] - W @ mu, q["intercept_visible"] - lam @ W
        return q | {"intercept_hidden": c, "intercept_visible": b}

    W = before["components"]
    c, b = before["intercept_hidden"] + W @ state.offset_visible, before["intercept_visible"] + lam @ W
    p = {n: t.requires_grad_() for n, t in (before | {"intercept_hidden": c, "intercept_visible": b}).items()}
    grads = torch.autograd.grad(log_likelihood(plain(p), X, options), [*p.values()])
    scale = {"components": variance, "intercept_visible": variance}
    after = plain({n: (t + lr * scale.get(n, 1.0) * g).detach() for (n, t), g in zip(p.items(), grads, strict=True)})
    return {name: (t - before[name].detach()) / lr for name, t in after.items()}


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_long_chains_give_the_exact_gradient(kind, centre):
    """40,000 chains, run until they have forgotten where they began: what is left is their Monte Carlo error."""
    _, state = machine_of(kind)
    rows, chains = 8, 40000
    X = data_of(kind, rows)
    options = options_of(
        n_components=H, centered=centre, offset_rate=0.0, batch_size=rows, chains=chains, k=30, **KINDS[kind]
    )
    add_companions(state, options, X)
    if centre:
        state.offset_visible.fill_(0.3)
        state.offset_hidden.fill_(0.6)
    expected = centred_ascent(state, X, options, 1e-6)  # without centring the offsets are zero
    got = change(options, state, X, lr=1e-6)
    assert got.keys() == expected.keys()
    assert distance(got, expected) < 0.03 * max(1.0, *(float(g.abs().max()) for g in expected.values()))
    assert distance({name: -g for name, g in got.items()}, expected) > 0.1  # as large as it may not be


def distance(some: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    return max(float((some[name] - others[name]).abs().max()) for name in others)


def test_centring_is_another_direction_and_none_without_offsets():
    options, state = machine_of("bernoulli")
    X = data_of("bernoulli", 8)
    plain = exact_gradient(state, X, options)
    assert distance(centred_ascent(state, X, options, 1e-6), plain) < 1e-5
    state.offset_visible.fill_(0.3)
    assert distance(centred_ascent(state, X, options, 1e-6), plain) > 0.1


def slow_cd(state: State, batches: list[Tensor], options: Options, lr: float) -> dict[str, Tensor]:
    """CD-k step by step and row by row, in the centred parametrisation, from the same random numbers."""
    W, b, c = state.components.clone(), state.intercept_visible.clone(), state.intercept_hidden.clone()
    mu, lam = state.offset_visible.clone(), state.offset_hidden.clone()
    velocity = {"W": torch.zeros_like(W), "b": torch.zeros_like(b), "c": torch.zeros_like(c)}
    for step, X in enumerate(batches):
        u = Uniforms(options.seed, "gibbs").at(epoch=1, step=step)
        n = len(X)
        h_data = torch.sigmoid(X @ W.T + c)
        h = (u.fill_(torch.empty_like(h_data)) < h_data).double()
        for i in range(options.k):
            p_v = torch.sigmoid(h @ W + b)
            v = (u.fill_(torch.empty_like(X)) < p_v).double()
            h_model = torch.sigmoid(v @ W.T + c)  # means, of the last v
            if i < options.k - 1:
                h = (u.fill_(torch.empty_like(h_model)) < h_model).double()
        nu = options.offset_rate
        mu, lam = (1 - nu) * mu + nu * X.mean(0), (1 - nu) * lam + nu * h_data.mean(0)
        pull = torch.zeros_like(c)
        if options.sparsity is not None:
            pull = options.sparsity_strength * (options.sparsity - h_data.mean(0))
        gradient = {"W": torch.zeros_like(W), "b": X.mean(0) - v.mean(0), "c": h_data.mean(0) - h_model.mean(0) + pull}
        for r in range(n):
            gradient["W"] += torch.outer(h_data[r] - lam + pull, X[r] - mu) / n
            gradient["W"] -= torch.outer(h_model[r] - lam, v[r] - mu) / n
        # the pull acts on a row's input, c + W (v - mu)
        gradient["W"] -= options.weight_decay * W
        centred = {"W": W, "b": b + lam @ W, "c": c + W @ mu}
        for name, t in centred.items():
            velocity[name] = options.momentum * velocity[name] + gradient[name]
            ahead = gradient[name] + options.momentum * velocity[name] if options.nesterov else velocity[name]
            centred[name] = t + lr * ahead
        W = centred["W"]
        b, c = centred["b"] - lam @ W, centred["c"] - W @ mu
    return {"components": W, "intercept_visible": b, "intercept_hidden": c}


HAND = {"n_components": H, "method": "cd", "batch_size": 5, "offset_rate": 0.3}
CASES = {
    "plain": {},
    "k = 3": {"k": 3},
    "momentum": {"momentum": 0.8},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "weight decay": {"weight_decay": 0.05},
    "decay and momentum": {"weight_decay": 0.05, "momentum": 0.5},
    "sparsity": {"sparsity": 0.1, "sparsity_strength": 0.7},
    "everything": {"sparsity": 0.1, "weight_decay": 0.05, "momentum": 0.5, "nesterov": True, "k": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_two_steps_by_hand(case):
    options = options_of(**HAND, **CASES[case])
    state = state_of(H, V, seed=1)
    state.offset_visible.fill_(0.4)
    state.offset_hidden.fill_(0.6)
    X = data_of("bernoulli", 10)
    add_companions(state, options, X)
    batches, start = [X[:5], X[5:]], state.clone()
    expected = slow_cd(start, batches, options, 0.2)
    trainer = Trainer(options, state)
    for step, batch in enumerate(batches):
        trainer.rows.copy_(batch)
        assert trainer.step(1, step, 0.2)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(state, name), value, rtol=1e-12, atol=1e-13)
    for other, settings in CASES.items():
        if other != case:  # each option shows
            fewer = slow_cd(start, batches, options_of(**HAND, **settings), 0.2)
            assert not torch.allclose(fewer["components"], expected["components"], atol=1e-6)


def test_offsets_alone_change_no_distribution():
    """Without centring the offsets are zero, and the slow loop with offset_rate 0 is ordinary CD."""
    options = options_of(n_components=H, method="cd", batch_size=5, centered=False)
    state = state_of(H, V, seed=1)
    X = data_of("bernoulli", 5)
    expected = slow_cd(state, [X], options_of(n_components=H, method="cd", batch_size=5, offset_rate=0.0), 0.2)
    trainer = Trainer(options, state)
    trainer.rows.copy_(X)
    assert trainer.step(1, 0, 0.2)
    torch.testing.assert_close(state.components, expected["components"], rtol=1e-12, atol=1e-13)
    assert not state.offset_visible.any()


def test_fast_weights_drive_the_chains_and_decay():
    """Two steps of fast PCD by hand, uncentred: chains see W + F, the data W; F <- decay F + fast_lr G."""
    options = options_of(n_components=H, method="fpcd", batch_size=5, centered=False, fast_lr=0.5, fast_decay=0.9)
    state, X = state_of(H, V, seed=2), data_of("bernoulli", 5)
    add_companions(state, options, X)
    W, b, c = state.components.clone(), state.intercept_visible.clone(), state.intercept_hidden.clone()
    fast = [torch.zeros_like(t) for t in (W, b, c)]
    h = state.chains.clone()
    trainer = Trainer(options, state)
    for step in range(2):
        u = Uniforms(0, "gibbs").at(epoch=1, step=step)
        h_data = torch.sigmoid(X @ W.T + c)
        v = (u.fill_(torch.empty_like(X)) < torch.sigmoid(h @ (W + fast[0]) + b + fast[1])).double()
        h_model = torch.sigmoid(v @ (W + fast[0]).T + c + fast[2])
        h = (u.fill_(torch.empty_like(h_model)) < h_model).double()
        G = [(h_data.T @ X - h_model.T @ v) / 5, X.mean(0) - v.mean(0), h_data.mean(0) - h_model.mean(0)]
        fast = [0.9 * f + 0.5 * g for f, g in zip(fast, G, strict=True)]
        W, b, c = (t + 0.1 * g for t, g in zip((W, b, c), G, strict=True))
        trainer.rows.copy_(X)
        assert trainer.step(1, step, 0.1)
    torch.testing.assert_close(state.components, W)
    torch.testing.assert_close(state.intercept_visible, b)
    torch.testing.assert_close(state.fast["components"], fast[0])
    torch.testing.assert_close(state.fast["intercept_hidden"], fast[2])
    assert torch.equal(state.chains, h)
    assert math.isfinite(float(W.sum()))


def test_bfloat16_products_are_near():
    X = data_of("bernoulli", 8)
    changes = []
    for precision in ("fp32", "bf16"):
        options = options_of(n_components=H, batch_size=8, method="cd", precision=precision, dtype=torch.float32)
        state = State.from_dict(state_of(H, V).to_dict(), like=torch.empty(0))
        changes.append(change(options, state, X.float(), lr=0.01)["components"])
    assert not torch.equal(*changes)
    assert (changes[0] - changes[1]).abs().max() < 0.02
