"""Pseudo-likelihoods against explicit conditionals and scikit-learn; figures to watch; chains against exact samples."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from sklearn.neural_network import BernoulliRBM

from fanin.pretraining.boltzmann import pseudo
from fanin.pretraining.boltzmann.units import Gaussian, Rectified
from fanin.pretraining.likelihood import (
    free_energy_gap,
    hidden_given_visible,
    pseudo_likelihood,
    reconstruction_error,
    run_chains,
    visible_given_hidden,
)

from .likelihood_oracle import binary, counts, exact_samples, joint, marginal, tiny


def conditionals(machine, v: tuple[int, ...]) -> list[float]:
    """log p(v_i | all other v) of every i, from the probabilities of both states."""
    p = dict(zip(binary(len(v)), marginal(machine).tolist(), strict=True))
    others = [(*v[:i], 1 - v[i], *v[i + 1 :]) for i in range(len(v))]
    return [math.log(p[v] / (p[v] + p[other])) for other in others]


@pytest.mark.parametrize("block", [1, 2**17])
def test_exact_pseudo_likelihood_is_the_sum_of_log_conditionals(block, monkeypatch):
    monkeypatch.setattr(pseudo, "BLOCK", block)
    machine = tiny(3, 4)
    found = pseudo_likelihood(torch.tensor(binary(4)), *machine.parameters)
    expected = torch.tensor([sum(conditionals(machine, v)) for v in binary(4)], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def test_one_random_bit_takes_every_term_and_is_unbiased():
    machine = tiny(3, 4, seed=1)
    v = (1, 0, 0, 1)
    repeated = torch.tensor([v]).expand(40_000, 4)
    found = pseudo_likelihood(repeated, *machine.parameters, exact=False, seed=5)
    terms = sorted(4 * term for term in conditionals(machine, v))
    values, often = found.round(decimals=9).unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor(terms, dtype=torch.float64), rtol=0, atol=1e-8)
    assert stats.chisquare(often.numpy()).pvalue > 1e-4
    assert pseudo_likelihood(repeated, *machine.parameters, exact=False, seed=5).equal(found)
    assert not pseudo_likelihood(repeated, *machine.parameters, exact=False, seed=6).equal(found)


def test_one_random_bit_is_what_scikit_learn_scores():
    machine = tiny(3, 4, seed=2)
    theirs = BernoulliRBM(n_components=3, random_state=0)
    theirs.components_, theirs.intercept_hidden_, theirs.intercept_visible_ = (p.numpy() for p in machine.parameters)
    theirs.n_features_in_ = 4
    for v in binary(4)[::5]:
        X = torch.tensor([v]).expand(200, 4)
        ours = pseudo_likelihood(X, *machine.parameters, exact=False)
        scored = torch.from_numpy(theirs.score_samples(X.double().numpy()))
        torch.testing.assert_close(ours.round(decimals=9).unique(), scored.round(decimals=9).unique())


def test_rectified_hidden_units_change_the_pseudo_likelihood():
    """One visible bit: its pseudo-likelihood is its likelihood, here by the two states' integrals."""
    machine = tiny(2, 1, seed=3)

    def weight(v: int) -> float:
        x = (machine.c + machine.W[:, 0] * v).numpy()
        half_normals = [math.sqrt(2 * math.pi) * stats.norm.cdf(t) * math.exp(t * t / 2) for t in x]
        return math.exp(v * float(machine.b)) * math.prod(half_normals)

    found = pseudo_likelihood(torch.tensor([[0], [1]]), *machine.parameters, hidden=Rectified())
    expected = [math.log(weight(v) / (weight(0) + weight(1))) for v in (0, 1)]
    assert found.tolist() == pytest.approx(expected, rel=1e-10)


def test_grey_values_have_no_pseudo_likelihood():
    with pytest.raises(ValueError, match="exact zeros and ones, given values between; threshold"):
        pseudo_likelihood(torch.full((1, 2), 0.5), *tiny(3, 2).parameters)


def test_conditionals_are_the_joints():
    machine = tiny(2, 3, seed=4)
    weights = joint(machine)
    hidden = hidden_given_visible(torch.tensor(binary(3)), *machine.parameters)
    visible = visible_given_hidden(torch.tensor(binary(2)), *machine.parameters)
    for n, v in enumerate(binary(3)):
        total = sum(weights[v, h] for h in binary(2))
        expected = [sum(weights[v, h] for h in binary(2) if h[j]) / total for j in range(2)]
        assert hidden[n].tolist() == pytest.approx(expected, rel=1e-12)
    for n, h in enumerate(binary(2)):
        total = sum(weights[v, h] for v in binary(3))
        expected = [sum(weights[v, h] for v in binary(3) if v[i]) / total for i in range(3)]
        assert visible[n].tolist() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match=r"H: expected shape \(n, 2\).*given \(1, 3\)"):
        visible_given_hidden(torch.zeros(1, 3), *machine.parameters)


def test_reconstruction_error_by_a_loop():
    machine = tiny(2, 3, seed=5)
    X = torch.tensor([[1.0, 0.25, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    W, c, b = (p.tolist() for p in machine.parameters)
    expected = []
    for v in X.tolist():
        h = [1 / (1 + math.exp(-c[j] - sum(W[j][i] * v[i] for i in range(3)))) for j in range(2)]
        back = [1 / (1 + math.exp(-b[i] - sum(W[j][i] * h[j] for j in range(2)))) for i in range(3)]
        expected.append(sum((a - b) ** 2 for a, b in zip(v, back, strict=True)))
    assert reconstruction_error(X, *machine.parameters).tolist() == pytest.approx(expected, rel=1e-12)


def test_free_energy_gap_is_the_difference_of_mean_log_likelihoods():
    machine = tiny(3, 3, seed=6)
    likelihood = marginal(machine).log()
    states = torch.tensor(binary(3))
    expected = float(likelihood[:2].mean() - likelihood[2:].mean())
    assert free_energy_gap(states[:2], states[2:], *machine.parameters) == pytest.approx(expected, rel=1e-10)
    assert free_energy_gap(states[2:], states[:2], *machine.parameters) == pytest.approx(-expected, rel=1e-10)


def test_chains_keep_the_machines_distribution():
    machine = tiny(3, 3, seed=7)
    start = exact_samples(machine, 40_000)
    found = dict(run_chains(start, *machine.parameters, steps=[0, 1, 4], seed=1))
    assert list(found) == [0, 1, 4]
    assert found[0].equal(start)
    expected = 40_000 * marginal(machine)
    for step in (1, 4):
        assert (found[step] != start).any(1).double().mean() > 0.2
        assert stats.chisquare(counts(found[step]).numpy(), expected.numpy()).pvalue > 1e-4
    other = 40_000 * marginal(tiny(3, 3, seed=8))  # the comparison can fail
    assert stats.chisquare(counts(found[4]).numpy(), other.numpy()).pvalue < 1e-10


def test_looking_at_chains_does_not_disturb_them():
    machine, start = tiny(3, 5, seed=7), torch.zeros(20, 5)
    looked = dict(run_chains(start, *machine.parameters, steps=[0, 1, 2, 7]))
    ((_, alone),) = run_chains(start, *machine.parameters, steps=[7])
    assert looked[7].equal(alone)
    assert not looked[2].equal(alone)


def test_chains_forget_their_start():
    machine = tiny(3, 3, seed=7)
    ((_, found),) = run_chains(torch.ones(20_000, 3), *machine.parameters, steps=[30])
    assert stats.chisquare(counts(found).numpy(), 20_000 * marginal(machine).numpy()).pvalue > 1e-4


def test_gaussian_chains_have_the_mixtures_distribution():
    W, c, b, sigma = 1.5, -0.4, 0.3, 0.8
    parameters = [torch.tensor(p, dtype=torch.float64) for p in ([[W]], [c], [b])]
    units = Gaussian(torch.tensor([sigma]).double().log())
    ((_, found),) = run_chains(torch.zeros(20_000, 1), *parameters, steps=[60], visible=units)
    on = math.exp(c + ((b + W) ** 2 - b**2) / (2 * sigma**2))  # weight of h = 1 beside 1 for h = 0

    def distribution(v):
        return (stats.norm.cdf(v, b, sigma) + on * stats.norm.cdf(v, b + W, sigma)) / (1 + on)

    assert stats.kstest(found[:, 0].numpy(), distribution).pvalue > 1e-4
    assert stats.kstest(found[:, 0].numpy() + 0.1, distribution).pvalue < 1e-10


@pytest.mark.parametrize("steps", [[1, 1], [3, 2], [-1]])
def test_steps_must_rise(steps):
    with pytest.raises(ValueError, match="steps: expected numbers of steps that rise"):
        next(run_chains(torch.zeros(2, 3), *tiny(2, 3).parameters, steps=steps))
