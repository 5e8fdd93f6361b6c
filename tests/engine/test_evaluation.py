"""Loss and accuracies of an epoch against the exported nn.Sequential, on scaled inputs and on inputs as stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import oracle
import pytest
import torch
from torch import Tensor

from fanin.catalogue import ACTIVATIONS, LOSSES, NORMALIZATIONS
from fanin.engine import evaluate as evaluation
from fanin.engine.data import Data
from fanin.engine.export import to_sequential
from fanin.engine.train import train
from fanin.recipe import Recipe, Trial

BYTES = oracle.problem(examples=160, features=9, classes=4, tests=2503, bytes_=True, scale=1 / 255)


def expected(recipe: Recipe, state: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> tuple[float, float]:
    """Loss and accuracy by the exported network in float64, in one piece."""
    double = {name: tensor.double() for name, tensor in state.items()}
    with torch.no_grad():
        outputs = to_sequential(recipe, double)(inputs)
        loss = float(oracle.loss_of(recipe, outputs, labels))
    return loss, float((outputs.argmax(1) == labels).double().mean())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_epochs_metrics(activation: str, normalization: str, loss: str) -> None:
    # 2503 test examples: two whole chunks and an odd one
    recipe = Recipe(
        hidden=(7, 6),
        activation=activation,
        normalization=normalization,
        loss=loss,
        dropout=0.25,
        batch_size=16,
        epochs=1,
        train_metrics=True,
    )
    outcome = train([Trial(recipe, 1)], ["x"], BYTES, dtype=torch.float64)[0]
    epoch, inputs = outcome.record.epochs[0], BYTES.test_inputs.double()
    loss_value, accuracy = expected(recipe, outcome.state, inputs * BYTES.scale, BYTES.test_labels)
    assert epoch.test_loss == pytest.approx(loss_value, rel=1e-11)
    assert epoch.test_accuracy == accuracy
    assert epoch.accuracy_on_raw_pixels == expected(recipe, outcome.state, inputs, BYTES.test_labels)[1]
    train_inputs = BYTES.train_inputs.double() * BYTES.scale
    loss_value, accuracy = expected(recipe, outcome.state, train_inputs, BYTES.train_labels)
    assert epoch.train_loss == pytest.approx(loss_value, rel=1e-11)
    assert epoch.train_accuracy == accuracy


def test_without_train_metrics_there_are_none() -> None:
    epoch = train([Trial(Recipe(hidden=(4,), batch_size=16, epochs=1), 1)], ["x"], BYTES)[0].record.epochs[0]
    assert epoch.train_loss is None
    assert epoch.train_accuracy is None


def test_scaled_and_raw_pixels_differ_and_agree_where_the_scale_is_one() -> None:
    trial = Trial(Recipe(hidden=(7, 6), activation="tanh", batch_size=16, epochs=2), 1)
    scaled = train([trial], ["x"], BYTES)[0].record.epochs[-1]
    assert scaled.accuracy_on_raw_pixels != scaled.test_accuracy
    plain = train([trial], ["x"], oracle.problem(examples=64, scale=1.0))[0].record.epochs[-1]
    assert plain.accuracy_on_raw_pixels == plain.test_accuracy


@pytest.mark.parametrize("chunk", [1, 7, 1000, 2503, 10_000])
def test_the_chunk_does_not_matter(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(Recipe(hidden=(7,), batch_size=16, epochs=1), 1)
    usual = train([trial], ["x"], BYTES, dtype=torch.float64)[0].record.epochs[0]
    monkeypatch.setattr(evaluation, "_ROWS", chunk)
    other = train([trial], ["x"], BYTES, dtype=torch.float64)[0].record.epochs[0]
    assert other.test_loss == pytest.approx(usual.test_loss, rel=1e-12)
    assert other.test_accuracy == usual.test_accuracy


@pytest.mark.parametrize("outputs", [4, 9])
def test_more_outputs_than_classes(outputs: int) -> None:
    recipe = Recipe(hidden=(7,), outputs=outputs, loss="mse", batch_size=16, epochs=1)
    outcome = train([Trial(recipe, 1)], ["x"], BYTES, dtype=torch.float64)[0]
    inputs = BYTES.test_inputs.double() * BYTES.scale
    loss, accuracy = expected(recipe, outcome.state, inputs, BYTES.test_labels)
    assert outcome.record.epochs[0].test_loss == pytest.approx(loss, rel=1e-12)
    assert outcome.record.epochs[0].test_accuracy == accuracy


def test_fewer_outputs_than_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 4"):
        train([Trial(Recipe(hidden=(7,), outputs=3), 1)], ["x"], BYTES)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size: expected at most 160"):
        train([Trial(Recipe(hidden=(7,), batch_size=161), 1)], ["x"], BYTES)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("bytes_", [True, False], ids=["bytes", "floats"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_data_are_left_as_they_were(scale: float, bytes_: bool, dtype: torch.dtype) -> None:
    """Data are shared between trials and mapped by all workers: nothing may be written into them."""
    data: Data = oracle.problem(examples=64, bytes_=bytes_, scale=scale)
    before = [t.clone() for t in (data.train_inputs, data.train_labels, data.test_inputs, data.test_labels)]
    versions = [t._version for t in (data.train_inputs, data.test_inputs)]
    recipe = Recipe(hidden=(4,), batch_size=16, epochs=2, train_metrics=True)
    train([Trial(recipe, 1)], ["x"], data, dtype=dtype)
    after = (data.train_inputs, data.train_labels, data.test_inputs, data.test_labels)
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert [t._version for t in (data.train_inputs, data.test_inputs)] == versions  # not even by factor 1


def test_float_inputs_and_bytes_of_the_same_value_train_alike() -> None:
    floats = replace(BYTES, train_inputs=BYTES.train_inputs.float(), test_inputs=BYTES.test_inputs.float())
    trial = Trial(Recipe(hidden=(7,), batch_size=16, epochs=3, train_metrics=True), 1)
    ours, theirs = train([trial], ["x"], floats)[0], train([trial], ["x"], BYTES)[0]
    assert all(torch.equal(ours.state[name], theirs.state[name]) for name in ours.state)
    for a, b in zip(ours.record.epochs, theirs.record.epochs, strict=True):
        assert replace(a, seconds=0.0) == replace(b, seconds=0.0)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_every_precision_setting_of_torch_can_be_recorded(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    recipe: dict[str, Any] = {"hidden": (4,), "batch_size": 16, "epochs": 1}
    record = train([Trial(Recipe(**recipe), 1)], ["x"], BYTES)[0].record
    assert record.environment["matmul"] == {"highest": "blas", "medium": "onednn", "high": "tf32"}[precision]
