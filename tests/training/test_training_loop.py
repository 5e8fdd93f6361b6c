"""The loop against one written by hand, bit for bit; losses chosen and called; a training from what users have."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fanin.errors import FaninError
from fanin.training import Batch, Batches, Training, choose_loss, train
from fanin.training.losses import call, main_output, name_of, no_gradient, targets_of, value_of
from fanin.training.randomness import RandomState
from fanin.training.setup import seeded

X, Y = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def test_steps_are_those_of_a_loop_by_hand():
    training = Training.of(make, (X, Y), batch_size=8, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    model = training.new(3)
    curve = train(model, training.stream(3), training.loss, training.optimizer.build(model), steps=12)

    other = seeded(make, 3)
    optimizer, losses = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9), []
    batches = [b for epoch in (1, 2, 3) for b in training.batches.epoch(3, epoch)]
    for batch in batches[:12]:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(other(batch.inputs[0]), batch.targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert curve.losses == losses
    assert curve.sizes == [8] * 12
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_lbfgs_steps_are_torchs():
    batch = Batch((X,), Y)
    mine, other = seeded(make, 0), seeded(make, 0)
    train(mine, [batch] * 2, nn.functional.cross_entropy, torch.optim.LBFGS(mine.parameters(), max_iter=4), steps=2)
    optimizer = torch.optim.LBFGS(other.parameters(), max_iter=4)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(other(X), Y)
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), other.parameters(), strict=True))


def test_a_loss_that_is_not_finite_stops_before_the_update():
    model = make()
    before = [p.detach().clone() for p in model.parameters()]
    batches = [Batch((X * float("inf"),), Y)]
    curve = train(model, batches, nn.functional.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1), steps=5)
    assert curve.stopped == 1
    assert not math.isfinite(curve.losses[0])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_looks_see_gradients_before_and_weights_after():
    model, seen = make(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = model[0].weight.detach().clone()

    def before(step, net, _):
        seen.append((step, torch.equal(net[0].weight, first), net[0].weight.grad is not None))

    def after(step, net, _):
        seen.append((step, torch.equal(net[0].weight, first), True))

    train(
        model,
        [Batch((X,), Y)],
        nn.functional.cross_entropy,
        optimizer,
        steps=1,
        before_update=before,
        after_update=after,
    )
    assert seen == [(1, True, True), (1, False, True)]


def test_fewer_batches_than_steps_and_a_frozen_network():
    model = make().requires_grad_(False)
    curve = train(
        model, [Batch((X,), Y)] * 2, nn.functional.cross_entropy, torch.optim.SGD(model.parameters()), steps=5
    )
    assert len(curve.losses) == 2
    assert curve.losses[0] == curve.losses[1]


@pytest.mark.parametrize(
    ("outputs", "targets", "words", "expected"),
    [
        (torch.randn(4, 3), torch.tensor([0, 1, 2, 1]), "CrossEntropy", nn.functional.cross_entropy),
        (torch.randn(4, 3, 5), torch.zeros(4, 5).long(), "CrossEntropy", nn.functional.cross_entropy),
        (
            torch.randn(4, 6, 3),
            torch.ones(4, 6).long(),
            "over positions",
            lambda z, y: nn.functional.cross_entropy(z.flatten(0, 1), y.flatten()),
        ),
        (
            torch.randn(4, 1),
            torch.tensor([0, 1, 1, 0]),
            "BCEWithLogits",
            lambda z, y: nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.float()),
        ),
        (torch.randn(4), torch.tensor([0.0, 1, 1, 0]), "BCEWithLogits", nn.functional.binary_cross_entropy_with_logits),
        (torch.randn(4, 1), torch.randn(4), "MSE", lambda z, y: nn.functional.mse_loss(z[:, 0], y)),
        (torch.randn(4, 3), torch.randn(4, 3), "MSE", nn.functional.mse_loss),
    ],
)
def test_default_losses(outputs, targets, words, expected):
    chosen = choose_loss(outputs, targets)
    assert words in chosen.words
    torch.testing.assert_close(chosen.loss(outputs, targets), expected(outputs, targets))


def test_there_is_no_default_for_other_targets():
    with pytest.raises(FaninError, match="pass loss="):
        choose_loss(torch.randn(2, 2), {"a": 1})


def test_the_output_that_targets_are_compared_to():
    z, whole = torch.randn(2, 2), torch.ones(2).long()
    assert main_output(z) is z
    assert main_output((whole, z)) is z
    assert main_output({"logits": z, "x": torch.ones(1)}) is z
    assert main_output({"hidden": z}) is z
    assert main_output(SimpleNamespace(logits=z)) is z
    with pytest.raises(FaninError, match="got str"):
        main_output("z")
    assert no_gradient(z)
    assert not no_gradient(z.requires_grad_())


def test_values_of_losses():
    batch = Batch((X,), None)
    assert targets_of(batch) is X
    assert value_of(nn.functional.mse_loss, X, batch).item() == 0
    assert call(nn.Identity(), batch) is X
    with pytest.raises(FaninError, match=r"shape \(40, 5\).*mean"):
        value_of(nn.MSELoss(reduction="none"), X, batch)
    with pytest.raises(FaninError, match="got float"):
        value_of(lambda *_: 1.0, X, batch)
    assert name_of(nn.MSELoss()) == "nn.MSELoss"
    assert name_of(nn.functional.mse_loss) == "mse_loss"


def test_a_training_leaves_no_trace_and_starts_at_the_seed(random_state):
    before = random_state()
    training = Training.of(make, (X, Y))
    assert torch.equal(training.new(4)[0].weight, training.new(4)[0].weight)
    assert not torch.equal(training.new(4)[0].weight, training.new(5)[0].weight)
    assert random_state() == before
    torch.manual_seed(4)
    assert torch.equal(training.new(4)[0].weight, make()[0].weight)


def test_a_module_is_copied_for_every_run():
    model = make().eval()
    training = Training.of(model, (X, Y))
    first, second = training.new(0), training.new(1)
    assert first is not second
    assert first is not model
    assert torch.equal(first[0].weight, second[0].weight)
    assert not first.training
    assert model[0].weight.grad is None


def test_changes_of_batches_and_embeddings():
    training = Training.of(make, (X, Y), loss=nn.CrossEntropyLoss())
    doubled = training.changed(change=lambda b: Batch((b.inputs[0] * 2,), b.targets))
    torch.testing.assert_close(next(doubled.stream(0)).first, next(training.stream(0)).first * 2)
    embedding = Training.of(
        lambda: nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(6, 3)), (X[:, :2].long().abs() % 9, Y)
    )
    assert next(embedding.stream(0)).first.dtype == torch.int64
    with pytest.raises(FaninError, match="got int"):
        Training.of(lambda: 3, (X, Y))


def test_random_states_go_on_and_outside_nothing_moves(random_state):
    state = RandomState.seeded(1)
    torch.manual_seed(1)
    expected = torch.rand(4)
    before = random_state()
    drawn = []
    for _ in range(2):
        with state.going_on():
            drawn.append(torch.rand(2))
        assert random_state() == before
    assert torch.equal(torch.cat(drawn), expected)


def test_dropout_is_drawn_by_global_generators_only():
    model = nn.Sequential(nn.Linear(5, 3), nn.Dropout())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    runs = []
    for _ in range(2):
        with RandomState.seeded(2).going_on():
            runs.append(
                train(model, Batches.of((X, Y)).endless(0), nn.functional.cross_entropy, optimizer, steps=3).losses
            )
    assert runs[0] == runs[1]
