"""Each remedy: what it changes, shown by what comes out; what it refuses, in words."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fanin.errors import FaninError
from fanin.finding import REMEDIES, Remedy
from fanin.proof.judging import run
from fanin.proof.remedies import APPLY, apply, as_change, remedy
from fanin.proof.scaling import moments
from fanin.training import Batch, Training
from fanin.training.optimizers import held

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * 3 + 7
Y = torch.arange(60) % 3
T = X @ torch.randn(5, 2, generator=torch.Generator().manual_seed(1)) * 100 + 1000


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def training(make=make, data=(X, Y), **options) -> Training:
    return Training.of(make, data, **options)


def with_instance(make=make, data=(X, Y)) -> Training:
    model = make()
    optimizer = torch.optim.SGD(
        [{"params": model[:2].parameters(), "lr": 0.2}, {"params": model[2:].parameters()}], 0.1
    )
    return Training.of(model, data, optimizer=optimizer)


def test_there_is_a_function_for_every_kind_and_no_more():
    assert set(APPLY) == set(REMEDIES)


def test_init_draws_all_weights_with_the_gain_of_what_follows():
    wide = training(lambda: nn.Sequential(nn.Linear(5, 2000), nn.ReLU(), nn.Linear(2000, 3)))
    model = apply(remedy("init=kaiming_normal"), wide).new(0)
    assert model[0].weight.std().item() == pytest.approx((2 / 5) ** 0.5, rel=0.03)
    assert model[2].weight.std().item() == pytest.approx((1 / 2000) ** 0.5, rel=0.05)
    assert torch.equal(model[0].bias, torch.zeros(2000))
    with pytest.raises(FaninError, match="did you mean 'kaiming_normal'"):
        apply(remedy("init=kaiming_norml"), wide)


def test_init_is_of_the_seed():
    found = apply(remedy("init=orthogonal"), training())
    assert torch.equal(found.new(3)[0].weight, found.new(3)[0].weight)
    assert not torch.equal(found.new(3)[0].weight, found.new(4)[0].weight)


def test_normalization_stands_behind_hidden_layers_and_is_trained():
    for start in (training(), with_instance()):
        found = apply(remedy("normalization"), start)
        model = found.new(0)
        assert [type(model[i]).__name__ for i in range(5)] == ["Sequential", "ReLU", "Sequential", "ReLU", "Linear"]
        assert isinstance(model[0][1], nn.BatchNorm1d)
        optimizer = found.optimizer.build(model)
        assert {id(p) for p in held(optimizer)} == {id(p) for p in model.parameters()}
        assert torch.equal(model[0][0].weight, start.new(0)[0].weight)
    assert [g["lr"] for g in optimizer.param_groups] == [0.2, 0.1]


def test_normalization_of_convolutions_and_named_layers():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(1, 4, 3), nn.Linear(36, 3)

        def forward(self, x):
            return self.out(self.conv(x).relu().flatten(1))

    found = apply(remedy("normalization"), training(Net, (torch.randn(9, 1, 5, 5), Y[:9])))
    assert isinstance(found.new(0).conv[1], nn.BatchNorm2d)
    model, _ = run(found, 0, steps=2)
    assert model.conv[1].num_batches_tracked == 2


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x):
        return self.layer(self.layer(x).relu())


@pytest.mark.parametrize(
    ("network", "data", "words"),
    [
        (lambda: nn.Linear(5, 3), (X, Y), "found none"),
        (Twice, (X, X), "layer: called more than once"),
        (
            lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)),
            (torch.randn(4, 6, 5), torch.zeros(4, 6).long()),
            "mix positions",
        ),
        (lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), (X, Y), "already"),
    ],
)
def test_normalization_says_why_not(network, data, words):
    with pytest.raises(FaninError, match=words):
        apply(remedy("normalization"), training(network, data))


def test_learning_rates():
    one = apply(remedy("lr=0.5"), with_instance())
    assert [g["lr"] for g in one.optimizer.build(one.new(0)).param_groups] == [0.5, 0.5]
    tenth = apply(Remedy("lr", "", {"factor": 0.1}), with_instance())
    assert [g["lr"] for g in tenth.optimizer.build(tenth.new(0)).param_groups] == pytest.approx([0.02, 0.01])
    for wrong in ("lr=-1", "lr=fast", "lr"):
        with pytest.raises(FaninError, match="positive number"):
            apply(remedy(wrong), training())


def test_inputs_are_standardised_by_feature():
    found = apply(remedy("input-scaling"), training(data=(X, Y), batch_size=60))
    batch = next(found.stream(0))
    torch.testing.assert_close(batch.first.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.first.std(0, correction=0), torch.ones(5), atol=1e-5, rtol=0)


def test_moments_are_those_of_all_examples():
    parts = [torch.randn(n, 3, 4, 4, dtype=torch.float64) * 5 + 1e4 for n in (2, 5, 1)]
    whole = torch.cat(parts)
    mean, deviation = moments(iter(parts))
    torch.testing.assert_close(mean.flatten(), whole.mean((0, 2, 3)))
    torch.testing.assert_close(deviation.flatten(), whole.std((0, 2, 3), correction=0))
    assert mean.shape == (3, 1, 1)
    sequence, one = moments(iter([torch.randn(4, 6, 5)])), moments(iter([torch.ones(4, 2)]))
    assert sequence[0].numel() == 1
    assert torch.equal(one[1], torch.ones(2, dtype=torch.float64))  # what does not vary keeps its scale


def test_named_inputs_are_standardised():
    data = [{"x": X, "labels": Y}]

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return self.layer(x)

    batch = next(apply(remedy("input-scaling"), training(Named, data)).stream(0))
    assert abs(batch.named["x"].mean().item()) < 1e-5


def test_scaling_refuses_what_has_no_scale():
    network = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(6, 3))
    with pytest.raises(FaninError, match=r"real numbers; got torch\.int64"):
        apply(remedy("input-scaling"), training(network, (torch.ones(8, 2).long(), Y[:8])))
    with pytest.raises(FaninError, match="the inputs are the targets too"):
        apply(remedy("input-scaling"), training(lambda: nn.Linear(5, 5), X))
    with pytest.raises(FaninError, match=r"targets of real numbers; got torch\.int64"):
        apply(remedy("target-scaling"), training())


@pytest.mark.parametrize("start", ["factory", "instance"])
def test_targets_are_standardised_and_outputs_come_back_in_their_units(start):
    def net() -> nn.Sequential:
        return nn.Sequential(nn.Linear(5, 2))

    base = training(net, (X, T), batch_size=60)
    if start == "instance":
        model = net()
        base = Training.of(model, (X, T), optimizer=torch.optim.SGD(model.parameters(), 0.1), batch_size=60)
    found = apply(remedy("target-scaling"), base)
    batch = next(found.stream(0))
    torch.testing.assert_close(batch.targets.std(0, correction=0), torch.ones(2), atol=1e-4, rtol=0)
    model = found.new(0)
    z, units = model(X), model.eval()(X)
    torch.testing.assert_close(units, z * T.std(0, correction=0) + T.mean(0), rtol=1e-4, atol=1e-2)
    assert len(held(found.optimizer.build(model))) == 2


def test_losses():
    z = torch.randn(60, 3)
    found = apply(remedy("loss=cross_entropy"), training(loss=nn.MultiMarginLoss()))
    torch.testing.assert_close(found.loss(z, Y), nn.functional.cross_entropy(z, Y))
    own = apply(Remedy("loss", "", {"name": nn.NLLLoss()}), training())
    torch.testing.assert_close(own.loss(z, Y), nn.functional.nll_loss(z, Y))
    with pytest.raises(FaninError, match="did you mean 'cross_entropy'"):
        apply(remedy("loss=crossentropy"), training())


def test_the_last_activation_is_taken_away_or_put_there():
    ends = training(lambda: nn.Sequential(nn.Linear(5, 3), nn.Softmax(1)))
    without = apply(remedy("output-activation=none"), ends)
    torch.testing.assert_close(without.new(0)(X), ends.new(0)[0](X))
    other = apply(Remedy("output-activation", "", {"name": "sigmoid"}), ends)
    torch.testing.assert_close(other.new(0)(X), ends.new(0)[0](X).sigmoid())
    for start in (training(), with_instance()):
        added = apply(Remedy("output-activation", "", {"name": nn.Tanh}), start)
        torch.testing.assert_close(added.new(0)(X), start.new(0)(X).tanh())
        assert len(held(added.optimizer.build(added.new(0)))) == 6


def test_an_activation_that_is_no_module_of_its_own_is_left_to_the_user():
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return self.layer(x).softmax(1)

    shared = nn.ReLU()
    for network in (Inside, lambda: nn.Sequential(nn.Linear(5, 3), shared, nn.Linear(3, 3), shared)):
        with pytest.raises(FaninError, match="take it away in your code"):
            apply(remedy("output-activation"), training(network))


def test_optimizers():
    found = apply(remedy("optimizer=sgd,lr=0.1,momentum=0.9"), training())
    group = found.optimizer.build(found.new(0)).param_groups[0]
    assert (group["lr"], group["momentum"]) == (0.1, 0.9)
    less = apply(Remedy("optimizer", "", {"weight_decay": 0.25}), with_instance())
    assert [g["weight_decay"] for g in less.optimizer.build(less.new(0)).param_groups] == [0.25, 0.25]
    with pytest.raises(FaninError, match="did you mean 'adamax'"):
        apply(remedy("optimizer=adma"), training())
    with pytest.raises(FaninError, match="raised TypeError"):
        apply(remedy("optimizer=adam,momentum=0.9"), training())
    with pytest.raises(FaninError, match="holds the parameters of one network"):
        apply(Remedy("optimizer", "", {"name": torch.optim.SGD(make().parameters(), 0.1)}), training())


def test_batch_sizes():
    found = apply(remedy("batch-size=20"), training())
    assert (next(found.stream(0)).size, found.batches.steps) == (20, 3)
    with pytest.raises(FaninError, match="number of examples"):
        apply(remedy("batch-size=0"), training())
    with pytest.raises(FaninError, match="to change the batch size"):
        apply(remedy("batch-size=4"), training(data=[(X, Y)]))


def test_modes_and_frozen_parameters():
    assert apply(remedy("train-mode"), training(lambda: make().eval())).new(0).training

    def frozen() -> nn.Sequential:
        model = make()
        model[0].requires_grad_(False)
        return model

    model = frozen()
    partly = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for base in (training(frozen), Training.of(model, (X, Y), optimizer=partly)):
        found = apply(remedy("unfreeze"), base)
        trained, _ = run(found, 0, steps=2)
        assert not torch.equal(trained[0].weight, found.new(0)[0].weight)
        assert len(held(found.optimizer.build(trained))) == 6


def test_text_and_options_that_do_not_fit():
    assert remedy("input_scaling").kind == "input-scaling"
    for text, words in (
        ("lr_0.1", "expected one of init"),
        ("input-scaling=2", "takes no value"),
        ("optimizer=sgd,fast", "OPTION=VALUE"),
    ):
        with pytest.raises(FaninError, match=words):
            remedy(text)
    with pytest.raises(FaninError, match="unexpected keyword argument 'speed'"):
        apply(Remedy("lr", "", {"speed": 3}), training())
    with pytest.raises(FaninError, match="expected one of init"):
        apply(Remedy("magic", ""), training())


def test_what_a_variant_may_be():
    base = training()
    name, change = as_change(lambda t: t.changed(loss_words="mine"))
    assert (name, change(base).loss_words) == ("the variant", "mine")
    name, change = as_change(make)
    assert (name, change(base).make) == ("make", make)
    name, change = as_change(nn.Sequential(nn.Linear(5, 3)))
    assert isinstance(change(base).new(0)[0], nn.Linear)
    assert as_change("lr=0.1")[0] == "lr=0.1"
    with pytest.raises(FaninError, match="returns a Training; got Batch"):
        as_change(lambda t: Batch((X,), Y))[1](base)
    with pytest.raises(FaninError, match="got int"):
        as_change(3)
