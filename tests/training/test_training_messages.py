"""What a loss or data that cannot be used are told: what was expected, what was given, what to do; and dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fanin.errors import DataError, FaninError
from fanin.training import Batch, Batches, Training, batches_for
from fanin.training.losses import value_of

X, Y = torch.arange(20.0).reshape(10, 2), torch.arange(10) % 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (0.69, r"got float 0\.69, which has no gradient: return the tensor itself, without \.item\(\)"),
        (1, "got int 1, which has no gradient"),
        (None, "got None: end the function with return"),
        (np.float32(0.5), r"got numpy's float32, which has no gradient: .* without \.numpy\(\)"),
        (np.float64(0.5), r"got numpy's float64, which has no gradient"),  # a float to Python too
        (np.ones(1), "got numpy's ndarray"),
        ((torch.ones(()), torch.ones(())), "got a tuple of 2: return the one that is to fall"),
        ({"loss": torch.ones(())}, r"got a dict of 1 with the keys \['loss'\]: return the one that is to fall"),
        (torch.ones(3, 2), r"got a tensor of shape \(3, 2\): take its mean"),
        (torch.ones(0), r"got a tensor of shape \(0,\): take its mean"),
        ("0.5", "got str: return what torch's functions make"),
    ],
)
def test_a_loss_that_is_no_scalar_tensor_is_told_what_to_do(given: Any, words: str) -> None:
    with pytest.raises(FaninError, match="loss: expected a tensor of one number from loss") as caught:
        value_of(lambda *_: given, X, Batch((X,), Y))
    assert caught.match(words)


@pytest.mark.parametrize("given", [torch.tensor(2.0), torch.tensor([2.0]), torch.tensor([[2.0]], dtype=torch.float64)])
def test_a_tensor_of_one_number_is_a_loss(given: torch.Tensor) -> None:
    found = value_of(lambda *_: given, X, Batch((X,), Y))
    assert found.shape == ()
    assert found.item() == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((X, None), r"got \(X, None\): pass X alone where inputs are their own targets"),
        ([], "at least one example, as .*; got an empty list"),
        ((), "at least one example, as .*; got an empty tuple"),
        ([[1.0, 2.0], [3.0, 4.0]], r"a list of lists of numbers.*: pass np\.array\(rows\), or the tuple"),
        ([X.tolist(), Y.tolist()], r"a list of lists of numbers.*: pass np\.array\(rows\), or the tuple"),
        (([[1.0], [2.0, 3.0]], [0, 1]), "arrays or tensors of numbers"),
        ([["a", "b"]], "inputs are tensors"),
    ],
)
def test_data_that_cannot_be_used_are_told_what_to_do(data: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Batches.of(data)


def test_what_those_messages_advise_works() -> None:
    rows = [[1.0, 2.0], [3.0, 4.0]]
    assert Batches.of(np.array(rows)).examples == 2
    assert Batches.of((np.array(rows), np.array([0, 1]))).examples == 2
    assert Batches.of([(X, None)]).examples == 10
    assert next(Batches.of(X).epoch(0)).targets is None
    assert Batches.of([[X, Y], [X, Y]]).examples == 20  # lists of tensors are batches


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_arrays_become_what_the_network_computes_in(dtype: torch.dtype) -> None:
    model = nn.Linear(2, 1).to(dtype)
    for kind in (np.float64, np.float32):
        data = (X.numpy().astype(kind), np.zeros((10, 1), kind))
        batch = next(Training.of(model, data, loss=nn.MSELoss()).batches.epoch(0))
        assert batch.first.dtype == batch.targets.dtype == dtype
        assert model(batch.first).dtype == dtype
    assert next(batches_for(model, (X.double(), Y)).epoch(0)).first.dtype == torch.float64  # tensors stay as they are


def test_integer_arrays_stay_integers_where_a_network_embeds() -> None:
    ids = np.arange(10)[:, None]
    assert next(batches_for(nn.Embedding(10, 2), (ids, ids)).epoch(0)).first.dtype == torch.int64
    assert next(batches_for(nn.Linear(1, 2), (ids, ids)).epoch(0)).first.dtype == torch.float32


@pytest.mark.parametrize("data", [(X.double(), Y), DataLoader(TensorDataset(X.double(), Y), 5)])
def test_other_dtypes_are_told_with_pytorchs_words_and_the_remedy(data: Any) -> None:
    words = r"torch\.float64 on cpu: .*same dtype.*: pass x\.to\(torch\.float32\), or model\.to\(torch\.float64\)\)"
    with pytest.raises(FaninError, match=words):
        Training.of(nn.Linear(2, 2), data)


def test_another_error_of_a_forward_is_told_without_that_remedy() -> None:
    with pytest.raises(FaninError, match="forward raised RuntimeError") as caught:
        Training.of(nn.Linear(3, 2), (X, Y))
    assert "pass x.to" not in str(caught.value)


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_size_that_is_none(size):
    with pytest.raises(DataError, match=rf"batch_size: expected at least 1; got {size}"):
        Batches.of((np.zeros((4, 2)), np.zeros(4, dtype=int)), batch_size=size)
