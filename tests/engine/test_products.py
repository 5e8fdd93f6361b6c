"""A layer's products against plain ones in float64: dense, in bfloat16, and without the empty columns of a batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fanin.engine import columns, products
from fanin.engine.buffers import buffer
from fanin.engine.columns import ColumnMap
from fanin.engine.data import Data
from fanin.engine.train import train
from fanin.recipe import Recipe, Trial

BATCH = 20


def sparse_inputs(rows: int, features: int, seed: int = 0) -> Tensor:
    """Bytes with columns from nearly always to never filled; the last fifth is empty throughout."""
    generator = torch.Generator().manual_seed(seed)
    filled = torch.rand(rows, features, generator=generator) ** 2 > torch.linspace(0, 1.25, features)
    return (torch.randint(1, 256, (rows, features), generator=generator) * filled).to(torch.uint8)


def sparse_data(features: int = 40, examples: int = 120) -> Data:
    data = oracle.problem(examples=examples, features=features, classes=5, tests=30)
    return replace(data, train_inputs=sparse_inputs(examples, features), scale=1 / 255)


@pytest.fixture
def always_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave empty columns out of the smallest products too."""
    monkeypatch.setattr(columns, "_WORTH_FLOP", 0.0)
    monkeypatch.setattr(columns, "_SMALLEST_BATCH", 1)


# --- columns


@given(features=st.integers(1, 70), members=st.integers(1, 3), steps=st.integers(1, 130), seed=st.integers(0, 3))
def test_live_columns_against_a_loop(features: int, members: int, steps: int, seed: int) -> None:
    inputs = sparse_inputs(50, features, seed)
    index = torch.from_numpy(np.random.default_rng(seed).integers(0, 50, (steps, members * 3)))
    found = list(ColumnMap(inputs).of(index, members))
    assert len(found) == steps
    for row, of_members in zip(index.view(steps, members, 3), found, strict=True):
        assert len(of_members) == members
        for rows, each in zip(row, of_members, strict=True):
            live, place = each.live.tolist(), each.place.tolist()
            filled = {j for j in range(features) if any(inputs[i, j] for i in rows)}
            assert filled <= set(live)
            assert live == sorted(set(live))
            assert len(live) == min(features, -(-len(filled) // 16) * 16)
            assert place == [live.index(j) + 1 if j in live else 0 for j in range(features)]


def test_only_large_products_of_sparse_data_are_skipped() -> None:
    data = sparse_data(features=400, examples=100)
    assert data.columns(64, 512) is not None
    assert data.columns(64, 8) is None  # too little to save
    assert data.columns(16, 4096) is None  # gathering would cost as much
    dense = replace(data, train_inputs=data.train_inputs.clamp(min=1))
    assert dense.columns(64, 512) is None
    elsewhere = replace(data, train_inputs=data.train_inputs.to("meta"))
    assert elsewhere.columns(64, 512) is None


# --- products


def operands(members: int, fan_in: int, fan_out: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([sparse_inputs(BATCH, fan_in, seed) for seed in range(members)])
    weight = torch.randn(members, fan_in, fan_out, generator=generator).to(dtype).transpose(1, 2)
    bias = torch.randn(members, 1, fan_out, generator=generator).to(dtype)
    delta = torch.randn(members, BATCH, fan_out, generator=generator).to(dtype)
    return rows.to(dtype) / 255, weight, bias, delta


def chosen(inputs: Tensor) -> list[columns.Columns]:
    """The live columns of each member's batch."""
    members, batch, features = inputs.shape
    every = torch.arange(members * batch).view(1, -1)
    return list(next(iter(ColumnMap(inputs.reshape(-1, features)).of(every, members))))


def run(layer: products.Products, x: Tensor, weight: Tensor, bias: Tensor, delta: Tensor) -> list[Tensor]:
    z = buffer(weight, *delta.shape)
    gradient = buffer(weight, len(x), x.shape[2], weight.shape[1]).transpose(1, 2).fill_(7)
    layer.forward(x, weight, bias, z)
    layer.by_weight(delta, gradient)
    return [z, gradient]


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", ["Dense", "FirstLayer", "ClassesFirst", "LiveColumns"])
def test_products_in_float64(kind: str, members: int) -> None:
    x, weight, bias, delta = operands(members, 48, 6)
    if kind == "LiveColumns":
        layer = products.LiveColumns(weight, BATCH, "fp32")
        layer.choose(chosen(x))
    else:
        layer = getattr(products, kind)(products.Exact())
    for _ in range(2):  # buffers are used again
        z, gradient = run(layer, x, weight, bias, delta)
        torch.testing.assert_close(z, x @ weight.transpose(1, 2) + bias, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(gradient, delta.transpose(1, 2) @ x, rtol=1e-13, atol=1e-13)
    if kind != "LiveColumns":
        below = buffer(weight, *x.shape)
        layer.by_input(below)
        torch.testing.assert_close(below, delta @ weight, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", ["Dense", "FirstLayer", "ClassesFirst", "LiveColumns"])
def test_products_in_bfloat16(kind: str, members: int) -> None:
    """Operands and results are rounded, each once, and nothing else: against float64 products of rounded operands."""
    x, weight, bias, delta = operands(members, 48, 6, torch.float32)
    if kind == "LiveColumns":
        layer = products.LiveColumns(weight, BATCH, "bf16")
        layer.choose(chosen(x))
    else:
        layer = getattr(products, kind)(products.Half())
    rough, rough_weight, rough_delta = (t.bfloat16().double() for t in (x, weight, delta))
    for _ in range(2):
        z, gradient = run(layer, x, weight, bias, delta)
        product = rough @ rough_weight.transpose(1, 2)
        rounding = 2**-8 * product.abs() + 1e-5
        assert ((z - (product + bias)).abs() <= rounding).all()
        product = rough_delta.transpose(1, 2) @ rough
        assert ((gradient - product).abs() <= 2**-8 * product.abs() + 1e-5).all()
        assert not torch.equal(gradient.double(), product)  # it was rounded
    assert z.dtype == gradient.dtype == torch.float32


def test_an_empty_batch_of_columns_has_no_gradient() -> None:
    x, weight, bias, delta = operands(1, 48, 6)
    x.zero_()
    layer = products.LiveColumns(weight, BATCH, "fp32")
    layer.choose(chosen(x))
    z, gradient = run(layer, x, weight, bias, delta)
    assert torch.equal(z, bias.expand_as(z))
    assert torch.equal(gradient, torch.zeros_like(gradient))


# --- training with them


@pytest.mark.usefixtures("always_skip")
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs", "asgd"])
@pytest.mark.parametrize("fields", [{}, {"normalization": "batch"}, {"dropout": 0.3}, {"activation": "gelu"}], ids=str)
def test_training_without_empty_columns_agrees_with_autograd(optimizer: str, fields: dict[str, object]) -> None:
    # LBFGS amplifies roundings by orders of magnitude a step: few steps, and small ones
    choice = {"name": "lbfgs", "lr": 0.01, "max_iter": 2, "history_size": 3} if optimizer == "lbfgs" else optimizer
    recipe = Recipe.from_dict({"hidden": [9, 7], "batch_size": 12, "epochs": 2, "optimizer": choice, **fields})
    data = sparse_data(examples=36 if optimizer == "lbfgs" else 120)
    assert data.columns(12, 9) is not None
    trial = Trial(recipe, 3)
    oracle.agree(oracle.engine(trial, data), oracle.reference(trial, data))


@pytest.mark.usefixtures("always_skip")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_members_of_a_stack_skip_their_own_columns(precision: str) -> None:
    recipe = Recipe(hidden=(32, 16), batch_size=16, epochs=2, precision=precision)
    data, trials = sparse_data(features=64), [Trial(recipe, seed) for seed in range(3)]
    together = train(trials, ["0", "1", "2"], data)
    for m, trial in enumerate(trials):
        oracle.same_bits(together[m], train([trial], [str(m)], data)[0])


def test_bfloat16_trains_nearly_alike() -> None:
    data = sparse_data(features=64, examples=400)
    costs = {}
    for precision in ("fp32", "bf16"):
        recipe = Recipe(hidden=(32, 32), batch_size=16, epochs=8, precision=precision)
        costs[precision] = [e.train_cost for e in train([Trial(recipe, 1)], ["1"], data)[0].record.epochs]
    assert costs["bf16"] != costs["fp32"]
    assert costs["bf16"] == pytest.approx(costs["fp32"], rel=0.02)
    assert costs["fp32"][-1] < costs["fp32"][0]
