"""The probe's second moments, norms and shares against autograd, one example at a time; and that it leaves no trace."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch
from torch import Tensor, nn

from fanin.catalogue import ACTIVATIONS
from fanin.engine import probe, train
from fanin.engine.data import Data
from fanin.recipe import Recipe, Trial
from fanin.record import LayerSignal

DATA = oracle.problem(examples=240, features=6, classes=3)
BOUNDED = {"sigmoid": 0.25, "tanh": 1.0, "softsign": 1.0}


def probed(data: Data) -> list[int]:
    """The rows of the training set that the probe takes, evenly spread."""
    examples = len(data.train_labels)
    rows = min(500, max(32, examples // 8), examples)
    return [i * examples // rows for i in range(rows)]


def slow(trial: Trial) -> list[dict[str, Any]]:
    """Each number of `LayerSignal` by its definition, from the loss of every single example."""
    recipe, rows = trial.recipe, probed(DATA)
    sizes = [DATA.features, *recipe.hidden, recipe.outputs or DATA.classes]
    plain = Recipe(**recipe.to_dict() | {"dropout": 0.0})
    net = oracle.build(plain, sizes, oracle.start_of(trial, DATA, torch.float64), torch.float64).train()
    inputs = DATA.train_inputs[rows].double() * DATA.scale
    labels = DATA.train_labels[rows]
    pre, post, h = [], [], inputs
    slopes: list[Tensor] = []
    for module in net:
        h = module(h)
        if isinstance(module, nn.Linear):
            pre.append(h)
            pre[-1].retain_grad()
        elif not isinstance(module, nn.BatchNorm1d):
            post.append(h)
    losses = [oracle.loss_of(recipe, h[i : i + 1], labels[i : i + 1]) for i in range(len(rows))]
    # with batch statistics one example's loss depends on every row's pre-activation: the gradient of the sum is meant
    by_z = torch.autograd.grad(sum(losses), pre, retain_graph=True)
    weights = [m.weight for m in net if isinstance(m, nn.Linear)]
    by_weight = torch.autograd.grad(sum(losses) / len(rows), weights, retain_graph=True)
    for module, before in _activations(net, inputs):
        z = before.detach().requires_grad_()
        slopes += torch.autograd.grad(module(z).sum(), z)
    pre, post = [z.detach() for z in pre], [z.detach() for z in post]
    out = []
    for i in range(len(pre)):
        hidden = i < len(pre) - 1
        steepest = BOUNDED.get(recipe.activation.name)
        out.append(
            {
                "activation_second_moment": float((post[i] if hidden else pre[i]).square().mean()),
                "gradient_second_moment": float(by_z[i].square().mean()),
                "weight_gradient_norm": float(by_weight[i].square().sum().sqrt()),
                "dead": float((slopes[i] == 0).all(0).double().mean()) if hidden else None,
                "saturated": float((slopes[i] < 0.05 * steepest).double().mean()) if hidden and steepest else None,
            }
        )
    return out


def _activations(net: nn.Sequential, h: Tensor) -> list[tuple[nn.Module, Tensor]]:
    found = []
    for module in net:
        if not isinstance(module, nn.Linear | nn.BatchNorm1d):
            found.append((module, h))
        h = module(h)
    return found


def measured(trial: Trial, dtype: torch.dtype = torch.float64) -> tuple[LayerSignal, ...]:
    return tuple(s for s in train.train([trial], ["x"], DATA, dtype=dtype)[0].record.signal if s.epoch == 0)


@pytest.mark.parametrize("variant", [{}, {"normalization": "batch"}, {"dropout": 0.5}, {"loss": "mse"}], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_number(activation: str, variant: dict[str, Any]) -> None:
    wide = {"name": "normal", "std": 2.0}  # so that some examples saturate and some ReLU units are dead
    recipe = Recipe(hidden=(9, 8), activation=activation, init=wide, batch_size=8, epochs=1, **variant)
    trial = Trial(recipe, 4)
    signal = measured(trial)
    assert [s.layer for s in signal] == [1, 2, 3]
    for ours, theirs in zip(signal, slow(trial), strict=True):
        for name, value in theirs.items():
            assert getattr(ours, name) == (None if value is None else pytest.approx(value, rel=1e-9)), name


def test_shares_are_neither_all_nor_nothing() -> None:
    wide = {"name": "normal", "std": 4.0}
    dead = measured(Trial(Recipe(hidden=(9, 8), init=wide, bias_init=wide, batch_size=8, epochs=1), 4))
    assert any(0 < s.dead < 1 for s in dead[:2])
    saturated = measured(Trial(Recipe(hidden=(9, 8), activation="tanh", init=wide, batch_size=8, epochs=1), 4))
    assert all(0 < s.saturated < 1 for s in saturated[:2])


def test_softmax_regression_has_one_layer() -> None:
    trial = Trial(Recipe(hidden=(), batch_size=8, epochs=1), 4)
    (ours,), (theirs,) = measured(trial), slow(trial)
    assert ours.dead is None
    assert ours.saturated is None
    assert ours.gradient_second_moment == pytest.approx(theirs["gradient_second_moment"], rel=1e-9)


def test_a_vanished_gradient_is_not_zero() -> None:
    deep = Recipe(hidden=(4,) * 30, activation="sigmoid", init={"name": "normal", "std": 0.1}, batch_size=8, epochs=1)
    first = measured(Trial(deep, 1), torch.float32)[0]
    assert 0 < first.gradient_second_moment < 1e-40


def test_an_all_zero_relu_network_is_dead() -> None:
    recipe = Recipe(hidden=(4, 4), init="zeros", bias_init={"name": "constant", "value": -1.0}, batch_size=8, epochs=1)
    assert [s.dead for s in measured(Trial(recipe, 1))] == [1.0, 1.0, None]


@pytest.mark.parametrize("examples", [240, 8 * probe.PROBE_ROWS + 800])
def test_a_fixed_part_of_the_training_set_evenly_spread(examples: int) -> None:
    trial = Trial(Recipe(hidden=(4,), batch_size=50, epochs=1), 1)
    data, outside, inside = (oracle.problem(examples=examples) for _ in range(3))
    rows = probed(data)
    assert rows[-1] >= examples * 0.95
    others = sorted(set(range(examples)) - set(rows))
    outside.train_inputs[others] = 9.0
    inside.train_inputs[rows[-1]] = 9.0
    ours, same, other = (train.train([trial], ["x"], d)[0].record.signal[:2] for d in (data, outside, inside))
    assert ours == same
    assert ours != other


def test_a_small_training_set_under_batch_normalisation_has_a_gradient() -> None:
    # statistics over one or two rows would make every normalised value 0 or +-1, whatever the weights, and the
    # gradient through them vanish, though the training itself, in batches of 4, is in order
    recipe = Recipe(hidden=(4, 4), activation="tanh", normalization="batch", batch_size=4, epochs=1)
    signal = train.train([Trial(recipe, 1)], ["x"], oracle.problem(examples=12))[0].record.signal
    assert all(s.gradient_second_moment > 1e-9 for s in signal if s.epoch == 0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("variant", [{}, {"normalization": "batch"}, {"dropout": 0.5}], ids=str)
def test_probing_changes_no_bit_of_the_training(
    variant: dict[str, Any], optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"name": "lbfgs", "lr": 0.01, "max_iter": 3} if optimizer == "lbfgs" else optimizer
    trial = Trial(Recipe(hidden=(5, 4), batch_size=8, epochs=3, optimizer=options, **variant), 1)
    with_probe = train.train([trial], ["x"], DATA)[0]
    monkeypatch.setattr(probe.Probe, "measure", lambda self, layers, epochs: [[] for _ in epochs])
    without = train.train([trial], ["x"], DATA)[0]
    assert without.record.signal == ()
    assert with_probe.state.keys() == without.state.keys()
    assert all(torch.equal(with_probe.state[name], without.state[name]) for name in without.state)
    assert [e.test_loss for e in with_probe.record.epochs] == [e.test_loss for e in without.record.epochs]


def test_measuring_leaves_the_network_untouched() -> None:
    recipe = Recipe(hidden=(5, 4), normalization="batch", dropout=0.5, batch_size=8)
    trials = [Trial(recipe, seed) for seed in range(3)]
    sizes = train.widths(recipe, DATA.features, DATA.classes)
    network = train.Network(recipe, sizes, 3, dtype=torch.float32, device=torch.device("cpu"))
    network.initialize(trials)
    network.gradients.fill_(7.0)
    before = [network.state(m) for m in range(3)]
    together = probe.Probe(network.layers, recipe, DATA).measure(network.layers, [0, 0, 0])
    one = [layer.member(1) for layer in network.layers]
    signal = probe.Probe(one, recipe, DATA).measure(one, [0])[0]
    for a, b in zip(together[1], signal, strict=True):
        assert vars(a) == {k: v if v is None else pytest.approx(v, rel=1e-5) for k, v in vars(b).items()}
    for m in range(3):
        assert all(torch.equal(t, before[m][name]) for name, t in network.state(m).items())
    assert torch.equal(network.gradients, torch.full_like(network.gradients, 7.0))
    alone = train.train([trials[1]], ["x"], DATA)[0].record.signal[:3]
    assert tuple(signal) == alone


def test_epochs_of_the_signal() -> None:
    signal = train.train([Trial(Recipe(hidden=(5,), batch_size=8, epochs=2), 1)], ["x"], DATA)[0].record.signal
    assert [(s.epoch, s.layer) for s in signal] == [(e, layer) for e in range(3) for layer in (1, 2)]
