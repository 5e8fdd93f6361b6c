"""Faults that libraries of Boltzmann machines have had, and that no other test here would see."""

from __future__ import annotations

import inspect
import math
import pickle

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fanin
from fanin.pretraining import DBN, RBM, DivergedError, StackedAutoencoder
from fanin.pretraining.autoencoder.layer import Passes
from fanin.pretraining.boltzmann import inference
from fanin.pretraining.boltzmann.start import add_companions
from fanin.pretraining.boltzmann.state import State
from fanin.pretraining.boltzmann.training import Trainer
from fanin.pretraining.likelihood import annealed_importance_sampling, bracket, pseudo_likelihood
from fanin.pretraining.likelihood.ladder import Chains, ends
from fanin.pretraining.likelihood.machine import machine_of
from fanin.pretraining.portrait import first_likelihood
from fanin.record import Divergence
from fanin.sklearn import BernoulliRBM, DBNClassifier

from .likelihood_oracle import tiny
from .rbm_oracle import bernoulli_log_likelihood, bits, exact_samples, options_of, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


def default(function, name: str):
    return inspect.signature(function).parameters[name].default


def test_quoted_likelihoods_have_temperatures_and_chains_enough() -> None:
    for function in (annealed_importance_sampling, bracket):
        assert default(function, "temperatures") >= 10_000
        assert default(function, "chains") >= 100


def test_densities_are_centred_by_default_and_what_starts_classifiers_is_not() -> None:
    centred = {kind: default(kind, "centered") for kind in (RBM, DBN, BernoulliRBM, DBNClassifier)}
    assert centred == {RBM: True, DBN: False, BernoulliRBM: False, DBNClassifier: False}
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Sigmoid(), torch.nn.Linear(3, 2))
    rows = np.eye(4, dtype=np.float32).repeat(5, 0)
    for options, expected in (({}, False), ({"centered": True}, True)):
        (machine,) = fanin.pretrain_(module, rows, batch_size=10, epochs=1, **options).model.machines_
        assert machine.centered == expected
        assert bool(machine.state_dict()["offset_visible"].any()) == expected


def test_negative_names_the_machines_method() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Sigmoid(), torch.nn.Linear(3, 2))
    rows = np.eye(4, dtype=np.float32).repeat(5, 0)
    options = {"batch_size": 10, "epochs": 2}
    fanin.pretrain_(module, rows, negative="pcd", **options)
    assert np.array_equal(module[0].weight.detach(), DBN((3,), method="pcd", **options).fit(rows).components_[0])
    assert not np.array_equal(module[0].weight.detach(), DBN((3,), **options).fit(rows).components_[0])
    with pytest.raises(ValueError, match=r'negative: expected with method="dbn" alone.*got \'denoising\''):
        fanin.pretrain_(module, rows, method="denoising", negative="pcd", **options)
    with pytest.raises(ValueError, match="did you mean 'pcd'"):
        fanin.pretrain_(module, rows, negative="pdc", **options)


def test_annealing_starts_from_the_base_of_the_data_wherever_it_is_asked_for(monkeypatch) -> None:
    """Mean weights are exact from any base: only where chains start shows which one it is."""
    seen = []
    right = Chains.climb
    monkeypatch.setattr(Chains, "climb", lambda self, betas: seen.append(self.states()) or right(self, betas))
    machine, rates = tiny(2, 3, seed=3), torch.tensor([0.05, 0.5, 0.95])
    annealed_importance_sampling(*machine.parameters, base_rates=rates, temperatures=1, chains=4000)
    torch.testing.assert_close(seen.pop().mean(0), rates.double(), rtol=0, atol=0.04)
    own = torch.sigmoid(machine.b)
    assert (own - rates).abs().max() > 0.2, "the machine's own biases are another base"
    bracket(*machine.parameters, base_rates=rates, temperatures=1, chains=4000, burn_in=0)
    torch.testing.assert_close(seen[0].mean(0), rates.double(), rtol=0, atol=0.04)
    seen.clear()
    rows = (torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) < rates).float()
    names = ("components", "intercept_hidden", "intercept_visible")
    model = DBN((2,), binarize="threshold")
    model.load_state_dict({"machines": [dict(zip(names, machine.parameters, strict=True))]})
    first_likelihood(model, rows, rows[:10], temperatures=1, chains=4000, seed=0)
    torch.testing.assert_close(seen[0].mean(0), rows.double().mean(0), rtol=0, atol=0.04)


class Counting(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.products += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm)
        return func(*args, **(kwargs or {}))


def test_a_temperature_costs_two_products() -> None:
    walkers = Chains(ends(machine_of(*tiny(2, 3).parameters), None, None), 10, 0, torch.float32)
    walkers.start()
    with Counting() as count:
        walkers.climb([0.0, 0.25, 0.5, 0.75, 1.0])
    assert count.products == 4 * 2


@pytest.mark.parametrize("k", [1, 3])
def test_a_step_of_training_costs_two_products_a_sweep_and_three(k: int, monkeypatch) -> None:
    counts, right = [], Trainer.step

    def counted(self, *arguments):
        with Counting() as count:
            done = right(self, *arguments)
        counts.append(count.products)
        return done

    monkeypatch.setattr(Trainer, "step", counted)
    rows = (torch.rand(40, 5, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    for method in ("cd", "pcd"):
        RBM(4, method=method, k=k, centered=False, batch_size=20, epochs=1).fit(rows)
    assert counts == [2 * k + 2] * 4, "one product makes the gradient of both phases"


def test_weights_of_chains_are_summed_in_double_precision(monkeypatch) -> None:
    """Steps of 1e-9 beside a start of 1: float32 would lose every one."""
    walkers = Chains(ends(machine_of(*tiny(2, 3).parameters), None, None), 2, 0, torch.float32)
    walkers.start()
    steps = iter([1.0] + [1e-9] * 1000)
    monkeypatch.setattr(walkers, "_log_ratio", lambda before, beta: torch.full((2,), next(steps), dtype=torch.float64))
    found = walkers.climb(torch.linspace(0, 1, 1002, dtype=torch.float64).tolist())
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([1 + 1e-6] * 2, abs=1e-12)
    assert torch.tensor(1.0) + 1e-9 == 1, "as float32 does"


def test_what_a_machine_says_of_rows_is_in_full_precision(monkeypatch) -> None:
    seen = []
    for name in ("free_energies", "pseudo_likelihoods", "hidden_means", "reconstruction", "squared_errors"):
        right = getattr(inference, name)

        def recorded(*arguments, right=right):
            seen.append(torch.get_float32_matmul_precision())
            return right(*arguments)

        monkeypatch.setattr(inference, name, recorded)
    rows = (torch.rand(40, 5, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        rbm = RBM(4, batch_size=20, epochs=1).fit(rows, held_out=rows[:7])
        watched = len(seen)
        for ask in (rbm.free_energy, rbm.score_samples, rbm.transform, rbm.reconstruct):
            ask(rows)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert watched >= 4
    assert len(seen) >= watched + 4
    assert set(seen) == {"highest"}


@pytest.mark.parametrize("exact", [True, False])
def test_pseudo_likelihoods_stay_exact_where_a_sigmoid_rounds_to_zero(exact: bool) -> None:
    """One certain pixel that is the other way: log sigmoid(-200) = -200, whose sigmoid float32 has as 0."""
    parameters = (torch.zeros(2, 1), torch.zeros(2), torch.tensor([200.0]))
    found = pseudo_likelihood(torch.tensor([[0.0], [1.0]]), *parameters, exact=exact)
    assert found.tolist() == pytest.approx([-200, 0], abs=1e-12)
    named = dict(zip(("components", "intercept_hidden", "intercept_visible"), parameters, strict=True))
    rbm = RBM(2).load_state_dict(named)
    assert rbm.score_samples(torch.tensor([[0.0], [1.0]])).tolist() == pytest.approx([-200, 0], abs=1e-5)
    assert float(torch.sigmoid(torch.tensor(-200.0))) == 0


def test_a_mean_pseudo_likelihood_is_the_mean_of_logs() -> None:
    """Not the log of a mean: by Jensen that is larger."""
    state = state_of(3, 5, seed=2)
    rbm = RBM(3, dtype=torch.float64).load_state_dict(state.to_dict())
    X = bits(5)
    rows = [bernoulli_conditionals(rbm, x) for x in X]
    parameters = [getattr(state, name) for name in ("components", "intercept_hidden", "intercept_visible")]
    found = float(pseudo_likelihood(X, *parameters).mean())
    assert found == pytest.approx(sum(rows) / len(rows), rel=1e-10)
    assert found < math.log(sum(map(math.exp, rows)) / len(rows)) - 0.1


def bernoulli_conditionals(rbm: RBM, x: torch.Tensor) -> float:
    """sum_i log p(x_i | all other x), by free energies of both states of every bit."""
    total = 0.0
    for i in range(len(x)):
        both = x.repeat(2, 1)
        both[1, i] = 1 - both[1, i]
        total += float((-rbm.free_energy(both)).log_softmax(0)[0])
    return total


def test_a_student_has_its_teachers_moments() -> None:
    """Trained on exact samples of a teacher: the same means and second moments, which no independent pixels have."""
    W = torch.tensor([[4, 4, 0, 0, 0], [0, 0, 4, -4, 0], [0, 0, 0, 3, 3]], dtype=torch.float64)
    biases = {"intercept_hidden": -W.sum(1) / 2, "intercept_visible": -W.sum(0) / 2}
    teacher = State.from_dict({"components": W} | biases, like=W)
    X = exact_samples(teacher, 6000, seed=1)
    options = {"chains": 500, "lr": 0.2, "schedule": "linear", "momentum": 0.9, "epochs": 20, "seed": 2}
    student = RBM(4, dtype=torch.float64, **options).fit(X)
    p = torch.softmax(-student.free_energy(bits(5)), 0)
    second = bits(5).T @ (bits(5) * p[:, None])  # the diagonal holds the means
    assert (second - X.T @ X / len(X)).abs().max() < 0.04
    assert bernoulli_log_likelihood(student._state, X) > bernoulli_log_likelihood(teacher, X) - 0.01
    mean = X.mean(0)
    apart = (torch.outer(mean, mean) - X.T @ X / len(X)).fill_diagonal_(0).abs().max()
    assert apart > 0.1, "independent pixels would be seen"


def test_a_centred_state_goes_on_without_centring_as_if_it_had_never_been() -> None:
    """Offsets are no part of the distribution: with centring off they must not be part of the gradient either."""
    X = (torch.rand(40, 5, generator=torch.Generator().manual_seed(0)) < 0.3).double()
    state = RBM(4, batch_size=20, epochs=1, dtype=torch.float64).fit(X).state_dict()
    assert state["offset_visible"].any()
    bare = {n: t for n, t in state.items() if not n.startswith("offset")}
    found = []
    for start in (state, bare):
        rbm = RBM(4, centered=False, batch_size=20, dtype=torch.float64, lr=0.2).load_state_dict(start)
        found.append(rbm.partial_fit(X).components_)
    assert np.array_equal(*found)
    other = RBM(4, batch_size=20, dtype=torch.float64, lr=0.2).load_state_dict(state).partial_fit(X).components_
    assert not np.array_equal(found[0], other)


def test_offsets_follow_the_means_by_their_rate() -> None:
    """After n steps of rate r a share (1 - r)^n of the start is left."""
    options = options_of(n_components=3, batch_size=4, method="cd", offset_rate=0.2)
    state = state_of(3, 4)
    state.offset_visible.fill_(1.0)
    state.offset_hidden.fill_(1.0)
    X = torch.zeros(4, 4, dtype=torch.float64)
    add_companions(state, options, X)
    trainer = Trainer(options, state)
    for step in range(3):
        trainer.rows.copy_(X)
        assert trainer.step(1, step, 1e-12)
    torch.testing.assert_close(state.offset_visible, torch.full((4,), 0.8**3, dtype=torch.float64))
    h = torch.sigmoid(state.intercept_hidden)
    torch.testing.assert_close(state.offset_hidden, 0.8**3 + (1 - 0.8**3) * h)


@pytest.mark.parametrize("kind", [RBM, DBN, StackedAutoencoder])
def test_what_breaks_an_epoch_off_loses_nothing(kind, monkeypatch) -> None:
    """Ctrl-C amid the second epoch: the model is that after the first, to the bit, and goes on as if never stopped."""
    rows = np.random.default_rng(0).random((40, 5)).astype(np.float32)
    shape = {"n_components": 4} if kind is RBM else {"hidden": (4,)}

    def made(epochs: int):
        return kind(**shape, batch_size=10, momentum=0.5, epochs=epochs, warm_start=True)

    stepped, name = (Passes, "backward") if kind is StackedAutoencoder else (Trainer, "step")
    right, calls = getattr(stepped, name), []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 4 + 3:
            raise KeyboardInterrupt
        return right(self, *arguments)

    model = made(3)
    with monkeypatch.context() as patch:
        patch.setattr(stepped, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(rows)
    assert np.array_equal(model.transform(rows), made(1).fit(rows).transform(rows))
    assert np.array_equal(model.fit(rows).transform(rows), made(3).fit(rows).transform(rows))
    assert [e["epoch"] for e in model.history_] == [1, 2, 3]


def test_a_divergence_travels_between_processes() -> None:
    error = DivergedError("layer 2: diverged", Divergence(3, 4, 2), RBM(5, lr=0.3), "gradient not finite")
    found = pickle.loads(pickle.dumps(error))
    assert (str(found), found.where, found.why) == (str(error), error.where, error.why)
    assert found.model.lr == 0.3


@pytest.mark.parametrize("lr", [1e39, math.inf, math.nan])
def test_a_rate_beyond_the_numbers_is_refused(lr: float) -> None:
    with pytest.raises(ValueError, match=r"lr: expected a number > 0, up to 3.4e\+38"):
        RBM(2, lr=lr, batch_size=2).fit(np.eye(4, dtype=np.float32))
