"""Single passes of a network: what runs, drops, mixes and raises, on networks where that is plain; no trace is left."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fanin.diagnosis import diagnose
from fanin.diagnosis.one_batch import overfit_one_batch
from fanin.diagnosis.passes import drops_in_evaluation, error_in_evaluation, examples, mixes_examples, modules_called
from fanin.errors import FaninError
from fanin.training import Batch

pytestmark = pytest.mark.usefixtures("one_thread")


def batch(n: int = 8) -> Batch:
    return Batch((torch.randn(n, 3, generator=torch.Generator().manual_seed(0)),), torch.arange(n))


class Does(nn.Module):
    """A linear layer, then a function of its outputs and of the module's mode."""

    def __init__(self, then) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.idle = nn.Linear(3, 2)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.layer(x), self.training)


def fails(x: Tensor, training: bool) -> Tensor:
    raise RuntimeError("whatever")


def test_modules_are_those_that_run_in_their_order() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))
    assert modules_called(model, batch()) == [
        ("0", model[0]),
        ("1.0", model[1][0]),
        ("1.1", model[1][1]),
        ("1", model[1]),
        ("", model),
    ]
    assert [name for name, _ in modules_called(Does(lambda z, _: z), batch())] == ["layer", ""]
    assert [name for name, _ in modules_called(Does(fails), batch())] == ["layer"]


@pytest.mark.parametrize(
    ("then", "drops"),
    [
        (lambda z, _: functional.dropout(z, 0.5), True),
        (lambda z, _: functional.dropout(z, p=0.5, training=True), True),
        (lambda z, training: functional.dropout(z, 0.5, training), False),
        (lambda z, _: functional.dropout(z, 0.0), False),
        (lambda z, _: functional.alpha_dropout(z, 0.5), False),
        (lambda z, _: functional.alpha_dropout(z, 0.5, True), True),
        (lambda z, _: torch.dropout(z, 0.5, train=True), True),
        (lambda z, _: torch.dropout(z, 0.5, train=False), False),
        (fails, False),
    ],
)
def test_dropout_in_evaluation(then, drops: bool) -> None:
    assert drops_in_evaluation(Does(then), batch()) is drops


@pytest.mark.parametrize(
    ("then", "mixes"),
    [
        (lambda z, _: z, False),
        (lambda z, _: z - z.mean(0), True),
        (lambda z, _: z - z.mean(1, keepdim=True), False),
        (lambda z, training: z - z.mean(0) if training else z, False),
        (lambda z, _: z + torch.randn_like(z), False),  # random: not known
        (lambda z, _: z.mean(0), False),  # no row for each example
        (fails, False),
    ],
)
def test_examples_that_depend_on_each_other(then, mixes: bool) -> None:
    assert mixes_examples(Does(then), batch()) is mixes
    assert not mixes_examples(Does(then), batch(1))


def test_errors_in_evaluation_are_handed_back() -> None:
    loss = nn.CrossEntropyLoss()
    assert isinstance(error_in_evaluation(Does(fails), loss, batch()), RuntimeError)
    assert isinstance(error_in_evaluation(Does(lambda z, _: z), loss, batch()), IndexError)  # class 7 of 2
    fit = Batch(batch().inputs, torch.zeros(8, dtype=torch.long))
    assert error_in_evaluation(Does(lambda z, _: z), loss, fit) is None
    assert error_in_evaluation(Does(lambda z, training: fails(z, training) if training else z), loss, fit) is None


class Stubborn(nn.Module):
    """Its own train() raises."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def train(self, mode: bool = True) -> Stubborn:
        raise ValueError("no modes here")


def test_a_train_that_raises_is_an_error_like_any_other() -> None:
    model, loss = Stubborn(), nn.CrossEntropyLoss()
    error = error_in_evaluation(model, loss, batch())
    assert isinstance(error, ValueError)
    assert error.args == ("no modes here",)
    assert not drops_in_evaluation(model, batch())
    assert not mixes_examples(model, batch())
    assert [name for name, _ in modules_called(model, batch())] == ["layer", ""]
    x, y = batch().inputs[0], batch().targets % 2
    (finding,) = diagnose(model, (x, y), loss=loss, eval_data=(x, y), steps=0).findings
    assert finding.cause == "wrong-mode"
    assert "raises ValueError: no modes here, on training data too" in finding.evidence
    with pytest.raises(FaninError, match=r"forward raised ValueError.*no modes here"):
        diagnose(model, (x, y), steps=0)  # no loss: the outputs are asked
    verdict = overfit_one_batch(model, (x, y), loss=loss, steps=2).verdict
    assert verdict == "It cannot be trained on one batch of 8: ValueError: no modes here"


def test_a_network_that_gives_no_tensor_in_evaluation_mode_mixes_nothing() -> None:
    model = Does(lambda z, training: z if training else {"boxes": []})
    assert not mixes_examples(model, batch())
    mixed = Does(lambda z, training: z if training else z - z.mean(0))
    assert mixes_examples(mixed, batch())


def test_some_examples_of_a_batch() -> None:
    scale = torch.ones(())
    whole = Batch((*batch().inputs, scale, "word"), batch().targets, {"mask": torch.arange(8), "other": torch.ones(5)})
    part = examples(whole, 2, 5)
    assert torch.equal(part.inputs[0], whole.inputs[0][2:5])
    assert part.inputs[1] is scale
    assert part.inputs[2] == "word"
    assert part.targets.tolist() == part.named["mask"].tolist() == [2, 3, 4]
    assert len(part.named["other"]) == 5


@pytest.mark.parametrize("look", [modules_called, drops_in_evaluation, mixes_examples])
def test_passes_leave_the_network_as_it_was(look) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[2].eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    look(model, batch())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [part.training for part in model.modules()] == [True, True, True, False]
    assert not any(part._forward_hooks for part in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
