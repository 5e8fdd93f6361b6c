"""Networks of one's own, trained by autograd: the engine's records to rounding, a hand-written loop's to the bit."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracle import OPTIMIZERS, loss_of, problem, same_bits, start_of
from torch import Tensor, nn

from fanin.engine.data import Data
from fanin.engine.ledger import Outcome
from fanin.engine.train import train
from fanin.errors import FaninError
from fanin.recipe import Recipe, Trial
from fanin.record import Divergence, Record
from fanin.streams import Stream

NETWORKS = """
import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "softsign": nn.Softsign, "gelu": nn.GELU}

def mlp(widths=(5, 4), features=6, classes=3, activation="relu", batchnorm=False):
    parts, before = [], features
    for width in widths:
        parts += [nn.Linear(before, width), *[nn.BatchNorm1d(width)] * batchnorm, ACTIVATIONS[activation]()]
        before = width
    return nn.Sequential(*parts, nn.Linear(before, classes))

def noisy():
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(8, 3)
    )

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.last, self.first, self.unused = nn.Linear(5, 3), nn.Linear(6, 5), nn.Linear(2, 2)

    def forward(self, x):
        return {"logits": self.last(functional.relu(self.first(x)))}

def cnn():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(10))

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.last = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.cell(x.view(len(x), 3, 2))[0][:, -1])

made_once = nn.Linear(6, 3)

def raising():
    raise RuntimeError("no memory for so many")

def text():
    return "a network"

def frozen():
    return nn.Linear(6, 3).requires_grad_(False)
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """The module own_networks in the current folder, imported anew."""
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)


def module() -> Any:
    """The module, for oracles."""
    import importlib

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(".")
        return importlib.import_module("own_networks")


def recipe(model: str = "mlp", /, options: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    chosen = {"name": f"own_networks:{model}"} | (options or {})
    return Recipe.from_dict({"model": chosen, "epochs": 2, "batch_size": 20} | fields)


def perceptron(**fields: Any) -> Recipe:
    """The engine's own network of the shape of `mlp`."""
    return Recipe.from_dict({"hidden": [5, 4], "epochs": 2, "batch_size": 20} | fields)


def one(recipe: Recipe, data: Data, seed: int = 1) -> Outcome:
    return train([Trial(recipe, seed)], ["id"], data)[0]


def facts(record: Record) -> list[tuple[str, float | None]]:
    """Every number of a record but its times, with a name."""
    rows = [(f"epoch {e.epoch}", vars(replace(e, seconds=0.0))) for e in record.epochs]
    rows += [(f"epoch {s.epoch}, layer {s.layer}", vars(s)) for s in record.signal]
    return [(f"{where}: {key}", value) for where, row in rows for key, value in row.items()]


def close(ours: Record, theirs: Record, tolerance: float = 1e-4) -> bool:
    """Whether two records have the same facts, and the same numbers to a relative `tolerance`."""
    mine, other = facts(ours), facts(theirs)
    return [name for name, _ in mine] == [name for name, _ in other] and all(
        (a is None) == (b is None) and (a is None or math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-9))
        for (_, a), (_, b) in zip(mine, other, strict=True)
    )


SAME_START = {"init": {"name": "normal", "std": 0.7}, "bias_init": {"name": "uniform", "low": -0.5, "high": 0.5}}


# the stacked engine as the oracle


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "softsign", "gelu"])
@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True}, "train_metrics": True},
        {"optimizer": {"name": "adam", "lr": 0.01}, "loss": "mse", "labels": 60},
        {"optimizer": {"name": "rmsprop", "lr": 0.01}, "schedule": {"name": "cosine", "warmup": 1}, "epochs": 4},
    ],
    ids=lambda fields: fields["optimizer"]["name"],
)
def test_a_perceptron_has_the_engines_record(activation, fields):
    data = problem(bytes_=True, scale=1 / 255)
    shared = SAME_START | fields
    theirs = one(perceptron(activation=activation, **shared), data)
    ours = one(recipe("mlp", {"activation": activation}, **shared), data)
    assert close(ours.record, theirs.record), [*zip(facts(ours.record), facts(theirs.record), strict=True)]
    assert ours.record.status == "done"
    for mine, other in zip(ours.state.values(), theirs.state.values(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-5)
    assert not close(one(recipe("mlp", {"activation": activation}, **shared), data, seed=2).record, theirs.record)


def test_batch_normalisation_has_the_engines_record():
    data = problem()
    shared = SAME_START | {"optimizer": {"name": "sgd", "lr": 0.1}}
    theirs = one(perceptron(**({"hidden": [5], "normalization": "batch"} | shared)), data)
    ours = one(recipe("mlp", {"widths": [5], "batchnorm": True}, **shared), data)
    for mine, other in zip(ours.record.epochs, theirs.record.epochs, strict=True):
        assert mine.train_cost == pytest.approx(other.train_cost, rel=1e-5)
        assert mine.test_loss == pytest.approx(other.test_loss, rel=1e-5)


@pytest.mark.parametrize(
    "start",
    [
        SAME_START,
        {"init": {"name": "kaiming_normal", "gain": 1.3}, "bias_init": "default"},
        {"init": {"name": "orthogonal", "gain": 0.9}, "bias_init": "zeros"},
        {"init": {"name": "kaiming_uniform", "negative_slope": 0.2}, "bias_init": "zeros"},
        {"init": {"name": "sparse", "sparsity": 0.5}, "bias_init": {"name": "constant", "value": 0.3}},
    ],
    ids=lambda start: start["init"]["name"],
)
def test_redrawn_weights_are_the_engines_to_the_bit(start):
    data = problem()
    still = {"optimizer": {"name": "sgd", "lr": 1e-30}, "epochs": 1}
    ours = one(recipe("mlp", **start, **still), data).state
    engine = Recipe.from_dict({"hidden": [5, 4], "batch_size": 20} | start | still)
    theirs = start_of(Trial(engine, 1), data, torch.float32)
    assert [*map(tuple, map(torch.Tensor.size, ours.values()))] == [tuple(t.shape) for t in theirs.values()]
    # entries that are 0 have taken their step of 1e-30
    assert all(torch.allclose(a, b, rtol=0, atol=1e-25) for a, b in zip(ours.values(), theirs.values(), strict=True))
    other = start_of(Trial(engine, 2), data, torch.float32)
    assert not torch.allclose(other["layers.0.weight"], ours["0.weight"], rtol=0, atol=1e-25)


def test_a_gain_that_is_not_given_is_that_of_what_follows():
    data = problem(features=600)
    still = {"init": "kaiming_normal", "optimizer": {"name": "sgd", "lr": 1e-30}, "epochs": 1}
    state = one(recipe("mlp", {"features": 600, "widths": [400]}, **still), data).state
    assert float(state["0.weight"].std()) == pytest.approx(math.sqrt(2 / 600), rel=0.01)
    assert float(state["2.weight"].std()) == pytest.approx(math.sqrt(1 / 400), rel=0.1)


def test_biases_alone_can_be_set_and_weights_stay_as_they_were_made():
    data = problem()
    still = {"optimizer": {"name": "sgd", "lr": 1e-30}, "epochs": 1}
    made = one(recipe(**still), data).state
    changed = one(recipe(**still, bias_init={"name": "constant", "value": 2.0}), data).state
    assert torch.equal(made["0.weight"], changed["0.weight"])
    assert bool((changed["0.bias"] == 2).all())
    assert not bool((made["0.bias"] == 2).any())


@pytest.mark.parametrize("init", ["orthogonal", "xavier_uniform", "random_asymmetric", "default"])
def test_gates_are_drawn_too_and_differ_by_seed_alone(init):
    data = problem()
    first, again, other = (one(recipe("Recurrent", init=init, epochs=1), data, seed).state for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.values(), again.values(), strict=True))
    assert not torch.equal(first["cell.weight_hh_l0"], other["cell.weight_hh_l0"])
    assert not torch.equal(first["cell.weight_hh_l0"][:, :2], first["cell.weight_ih_l0"])


# a hand-written loop as the oracle


def by_hand(trial: Trial, data: Data, make: Callable[[], nn.Module]) -> tuple[dict[str, Tensor], list[float], float]:
    """State, mean costs by epoch and test loss of an ordinary training loop."""
    recipe, seed = trial.recipe, trial.seed
    torch.manual_seed(int(Stream(seed, "model").words(1)[0]) >> 1)
    network = make()
    optimizer = OPTIMIZERS[recipe.optimizer.name](network.parameters(), **recipe.optimizer.keywords())
    inputs, costs = data.train_inputs.float() * data.scale, []
    for epoch in range(1, recipe.epochs + 1):
        order = torch.from_numpy(Stream(seed, "order", epoch=epoch).permutation(len(inputs)))
        torch.manual_seed(int(Stream(seed, "model", epoch=epoch).words(1)[0]) >> 1)
        network.train()
        total, steps = [], len(inputs) // recipe.batch_size
        for rows in order[: steps * recipe.batch_size].split(recipe.batch_size):

            def closure(rows: Tensor = rows) -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(recipe, network(inputs[rows]), data.train_labels[rows])
                loss.backward()
                for p in network.parameters():
                    if recipe.optimizer.name == "sparse_adam":
                        p.grad = p.grad.to_sparse()
                return loss

            total.append(float(optimizer.step(closure).detach()))
        costs.append(math.fsum(total) / steps)
    network.eval()
    with torch.no_grad():
        test = loss_of(recipe, network(data.test_inputs.float() * data.scale), data.test_labels)
    return network.state_dict(), costs, float(test)


LBFGS = {"name": "lbfgs", "lr": 0.1, "max_iter": 3}


@pytest.mark.parametrize("name", ["adam", "sgd", "adagrad", "asgd", "rprop", "sparse_adam", LBFGS], ids=str)
@pytest.mark.parametrize("make", ["noisy", "mlp"])
def test_a_hand_written_loop_has_the_same_bits(name, make):
    data = problem()
    trial = Trial(recipe(make, optimizer=name), 5)
    ours = train([trial], ["id"], data)[0]
    with torch.random.fork_rng():
        state, costs, test = by_hand(trial, data, getattr(module(), make))
        other, *_ = by_hand(Trial(trial.recipe, 6), data, getattr(module(), make))
    assert all(torch.equal(ours.state[key], value) for key, value in state.items())
    assert ours.state.keys() == state.keys()
    assert [e.train_cost for e in ours.record.epochs] == costs
    assert ours.record.epochs[-1].test_loss == pytest.approx(test, rel=1e-6)
    assert not all(torch.equal(ours.state[key], value) for key, value in other.items())


def test_whatever_ran_before_makes_no_difference_and_random_states_come_back():
    import random

    data = problem()
    trials = [Trial(recipe("noisy"), 0), Trial(recipe("noisy"), 1)]
    alone = train(trials[1:], ["b"], data)[0]
    torch.manual_seed(3)
    np.random.seed(4)  # noqa: NPY002 - the global state is what is looked at
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    later = train(trials, ["a", "b"], data)[1]
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    same_bits(later, alone)


# signal


def test_signal_of_a_convolution_by_hand():
    data = images()
    still = {"optimizer": {"name": "sgd", "lr": 1e-30}, "epochs": 1}
    found = one(recipe("cnn", **still), data)
    network = module().cnn()
    index = torch.arange(32) * 80 // 32  # of 80 examples an eighth, but 32 at least
    x = (data.train_inputs[index] * data.scale).view(-1, 1, 8, 8)
    network(x)
    network.load_state_dict(found.state)
    z = network[0](x)
    z.retain_grad()
    pooled = network[2](torch.relu(z))
    outputs = network[4](pooled.flatten(1))
    outputs.retain_grad()
    nn.functional.cross_entropy(outputs, data.train_labels[index]).backward()
    first, last = found.record.signal[:2]
    gradients, weight_gradient = (z.grad, outputs.grad), network[0].weight.grad
    z, pooled, outputs = z.detach(), pooled.detach(), outputs.detach()
    assert first.activation_second_moment == pytest.approx(float(pooled.square().mean()), rel=1e-5)
    assert first.gradient_second_moment == pytest.approx(float((32 * gradients[0]).square().mean()), rel=1e-5)
    assert first.weight_gradient_norm == pytest.approx(float(weight_gradient.norm()), rel=1e-5)
    assert first.dead == float((z <= 0).transpose(0, 1).flatten(1).all(1).float().mean())
    assert first.saturated is None
    assert last.activation_second_moment == pytest.approx(float(outputs.square().mean()), rel=1e-5)
    assert last.gradient_second_moment == pytest.approx(float((32 * gradients[1]).square().mean()), rel=1e-5)
    assert (last.dead, last.saturated, last.layer) == (None, None, 2)


def test_layers_are_those_that_are_called_in_their_order():
    signal = one(recipe("Functional", epochs=1), problem()).record.signal
    assert [(s.epoch, s.layer) for s in signal] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert all(s.dead is None and math.isfinite(s.activation_second_moment) for s in signal)


# divergence


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": {"name": "sgd", "lr": 1e30}},
        {"optimizer": {"name": "sgd", "lr": 1e12}, "loss": "mse"},
        {"optimizer": {"name": "sgd", "lr": 1e30}, "batch_size": 200},  # its one step ruins it
    ],
    ids=["overflow", "loss", "last step"],
)
def test_divergence_is_where_the_engine_finds_it(fields):
    data = problem()
    theirs = one(perceptron(**(SAME_START | fields)), data).record
    ours = one(recipe(**(SAME_START | fields)), data).record
    assert ours.divergence == theirs.divergence
    assert isinstance(ours.divergence, Divergence)
    assert ours.status == "diverged"
    assert len(ours.epochs) == len(theirs.epochs)


# forms of input, and what is refused


def images(classes: int = 10) -> Data:
    """80 pictures of 8 x 8 whose class is the brightest of some pixels."""
    found = problem(examples=80, features=64, classes=classes, bytes_=True, scale=1 / 255)
    return replace(found, image_shape=(8, 8))


def test_images_are_given_where_rows_do_not_do():
    outcome = one(recipe("cnn"), images())
    assert outcome.record.status == "done"
    assert outcome.state["4.weight"].shape == (10, 36)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            "mlp",
            {"features": 7},
            r"takes rows \(N, 6\) or images \(these data are none\).*with rows of 6 it raises Runt",
        ),
        ("mlp", {"classes": 2}, r"gives outputs \(N, 3\).*of shape \(2, 2\) for 2 examples"),
        ("cnn", {}, "with rows of 6 it raises RuntimeError"),
        (
            "mlp",
            {"width": 3},
            r"own_networks:mlp \(width 3\): it raised TypeError: .*unexpected keyword argument 'width'",
        ),
        ("raising", {}, "own_networks:raising: it raised RuntimeError: no memory for so many"),
        ("text", {}, "expected it to return an nn.Module; got str"),
        ("frozen", {}, "with parameters to train; it has none"),
        ("made_once", {}, "makes a new network for every trial; got Linear"),
        ("mpl", {}, "own_networks has no 'mpl'; did you mean 'mlp'"),
    ],
)
def test_what_cannot_be_trained_is_told_in_words(model, options, message):
    with pytest.raises(FaninError, match=message):
        one(recipe(model, options), problem())


def test_a_module_that_is_not_there_is_told_with_the_nearest():
    wrong = Recipe.from_dict({"model": "own_network:mlp", "batch_size": 20})
    with pytest.raises(FaninError, match=r"no module named 'own_network' in .*did you mean 'own_networks'"):
        one(wrong, problem())
