"""Optimisers for another copy of the network: groups, factories, foreign parameters, changed options."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fanin.errors import FaninError
from fanin.training import OptimizerSpec, copy_of
from fanin.training.optimizers import held, learning_rate


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, times: int = 3) -> list[torch.Tensor]:
    for _ in range(times):
        optimizer.zero_grad()
        net(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    return [p.detach() for p in net.parameters()]


OPTIMIZERS = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01, betas=(0.5, 0.9), amsgrad=True),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), weight_decay=0.3),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), centered=True),
    "groups": lambda m: torch.optim.SGD(
        [{"params": m[2].parameters(), "lr": 0.5}, {"params": [m[0].weight], "momentum": 0.9}], lr=0.01
    ),
    "named": lambda m: torch.optim.SGD(m.named_parameters(), lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rebuilt_instance_takes_the_same_steps(name):
    net = model()
    other = copy_of(net)
    original = OPTIMIZERS[name](net)
    rebuilt = OptimizerSpec.of(original, net).build(other)
    assert [len(g["params"]) for g in rebuilt.param_groups] == [len(g["params"]) for g in original.param_groups]
    for mine, its in zip(step(net, original), step(other, rebuilt), strict=True):
        assert torch.equal(mine, its)
    assert not {id(p) for p in held(rebuilt)} & {id(p) for p in net.parameters()}


def test_state_and_schedules_of_the_instance_stay_where_they_are():
    net = model()
    original = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.StepLR(original, 1)  # leaves initial_lr in the groups
    step(net, original)
    rebuilt = OptimizerSpec.of(original, net).build(copy_of(net))
    assert not rebuilt.state
    assert original.state
    assert "initial_lr" not in rebuilt.param_groups[0]


def test_lbfgs():
    net = model()
    spec = OptimizerSpec.of(torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=7), net)
    built = spec.build(copy_of(net))
    assert isinstance(built, torch.optim.LBFGS)
    assert (built.param_groups[0]["lr"], built.param_groups[0]["max_iter"]) == (0.5, 7)


def test_classes_and_factories():
    net = model()
    for given in (torch.optim.Adagrad, lambda parameters: torch.optim.Adagrad(parameters, lr=0.1)):
        assert isinstance(OptimizerSpec.of(given, net).build(net), torch.optim.Adagrad)
    default = OptimizerSpec.of(None, net)
    assert isinstance(default.build(net), torch.optim.Adam)
    assert "none was given" in default.words


def test_foreign_parameters_are_counted_and_left_out():
    net, stranger = model(), nn.Linear(2, 2)
    spec = OptimizerSpec.of(torch.optim.SGD([*net.parameters(), *stranger.parameters()], lr=0.1), net)
    assert spec.foreign == 2
    assert len(held(spec.build(net))) == 4
    wholly = OptimizerSpec.of(torch.optim.SGD(stranger.parameters(), lr=0.1), net)
    with pytest.raises(FaninError, match="holds none of the model's parameters; give a function"):
        wholly.build(net)


def test_options_in_all_groups():
    net = model()
    spec = OptimizerSpec.of(OPTIMIZERS["groups"](net), net)
    assert [g["lr"] for g in spec.with_options(lr=0.3).build(net).param_groups] == [0.3, 0.3]
    assert [g["lr"] for g in spec.scaled(0.1).build(net).param_groups] == pytest.approx([0.05, 0.001])
    assert learning_rate(spec.scaled(0.1).with_options(lr=0.3).build(net)) == 0.3
    assert learning_rate(spec.build(net)) == 0.5
    assert [g["lr"] for g in spec.build(net).param_groups] == [0.5, 0.01]


def test_renamed_follows_parameters_into_a_changed_network():
    net = model()
    wrapped = nn.Sequential(copy_of(net), nn.BatchNorm1d(2))
    spec = OptimizerSpec.of(OPTIMIZERS["groups"](net), net)
    built = spec.renamed(lambda name: f"0.{name}", added=["1.weight"]).build(wrapped)
    assert [len(g["params"]) for g in built.param_groups] == [3, 1]
    assert any(p is wrapped[1].weight for p in built.param_groups[0]["params"])
    factory = OptimizerSpec.of(torch.optim.SGD, net)
    assert factory.renamed(str.upper) is factory
    with pytest.raises(FaninError, match="KeyError"):
        spec.build(wrapped)


@pytest.mark.parametrize(
    ("given", "words"),
    [("adam", "got str"), (3, "got int")],
)
def test_what_is_no_optimizer_is_refused(given, words):
    with pytest.raises(FaninError, match=words):
        OptimizerSpec.of(given, model())


def test_factories_that_fail_or_make_something_else():
    net = model()
    with pytest.raises(FaninError, match=r"to make a torch\.optim optimiser; got list"):
        OptimizerSpec.of(list, net).build(net)
    with pytest.raises(FaninError, match="raised ValueError: Invalid learning rate"):
        OptimizerSpec.of(lambda p: torch.optim.SGD(p, lr=-1), net).build(net)


def test_a_function_of_the_model_will_do_as_well():
    model = nn.Linear(2, 1)
    built = OptimizerSpec.of(lambda network: torch.optim.SGD(network.parameters(), lr=0.5), model).build(model)
    assert [id(p) for p in built.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
    assert built.param_groups[0]["lr"] == 0.5


def test_a_function_of_neither_tells_of_its_own_error():
    model = nn.Linear(2, 1)
    with pytest.raises(FaninError, match="unexpected keyword argument 'rate'"):
        OptimizerSpec.of(lambda parameters: torch.optim.SGD(parameters, rate=0.5), model).build(model)
