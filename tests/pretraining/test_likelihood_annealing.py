"""Annealing against exact log Z: unbiased weights at any temperatures, honest errors, both sides; its arithmetic."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats

from fanin.pretraining.boltzmann.units import Categorical, Gaussian
from fanin.pretraining.likelihood import (
    Bracket,
    annealed_importance_sampling,
    bracket,
    log_partition,
    reverse_annealing,
    run_chains,
)
from fanin.pretraining.likelihood.estimate import estimate_of, resample
from fanin.pretraining.likelihood.ladder import Chains, ends
from fanin.pretraining.likelihood.machine import machine_of

from .likelihood_oracle import Tiny, binary, counts, exact_samples, log_z, tiny

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = torch.tensor([0.0, 0.3, 0.8, 1.0])  # with so few betas whatever is wrong is wrong by much
RATES = torch.tensor([0.2, 0.5, 0.9])
MACHINE = tiny(2, 3, scale=1.5, seed=3)
SIGMA = torch.tensor([0.6, 1.4, 0.9], dtype=torch.float64)
GAUSSIAN = {
    "visible": Gaussian(SIGMA.log()),
    "base_rates": torch.tensor([0.5, -1.0, 2.0]),
    "base_sigma": torch.tensor([0.8, 1.6, 1.1]),
    "temperatures": torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]),
}
MILD = tiny(2, 3, scale=0.5, seed=4)  # beside Gaussian units: its weights have a variance with few temperatures, too


def errors_off(found, exact: float) -> float:
    """By how many standard errors an estimate is off, its many chains making log(mean w) all but unbiased."""
    assert found.standard_error < 0.02
    return abs(found.log_z - exact) / found.standard_error


def forward(chains: int = 60_000, machine: Tiny = MACHINE, **options):
    standard = {"temperatures": FEW, "base_rates": RATES, "chains": chains}
    return annealed_importance_sampling(*machine.parameters, **standard | options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rates", [RATES, None])
def test_mean_weights_are_exact_however_few_the_temperatures(dtype, rates):
    assert errors_off(forward(dtype=dtype, base_rates=rates), log_z(MACHINE)) < 4
    assert errors_off(forward(dtype=dtype, base_rates=rates, temperatures=1), log_z(MACHINE)) < 4


def test_pixels_that_are_never_or_always_on_in_the_data():
    found = forward(base_rates=torch.tensor([0.0, 0.5, 1.0]), temperatures=100)
    assert errors_off(found, log_z(MACHINE)) < 4


def test_a_chain_that_moves_before_it_is_weighted_is_caught(monkeypatch):
    """The usual mistake, one step off: weights at states of the new beta's distribution."""

    def climb(self, betas):
        log_weights = torch.zeros(len(self._v), dtype=torch.float64)
        for before, beta in pairwise(betas):
            self._read()
            self.move(beta)
            self._read()
            log_weights += self._log_ratio(before, beta)
        return log_weights

    monkeypatch.setattr(Chains, "climb", climb)
    assert errors_off(forward(), log_z(MACHINE)) > 10


@pytest.mark.parametrize("shift", [-0.1, 0.1])
def test_a_transition_for_another_beta_is_caught(monkeypatch, shift):
    right = Chains.move
    monkeypatch.setattr(Chains, "move", lambda self, beta: right(self, min(1, max(0, beta + shift))))
    assert errors_off(forward(), log_z(MACHINE)) > 8


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_a_move_keeps_the_distribution_of_its_beta(beta):
    probabilities = between(beta)
    start = torch.multinomial(probabilities, 60_000, True, generator=torch.Generator().manual_seed(0))
    walkers = Chains(ends(machine_of(*MACHINE.parameters), RATES, None), 60_000, 1, torch.float32)
    walkers.start(torch.tensor(binary(3), dtype=torch.float64)[start])
    walkers._read()
    walkers.move(beta)
    found = counts(walkers.states()).numpy()
    assert stats.chisquare(found, 60_000 * probabilities.numpy()).pvalue > 1e-4
    assert stats.chisquare(found, 60_000 * between(0.7).numpy()).pvalue < 1e-10  # the comparison can fail


def between(beta: float) -> torch.Tensor:
    """p_beta(v) by its definition: geometric between the base and the machine with its hidden inputs scaled."""
    base = torch.log(RATES / (1 - RATES)).double()
    v = torch.tensor(binary(3), dtype=torch.float64)
    weights = torch.exp(v @ ((1 - beta) * base + beta * MACHINE.b))
    for j in range(2):
        weights *= 1 + torch.exp(beta * (MACHINE.c[j] + v @ MACHINE.W[j]))
    return weights / weights.sum()


def test_gaussian_units():
    exact = float(log_partition(*MILD.parameters, visible=GAUSSIAN["visible"]))
    found = forward(machine=MILD, **GAUSSIAN)
    assert errors_off(found, exact) < 4
    assert errors_off(found, exact + 0.1) > 4  # the comparison can fail
    without = {"base_sigma": None, "base_rates": None, "temperatures": 200, "chains": 4000}
    assert errors_off(forward(machine=MILD, **GAUSSIAN | without), exact) < 4


def test_values_far_from_zero_cost_no_precision():
    """Gaussian data about 1e4: float32 alone would lose three digits of every square."""
    moved = Tiny(MILD.W, MILD.c - MILD.W @ (1e4 / SIGMA**2), MILD.b + 1e4)
    here = forward(100, MILD, **GAUSSIAN)
    there = forward(100, moved, **{**GAUSSIAN, "base_rates": GAUSSIAN["base_rates"].double() + 1e4})
    torch.testing.assert_close(there.log_weights, here.log_weights, rtol=0, atol=1e-4)
    torch.testing.assert_close(there.states - 1e4, here.states, rtol=0, atol=1e-4)
    assert there.log_z == pytest.approx(here.log_z, abs=1e-4)


def test_reverse_weights_are_exact_for_exact_samples():
    samples = exact_samples(MACHINE, 60_000)
    options = {"temperatures": FEW, "base_rates": RATES}
    found = reverse_annealing(samples, *MACHINE.parameters, **options)
    assert errors_off(found, log_z(MACHINE)) < 4
    assert errors_off(reverse_annealing(samples, *MACHINE.parameters, burn_in=2, **options), log_z(MACHINE)) < 4
    others = exact_samples(tiny(2, 3, seed=9), 60_000)
    assert errors_off(reverse_annealing(others, *MACHINE.parameters, **options), log_z(MACHINE)) > 10
    burnt = reverse_annealing(others, *MACHINE.parameters, burn_in=30, **options)
    assert errors_off(burnt, log_z(MACHINE)) < 4


def test_gaussian_units_in_reverse():
    start = torch.zeros(30_000, 3)
    ((_, samples),) = run_chains(start, *MILD.parameters, steps=[50], visible=GAUSSIAN["visible"])
    found = reverse_annealing(samples, *MILD.parameters, **GAUSSIAN)
    assert errors_off(found, float(log_partition(*MILD.parameters, visible=GAUSSIAN["visible"]))) < 4


def test_two_chains_lie_below_on_average_and_above_in_reverse():
    exact = log_z(MACHINE)
    down = reverse_annealing(exact_samples(MACHINE, 8000), *MACHINE.parameters, temperatures=FEW, base_rates=RATES)
    for found, side, sign in ((forward(8000), "below", -1), (down, "above", 1)):
        assert found.side == side
        offset = found.log_z + sign * float(found.log_weights.exp().mean().log())
        pairs = [estimate_of(two, offset, side, found.states) for two in found.log_weights.view(-1, 2)]
        off = torch.tensor([pair.log_z - exact for pair in pairs], dtype=torch.float64)
        assert sign * float(off.mean()) > 5 * float(off.std()) / math.sqrt(len(off))


LARGER = tiny(10, 24, scale=1.0, seed=1)


def in_groups(temperatures: int, groups: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors of log Z and stated standard errors of as many independent estimates, of `size` chains each."""
    found = annealed_importance_sampling(*LARGER.parameters, temperatures=temperatures, chains=groups * size)
    offset = found.log_z - float(torch.logsumexp(found.log_weights, 0)) + math.log(len(found.log_weights))
    each = [estimate_of(some, offset, "below", found.states) for some in found.log_weights.view(groups, size)]
    exact = float(log_partition(*LARGER.parameters))
    return torch.tensor([e.log_z - exact for e in each]), torch.tensor([e.standard_error for e in each])


def test_errors_shrink_with_temperatures():
    sizes = [float(in_groups(k, 10, 25)[0].square().mean().sqrt()) for k in (10, 100, 1000, 10_000)]
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2] > 8 * sizes[3]
    assert sizes[3] < 0.02


def test_truth_lies_within_the_errors_as_often_as_they_say():
    off, stated = in_groups(200, 150, 100)
    within = [float((off.abs() < sigmas * stated).double().mean()) for sigmas in (1, 2, 3)]
    assert within == pytest.approx([0.683, 0.954, 0.997], abs=0.09)
    halved = float((off.abs() < stated / 2).double().mean())  # errors stated too small by a factor of two
    assert abs(halved - 0.683) > 0.2


def test_log_ratios_at_one_state_sum_to_the_whole_in_float32():
    """Ten thousand steps of float32 at states that stay: what is lost is a ten-thousandth of a nat."""
    machine = tiny(500, 784, scale=0.3, seed=2)
    both = ends(machine_of(*machine.parameters), torch.full((784,), 0.1), None)
    generator = torch.Generator().manual_seed(0)
    v = torch.bernoulli(torch.full((8, 784), 0.3, dtype=torch.float64), generator=generator)
    walkers = Chains(both, 8, 0, torch.float32)
    walkers.start(v)
    walkers._read()
    betas = torch.linspace(0, 1, 10_001, dtype=torch.float64).tolist()
    total = sum(walkers._log_ratio(a, b) for a, b in pairwise(betas))
    inputs = machine.c + v @ machine.W.T
    exact = (torch.logaddexp(inputs, torch.zeros(())) - math.log(2)).sum(1) + v @ (machine.b - math.log(0.1 / 0.9))
    torch.testing.assert_close(total, exact, rtol=0, atol=1e-3)
    assert float(exact.abs().min()) > 100


@pytest.mark.parametrize("ratio", [(0.2, 0.7), (0.7, 0.2), (0.0, 1.0), (1.0, 0.0), (0.5, 0.5001)])
def test_log_ratios_neither_overflow_nor_lose_digits(ratio):
    inputs = torch.tensor([[-1e4, -90.0, -3.0, 0.0, 1e-6, 2.0, 95.0, 3e3]])
    c = inputs[0].double()
    both = ends(machine_of(torch.zeros(8, 1), c, torch.zeros(1)), None, None)
    walkers = Chains(both, 1, 0, torch.float32)
    walkers.start(torch.zeros(1, 1))
    walkers._read()
    found = float(walkers._log_ratio(*ratio))
    terms = [float(torch.logaddexp(b * x, 0 * x) - torch.logaddexp(a * x, 0 * x)) for x in c for a, b in [ratio]]
    assert found == pytest.approx(math.fsum(terms), rel=1e-6)


def test_an_estimate_by_hand():
    logs = torch.tensor([1.0, 3.0], dtype=torch.float64).log()
    found = estimate_of(logs, 10.0, "below", torch.zeros(2, 1))
    assert found.log_z == pytest.approx(10 + math.log(2))
    assert found.standard_error == pytest.approx(0.5)  # deviation sqrt 2, of a mean of two 1, over the mean 2
    assert (found.low, found.high) == (-math.inf, pytest.approx(10 + math.log(5)))
    assert found.effective_sample_size == pytest.approx(16 / 10)
    above = estimate_of(logs - 1000, 10.0, "above", torch.zeros(2, 1))
    assert above.log_z == pytest.approx(1010 - math.log(2))
    assert (above.low, above.high) == (pytest.approx(1010 - math.log(5)), math.inf)
    assert str(above) == (
        "log Z = 1009.31 (1008.39 to inf), above the truth on average; effective sample size 1.6 of 2"
    )


def test_resampled_states_occur_as_their_weights_say():
    weights = torch.tensor([0.5, 4.0, 0.1, 1.4], dtype=torch.float64).repeat(5)
    found = estimate_of(weights.log(), 0.0, "below", torch.arange(20.0)[:, None])
    drawn = torch.bincount(resample(found, 3)[:, 0].long(), minlength=20)
    assert drawn.sum() == 20
    assert (drawn - weights / weights.mean()).abs().max() < 1
    assert not torch.equal(resample(found, 3), resample(found, 4))


def test_a_bracket_holds_the_truth():
    found = bracket(*LARGER.parameters, base_rates=torch.full((24,), 0.5), temperatures=2000, burn_in=200)
    exact = float(log_partition(*LARGER.parameters))
    assert found.lower.low < exact < found.upper.high
    assert abs(found.gap) < 0.1
    assert found.gap == found.upper.log_z - found.lower.log_z
    sides = (
        f"{found.lower.log_z:.2f} from below and {found.upper.log_z:.2f} from above, a gap of {found.gap:.2f} nats; "
    )
    errors = f"with three standard errors, from {found.lower.low:.2f} to {found.upper.high:.2f}; "
    sizes = [f"{side.effective_sample_size:.1f}" for side in (found.lower, found.upper)]
    assert str(found) == f"log Z is {sides}{errors}effective sample sizes {sizes[0]} and {sizes[1]} of 100."


def test_a_bracket_that_is_worth_nothing_says_so():
    strong = tiny(12, 30, scale=4, seed=1)
    found = bracket(*strong.parameters, temperatures=5, chains=50, burn_in=0)
    assert "Do not rely on these errors: only" in str(found)
    assert "of 50 chains count; take more temperatures." in str(found)
    logs, states = torch.linspace(0, 0.1, 20, dtype=torch.float64), torch.zeros(20, 1)
    apart = Bracket(estimate_of(logs, 10.0, "below", states), estimate_of(logs, 9.0, "above", states))
    assert "contradict each other" in str(apart)
    assert "contradict" not in str(Bracket(apart.lower, estimate_of(logs, 11.0, "above", states)))


def test_seeds_decide():
    first, again, other = (forward(50, seed=seed) for seed in (1, 1, 2))
    assert first.log_weights.equal(again.log_weights)
    assert first.states.equal(again.states)
    assert not first.log_weights.equal(other.log_weights)


def test_a_number_of_temperatures_means_so_many_equal_steps():
    by_number = forward(50, temperatures=4)
    assert by_number.log_weights.equal(forward(50, temperatures=torch.tensor([0, 0.25, 0.5, 0.75, 1])).log_weights)
    assert not by_number.log_weights.equal(forward(50, temperatures=5).log_weights)


def test_products_keep_their_precision_and_the_process_its_setting(monkeypatch):
    seen = []
    right = Chains.climb
    monkeypatch.setattr(
        Chains, "climb", lambda self, betas: seen.append(torch.get_float32_matmul_precision()) or right(self, betas)
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        forward(10)
        reverse_annealing(torch.zeros(2, 3), *MACHINE.parameters, temperatures=2)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["highest", "highest"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperatures": 0}, "temperatures: expected at least 1 step"),
        ({"temperatures": torch.tensor([0.0, 0.5])}, "betas that rises from 0 to 1"),
        ({"temperatures": torch.tensor([0.0, 0.5, 0.5, 1.0])}, "betas that rises from 0 to 1"),
        ({"chains": 1}, "chains: expected at least 2"),
        ({"base_rates": torch.tensor([0.1, 0.2])}, r"base_rates: expected shape \(3,\).*given \(2,\)"),
        ({"base_rates": torch.tensor([0.1, 0.2, 33.0])}, "base_rates: expected means of the data, from 0 to 1"),
        ({"base_sigma": torch.ones(3)}, "base_sigma: expected None for Bernoulli units"),
        (GAUSSIAN | {"base_sigma": torch.zeros(3)}, "base_sigma: expected positive standard deviations"),
    ],
)
def test_what_cannot_be_annealed_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        forward(**options)


def test_other_units_are_refused():
    with pytest.raises(TypeError, match="expected Bernoulli or Gaussian units to anneal, given Categorical"):
        forward(visible=Categorical(3))
    with pytest.raises(ValueError, match="X: expected shape"):
        reverse_annealing(torch.zeros(2, 4), *MACHINE.parameters)
