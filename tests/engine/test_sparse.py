"""Sparse batches and their products against dense ones, and training with them against autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fanin.engine import sparse
from fanin.engine.data import Data
from fanin.engine.export import to_sequential
from fanin.engine.sparse import SparseInputs
from fanin.engine.train import train
from fanin.recipe import Recipe, Trial


def sparse_inputs(rows: int, features: int, seed: int = 0) -> Tensor:
    """Bytes with columns from nearly always to never filled; the last fifth is empty throughout."""
    generator = torch.Generator().manual_seed(seed)
    filled = torch.rand(rows, features, generator=generator) ** 2 > torch.linspace(0, 1.25, features)
    return (torch.randint(1, 256, (rows, features), generator=generator) * filled).to(torch.uint8)


def sparse_data(features: int = 40, examples: int = 120) -> Data:
    data = oracle.problem(examples=examples, features=features, classes=5, tests=30)
    train_inputs, test_inputs = sparse_inputs(examples, features), sparse_inputs(30, features, 1)
    return replace(data, train_inputs=train_inputs, test_inputs=test_inputs, scale=1 / 255)


@pytest.fixture
def always_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the sparse first layer for the smallest nets too."""
    monkeypatch.setattr(sparse, "_MAKING", -1.0)


def dense(entries: sparse.Entries, rows: int, columns: int) -> Tensor:
    """By a loop over rows and entries."""
    out = torch.zeros(rows, columns, dtype=entries.values.dtype)
    starts = entries.starts.tolist()
    assert starts[0] == 0
    assert len(starts) == rows + 1
    assert starts[-1] == len(entries.columns) == len(entries.values)
    for i in range(rows):
        for k in range(starts[i], starts[i + 1]):
            out[i, entries.columns[k]] += entries.values[k]
    return out


@given(
    features=st.integers(1, 30),
    members=st.integers(1, 3),
    steps=st.integers(1, 12),
    seed=st.integers(0, 3),
    bytes_=st.booleans(),
)
def test_batches_against_a_loop(features: int, members: int, steps: int, seed: int, bytes_: bool) -> None:
    stored, scale, batch = sparse_inputs(50, features, seed), 1 / 255, 3
    stored = stored if bytes_ else stored.float() - 100 * (stored > 0)
    index = torch.from_numpy(np.random.default_rng(seed).integers(0, 50, (steps, members * batch)))
    found = list(SparseInputs(stored, scale).batches(index, members, torch.float64))
    assert [len(of_members) for of_members in found] == [members] * steps
    for rows, of_members in zip(index.view(steps, members, batch), found, strict=True):
        for row, each in zip(rows, of_members, strict=True):
            wanted = stored[row].double() * scale
            assert torch.equal(dense(each.inputs, batch, features), wanted)
            assert torch.equal(dense(each.transposed, features, batch), wanted.T)
            assert (each.inputs.values != 0).all()


def test_values_are_the_dense_batches_bits() -> None:
    """In float32 a byte times the scale rounds as it does in a dense batch."""
    stored = sparse_inputs(60, 40)
    batch = next(SparseInputs(stored, 1 / 255).batches(torch.arange(60).view(1, -1), 1, torch.float32))[0]
    assert torch.equal(dense(batch.inputs, 60, 40), stored.float().mul_(torch.tensor(1 / 255)))


def test_a_product_is_the_dense_one() -> None:
    stored = sparse_inputs(20, 40)
    batch = next(SparseInputs(stored, 0.5).batches(torch.arange(20).view(1, -1), 1, torch.float64))[0]
    matrix = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(batch.inputs.times(matrix), 0.5 * stored.double() @ matrix)
    deltas = matrix[:20]
    torch.testing.assert_close(batch.transposed.times(deltas), 0.5 * stored.double().T @ deltas)


def test_an_empty_batch() -> None:
    batch = next(SparseInputs(torch.zeros(4, 6), 1.0).batches(torch.arange(4).view(1, -1), 1, torch.float32))[0]
    assert torch.equal(batch.inputs.times(torch.ones(6, 3)), torch.zeros(4, 3))
    assert torch.equal(batch.transposed.times(torch.ones(4, 3)), torch.zeros(6, 3))


def test_only_large_layers_over_sparse_data_gain() -> None:
    data = sparse_data(features=400, examples=100)
    thin = replace(data, train_inputs=data.train_inputs * (torch.arange(400) % 4 == 0))
    thin = replace(thin, test_inputs=thin.train_inputs[:7])
    wide = Recipe(hidden=(512,), batch_size=100)
    assert thin.sparse(wide) is not None
    small = replace(thin)
    assert small.sparse(Recipe(hidden=(8,), batch_size=100)) is None  # too little to save
    assert "_density" not in vars(small)  # and not looked through to find that out
    assert thin.sparse(Recipe(hidden=(), batch_size=100)) is None
    for part in ("train_inputs", "test_inputs"):
        full = replace(thin, **{part: thin.train_inputs.clamp(min=1)})
        assert full.sparse(wide) is None
        assert "_sparse" not in vars(full)  # not made to be thrown away
    assert replace(thin, train_inputs=data.train_inputs.to("meta")).sparse(wide) is None


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs", "asgd"])
@pytest.mark.parametrize("fields", [{}, {"normalization": "batch"}, {"dropout": 0.3}, {"activation": "gelu"}], ids=str)
def test_training_on_sparse_batches_agrees_with_autograd(optimizer: str, fields: dict[str, object]) -> None:
    # LBFGS amplifies roundings by orders of magnitude a step: few steps, and small ones
    choice = {"name": "lbfgs", "lr": 0.01, "max_iter": 2, "history_size": 3} if optimizer == "lbfgs" else optimizer
    recipe = Recipe.from_dict({"hidden": [9, 7], "batch_size": 12, "epochs": 2, "optimizer": choice, **fields})
    data = sparse_data(examples=36 if optimizer == "lbfgs" else 120)
    assert data.sparse(recipe) is not None
    trial = Trial(recipe, 3)
    oracle.agree(oracle.engine(trial, data), oracle.reference(trial, data))


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_members_of_a_stack_have_their_own_batches(precision: str) -> None:
    recipe = Recipe(hidden=(32, 16), batch_size=16, epochs=2, precision=precision)
    data, trials = sparse_data(features=64), [Trial(recipe, seed) for seed in range(3)]
    together = train(trials, ["0", "1", "2"], data)
    for m, trial in enumerate(trials):
        oracle.same_bits(together[m], train([trial], [str(m)], data)[0])


@pytest.mark.usefixtures("always_sparse")
def test_evaluation_on_sparse_inputs() -> None:
    """The metrics of an epoch are those of the dense evaluation of the same weights, to rounding."""
    recipe = Recipe(hidden=(9, 7), batch_size=12, epochs=1, train_metrics=True)
    data = replace(sparse_data(), test_inputs=sparse_inputs(2503, 40, 1), test_labels=torch.arange(2503) % 5)
    outcome = train([Trial(recipe, 3)], ["x"], data, dtype=torch.float64)[0]
    found = outcome.record.epochs[0]
    network = to_sequential(recipe, outcome.state)
    for part, loss, accuracy in (
        ("train", found.train_loss, found.train_accuracy),
        ("test", found.test_loss, found.test_accuracy),
    ):
        inputs, labels = getattr(data, f"{part}_inputs").double() * data.scale, getattr(data, f"{part}_labels")
        outputs = network(inputs).detach()
        assert loss == pytest.approx(float(oracle.loss_of(recipe, outputs, labels)), rel=1e-11)
        assert accuracy == float((outputs.argmax(1) == labels).double().mean())
    raw = network(data.test_inputs.double()).argmax(1)
    assert found.accuracy_on_raw_pixels == float((raw == data.test_labels).double().mean())


@pytest.mark.usefixtures("always_sparse")
def test_bfloat16_trains_nearly_alike() -> None:
    data = sparse_data(features=64, examples=400)
    costs = {}
    for precision in ("fp32", "bf16"):
        recipe = Recipe(hidden=(32, 32), batch_size=16, epochs=8, precision=precision)
        costs[precision] = [e.train_cost for e in train([Trial(recipe, 1)], ["1"], data)[0].record.epochs]
    assert costs["bf16"] != costs["fp32"]
    assert costs["bf16"] == pytest.approx(costs["fp32"], rel=0.02)
    assert costs["fp32"][-1] < costs["fp32"][0]
