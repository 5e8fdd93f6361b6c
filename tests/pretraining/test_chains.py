"""Chains: a sweep leaves the machine's distribution as it is; swaps keep detailed balance."""

from __future__ import annotations

import pytest
import torch

from fanin.pretraining.boltzmann import energy
from fanin.pretraining.boltzmann.chains import Sweep, Tempered, log_swap_ratio
from fanin.pretraining.boltzmann.training import machine
from fanin.pretraining.boltzmann.uniforms import Uniforms
from tests.pretraining.rbm_oracle import bits, options_of, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


def index_of(v: torch.Tensor) -> torch.Tensor:
    return (v.long() * (2 ** torch.arange(v.shape[1] - 1, -1, -1))).sum(1)


def joint(state, beta: float = 1.0) -> torch.Tensor:
    """p(v, h) by enumeration, (2^V, 2^H)."""
    v, h = bits(len(state.intercept_visible)), bits(len(state.intercept_hidden))
    e = energy.energy(v[:, None], h[None], state.components, state.intercept_hidden, state.intercept_visible)
    return (-beta * e).flatten().softmax(0).view(len(v), len(h))


def distance(counts: torch.Tensor, p: torch.Tensor) -> float:
    """Pearson's chi^2 per degree of freedom."""
    expected = p * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum() / (len(p) - 1))


def new_sweep(state, chains: int) -> Sweep:
    hidden, visible = state.components.shape
    empty = state.components.new_empty
    return Sweep(empty(chains, visible), empty(chains, hidden), empty(chains, visible))


def test_a_sweep_draws_from_the_conditionals():
    state, n = state_of(3, 4, seed=1), 40000
    model, h0 = machine(state.parameters(), options_of()), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    h, sweep = h0.repeat(n, 1), new_sweep(state, n)
    sweep.run(model, h, Uniforms(0, "test"))
    row = joint(state)[:, 0b101]
    assert distance(torch.bincount(index_of(sweep.v), minlength=16), row / row.sum()) < 2.5
    assert distance(torch.bincount(index_of(sweep.v), minlength=16), joint(state).sum(1)) > 5  # it can fail
    torch.testing.assert_close(sweep.means, torch.sigmoid(sweep.v @ state.components.T + state.intercept_hidden))
    two_steps = (row / row.sum()) @ (joint(state) / joint(state).sum(1, keepdim=True))
    assert distance(torch.bincount(index_of(h), minlength=8), two_steps) < 3


def test_a_sweep_keeps_the_distribution():
    state, n = state_of(3, 4, seed=2, scale=1.2), 40000
    p = joint(state).sum(0)
    g = torch.Generator().manual_seed(0)
    h = bits(3)[torch.multinomial(p, n, replacement=True, generator=g)]
    sweep, uniforms = new_sweep(state, n), Uniforms(1, "test")
    for _ in range(5):
        sweep.run(machine(state.parameters(), options_of()), h, uniforms)
    assert distance(torch.bincount(index_of(h), minlength=8), p) < 3
    assert distance(torch.bincount(index_of(sweep.v), minlength=16), joint(state).sum(1)) < 2.5


def test_the_end_of_a_sweep_leaves_h_and_computes_its_means():
    state = state_of(3, 4)
    h = bits(3)
    before, sweep = h.clone(), new_sweep(state, 8)
    sweep.end(machine(state.parameters(), options_of()), h, Uniforms(0, "test"))
    assert torch.equal(h, before)
    torch.testing.assert_close(sweep.means, torch.sigmoid(sweep.v @ state.components.T + state.intercept_hidden))


def test_swaps_keep_detailed_balance():
    """pi(x) pi'(y) A(x, y) = pi(y) pi'(x) A(y, x) for every pair of states, at two temperatures."""
    state = state_of(2, 3, seed=3, scale=1.5)
    v, h = bits(3), bits(2)
    e = energy.energy(v[:, None], h[None], state.components, state.intercept_hidden, state.intercept_visible).flatten()
    betas = torch.tensor([1.0, 0.4], dtype=torch.float64)
    cold, hot = (-betas[:, None] * e).softmax(1)
    colder, hotter = e[:, None], e[None, :]

    def imbalance(ratio: torch.Tensor) -> float:
        flow = cold[:, None] * hot[None, :] * ratio.exp().clamp(max=1)
        return float((flow - flow.T).abs().max())

    assert imbalance(log_swap_ratio(betas, colder, hotter)) < 1e-15
    assert imbalance(log_swap_ratio(betas, hotter, colder)) > 1e-3  # the sign matters


def test_tempered_chains_have_their_distributions():
    state, chains = state_of(3, 3, seed=4, scale=2.0), 4000
    model, betas = machine(state.parameters(), options_of()), torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    tempered, uniforms = Tempered(model, betas, chains), Uniforms(2, "test")
    h = torch.zeros(3 * chains, 3, dtype=torch.float64)
    counts = torch.zeros(3, 8)
    v, x = torch.empty(chains, 3, dtype=torch.float64), torch.empty(chains, 3, dtype=torch.float64)
    for i in range(60):
        tempered.sweep(h, uniforms.at(epoch=0, step=i))
        tempered.swap(h, uniforms, parity=i)
        if i >= 40 and i % 5 == 0:
            for r in range(3):
                counts[r] += torch.bincount(index_of(tempered._v.view(3, chains, 3)[r]), minlength=8)
            tempered.coldest(v, x)
            torch.testing.assert_close(x, v @ state.components.T + state.intercept_hidden)
    for r, beta in enumerate(betas.tolist()):
        assert distance(counts[r], joint(state, beta).sum(1)) < 5  # correlated in time: more than 1
    assert distance(counts[0], joint(state, 0.8).sum(1)) > 20


def test_swaps_move_states_as_a_whole():
    state, chains = state_of(2, 3, seed=5), 500
    model = machine(state.parameters(), options_of())
    tempered = Tempered(model, torch.tensor([1.0, 0.5], dtype=torch.float64), chains)
    h, uniforms = torch.zeros(2 * chains, 2, dtype=torch.float64), Uniforms(0, "test")
    tempered.sweep(h, uniforms)
    before = torch.cat([tempered._v, h, tempered._x], 1).view(2, chains, -1)
    tempered.swap(h, uniforms, parity=0)
    after = torch.cat([tempered._v, h, tempered._x], 1).view(2, chains, -1)
    stayed = (after == before).all(-1).all(0)
    moved = (after == before.flip(0)).all(-1).all(0)
    assert (stayed | moved).all()
    assert (moved & ~stayed).any()
    assert (stayed & ~moved).any()
    tempered.swap(h, uniforms, parity=1)  # of two temperatures there is no odd pair
    assert torch.equal(torch.cat([tempered._v, h, tempered._x], 1).view(2, chains, -1), after)
