"""Batches of every source: the same for the same seed, all examples, and no trace in any random state."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

from fanin.errors import DataError
from fanin.training import Batch, Batches
from fanin.training.batches import as_batch

X = torch.arange(20.0).reshape(10, 2)
Y = torch.arange(10)


class Noisy(Dataset):
    """Draws from all three global generators for every item."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int):
        noise = torch.rand(1).item() + np.random.rand() + random.random()  # noqa: NPY002 - as users do
        return X[i] + noise, Y[i]


class Streamed(IterableDataset):
    def __iter__(self):
        return iter([(x, y) for x, y in zip(X, Y, strict=True)])


SOURCES = {
    "loader in order": lambda: DataLoader(TensorDataset(X, Y), 3),
    "loader shuffled": lambda: DataLoader(TensorDataset(X, Y), 3, shuffle=True),
    "loader with a generator": lambda: DataLoader(
        TensorDataset(X, Y), 3, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "loader drop_last": lambda: DataLoader(TensorDataset(X, Y), 3, shuffle=True, drop_last=True),
    "augmented": lambda: DataLoader(Noisy(), 2, shuffle=True),
    "data set": lambda: TensorDataset(X, Y),
    "streamed": Streamed,
    "tensors": lambda: (X, Y),
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "lists": lambda: (X.tolist(), Y.tolist()),
    "inputs alone": lambda: X,
    "batches": lambda: [(X[:4], Y[:4]), (X[4:8], Y[4:8]), (X[8:], Y[8:])],
    "dicts": lambda: [{"x": X[:5], "labels": Y[:5]}, {"x": X[5:], "labels": Y[5:]}],
}


def contents(batches: Batches, seed: int, epoch: int = 1) -> list[list[float]]:
    return [b.first.flatten().tolist() for b in batches.epoch(seed, epoch)]


def flat(parts: list[list[float]]) -> list[float]:
    return [value for part in parts for value in part]


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_seed_gives_the_same_batches_and_nothing_else_moves(name, random_state):
    data = SOURCES[name]()
    before = random_state()
    generator = data.generator.get_state() if isinstance(data, DataLoader) and data.generator else None
    batches = Batches.of(data, batch_size=3)
    first, again = contents(batches, 1), contents(batches, 1)
    assert first == again
    assert random_state() == before
    random.random(), torch.rand(3), np.random.rand()  # noqa: NPY002 - global states elsewhere make no difference
    assert contents(batches, 1) == first
    if generator is not None:
        assert torch.equal(data.generator.get_state(), generator)


@pytest.mark.parametrize(
    "name", ["loader shuffled", "loader with a generator", "augmented", "data set", "arrays", "batches"]
)
def test_seeds_and_epochs_differ(name):
    batches = Batches.of(SOURCES[name](), batch_size=2)
    every = [contents(batches, seed, epoch) for seed in (0, 1, 2) for epoch in (1, 2)]
    assert len({str(one) for one in every}) > 3


@pytest.mark.parametrize("name", SOURCES)
def test_a_pass_that_stops_half_way_leaves_no_trace(name, random_state):
    data = SOURCES[name]()
    batches, before = Batches.of(data, batch_size=3), random_state()
    for _ in batches.epoch(7):
        break
    assert random_state() == before
    stream = batches.endless(7)
    for _ in range(12):
        next(stream)
        assert random_state() == before


def test_random_states_within_the_consumer_do_not_reach_the_batches():
    batches = Batches.of(SOURCES["augmented"]())
    plain = contents(batches, 3)
    mixed = []
    for batch in batches.epoch(3):
        torch.rand(5), np.random.rand(), random.random()  # noqa: NPY002 - dropout of the one who trains
        mixed.append(batch.first.flatten().tolist())
    assert mixed == plain


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"augmented", "loader drop_last", "loader with a generator"}))
def test_in_order_gives_every_example_once(name):
    batches = Batches.of(SOURCES[name](), batch_size=3).in_order()
    seen = sorted(v for one in contents(batches, 0) for v in one)
    assert seen == X.flatten().tolist()


def test_in_order_undoes_drop_last_and_shuffling():
    batches = Batches.of(SOURCES["loader drop_last"]()).in_order()
    assert flat(contents(batches, 0)) == X.flatten().tolist()
    assert flat(contents(batches, 5)) == X.flatten().tolist()


def test_arrays_are_shuffled_and_the_incomplete_batch_dropped():
    batches = Batches.of((X, Y), batch_size=4)
    assert (batches.steps, batches.batch_size, batches.examples) == (2, 4, 10)
    assert contents(batches, 0) != sorted(contents(batches, 0))
    assert Batches.of((X, Y)).steps == 1  # fewer examples than a batch: all of them


def test_types_of_arrays():
    ints = np.arange(6).reshape(3, 2)
    assert next(Batches.of((ints, [0, 1, 2])).epoch(0)).first.dtype == torch.float32
    assert next(Batches.of((ints, [0, 1, 2]), float_inputs=False).epoch(0)).first.dtype == torch.int64
    batch = next(Batches.of((ints, np.array([0.5, 1, 2]))).epoch(0))
    assert batch.targets.dtype == torch.float32
    assert next(Batches.of((ints, np.array([True, False, True]))).epoch(0)).targets.dtype == torch.bool
    assert next(Batches.of((X.double(), Y)).epoch(0)).first.dtype == torch.float64  # tensors stay as they are


def test_read_only_and_strided_arrays():
    read_only = np.ones((4, 2), dtype=np.float32)
    read_only.flags.writeable = False
    assert next(Batches.of((read_only, [0, 1, 0, 1])).epoch(0)).size == 4
    assert sorted(contents(Batches.of(X.numpy()[::-1]), 0)[0]) == X.flatten().tolist()


def test_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": [4.0, 5.0, 6.0]})
    batch = next(Batches.of((frame, pandas.Series([0, 1, 0]))).epoch(0))
    assert batch.first.dtype == torch.float32
    assert sorted(batch.first[:, 0].tolist()) == [1, 2, 3]


def test_what_a_batch_may_be():
    assert as_batch((X, Y)).targets is Y
    several = as_batch((X, X + 1, Y))
    assert len(several.inputs) == 2
    alone = as_batch([X])
    assert alone.targets is None
    named = as_batch({"input_ids": X, "labels": Y})
    assert named.targets is Y
    assert set(named.named) == {"input_ids"}
    assert as_batch({"input_ids": X}).targets is None
    assert as_batch(named) is named
    assert named.size == 10


def test_to_moves_nested_tensors():
    batch = Batch(((X, [X]), {"a": X}), Y).to("meta")
    assert batch.inputs[0][1][0].is_meta
    assert batch.inputs[1]["a"].is_meta
    assert batch.targets.is_meta


def test_another_batch_size_keeps_the_kind_of_order():
    shuffled = Batches.of(SOURCES["loader shuffled"]()).with_batch_size(5)
    assert [len(one) for one in contents(shuffled, 0)] == [10, 10]
    assert contents(shuffled, 0) != contents(shuffled, 1)
    ordered = Batches.of(SOURCES["loader in order"]()).with_batch_size(4)
    assert flat(contents(ordered, 0)) == X.flatten().tolist()
    assert Batches.of((X, Y)).with_batch_size(100).batch_size == 10


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (iter([(X, Y)]), "can be used once"),
        ((X, Y, Y), "a tuple of 3"),
        ((X, Y[:3]), r"\(10, 2\) and \(3,\)"),
        ((["a"], [1]), "arrays or tensors of numbers"),
        (TensorDataset(X[:0], Y[:0]), "at least one example"),
        (7.5, "float is a single value"),
    ],
)
def test_what_is_no_data_is_refused_in_words(data, words):
    with pytest.raises(DataError, match=words):
        Batches.of(data)


def test_refusals_while_going_through():
    with pytest.raises(DataError, match="at least one batch"):
        next(Batches.of(DataLoader(TensorDataset(X, Y), 20, drop_last=True)).endless(0))
    with pytest.raises(DataError, match="inputs are tensors"):
        list(Batches.of([("text", Y)]).epoch(0))
    with pytest.raises(DataError, match="to change the batch size"):
        Batches.of([(X, Y)]).with_batch_size(2)
    weighted = DataLoader(TensorDataset(X, Y), 2, sampler=WeightedRandomSampler([1.0] * 10, 10))
    with pytest.raises(DataError, match="WeightedRandomSampler"):
        Batches.of(weighted).with_batch_size(2)
