"""What wraps networks and optimisers is taken off; and whose line a warning names."""

from __future__ import annotations

import contextlib
import inspect
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fanin.errors import FaninError
from fanin.training import OptimizerSpec, Training, alone, callers, untouched
from fanin.training.wrappers import bare, local, needs_others, sharded, unparallel, unwrapped_optimizer


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))


def test_the_network_within_is_found() -> None:
    model = net()
    compiled = torch.compile(model, backend="eager")
    assert alone(model) is bare(model) is unparallel(model) is model
    assert alone(nn.DataParallel(model)) is unparallel(nn.DataParallel(model)) is model
    assert alone(compiled) is bare(nn.DataParallel(compiled)) is model
    assert unparallel(compiled) is compiled


def test_a_compiled_network_is_trained_as_the_one_within() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = (torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    training = Training.of(torch.compile(model, backend="eager"), data, optimizer=optimizer)
    made = training.new(0)
    assert type(made) is nn.Sequential
    assert [name for name, _ in made.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert len(training.optimizer.build(made).param_groups[0]["params"]) == 4


class Spread(nn.Parameter):
    """As a DTensor: this process has the first row."""

    def to_local(self) -> torch.Tensor:
        return self.detach()[:1]


def test_weights_that_are_spread_over_processes_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].weight = Spread(torch.ones(2, 2))
    assert sharded(model[0].weight)
    assert not sharded(model[0].bias)
    assert local(model[0].weight).shape == (1, 2)
    assert local(model[0].bias) is model[0].bias
    with pytest.raises(FaninError, match=r"got Linear, whose weights are spread .* before fully_shard"):
        alone(model)


def test_normalisation_over_processes_is_refused_where_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.SyncBatchNorm(3))
    assert alone(model) is model  # one process: it normalises by its own batch
    assert not needs_others(model)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(FaninError, match="SyncBatchNorm, which waits for the others"):
        alone(model)
    assert needs_others(nn.DataParallel(model))  # so that watch does not pass a batch once more in one of them


def test_the_optimizer_within_is_found() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    wrapped = types.SimpleNamespace(optimizer=types.SimpleNamespace(optimizer=optimizer))
    assert unwrapped_optimizer(optimizer) is unwrapped_optimizer(wrapped) is optimizer
    assert unwrapped_optimizer(torch.optim.Adam) is torch.optim.Adam
    assert unwrapped_optimizer(None) is None
    strange = types.SimpleNamespace(optimizer="adam")
    assert unwrapped_optimizer(strange) is strange
    spec = OptimizerSpec.of(wrapped, model)
    assert spec.words == "Adam"
    assert spec.build(net()).param_groups[0]["lr"] == 0.5


def in_module(name: str, source: str) -> dict[str, Any]:
    """What this source defines, in a module of that name."""
    names: dict[str, Any] = {"__name__": name, "warnings": warnings, "users_level": callers.users_level}
    exec(compile(source, f"<{name}>", "exec"), names)
    return names


WARNS = """
def warn():
    warnings.warn("words", UserWarning, stacklevel=users_level())
def through(function):
    return function()
"""


def line_of(function: Callable[[], Any]) -> tuple[str, int]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    (one,) = caught
    return one.filename, one.lineno


@pytest.mark.parametrize("between", ["fanin.training.loop", "torch.optim.adam", "accelerate.optimizer", "contextlib"])
def test_a_warning_names_the_first_line_that_is_the_users(between: str) -> None:
    warn = in_module("fanin.inner", WARNS)["warn"]
    through = in_module(between, WARNS)["through"]

    def user() -> None:
        through(warn)

    line = inspect.getsourcelines(user)[1] + 1
    assert line_of(user) == (__file__, line)
    assert line_of(lambda: through(user)) == (__file__, line)


def test_a_name_that_only_begins_like_one_of_those_is_the_users() -> None:
    warn = in_module("fanin.inner", WARNS)["warn"]
    assert line_of(lambda: in_module("fanin_study", WARNS)["through"](warn))[0] == "<fanin_study>"


def test_a_parameter_that_its_own_forward_changed_is_told_of_on_the_users_line() -> None:
    model = nn.Linear(2, 2)

    def user() -> None:
        with contextlib.ExitStack() as stack, torch.no_grad():
            stack.enter_context(untouched(model, parameters=False))
            model.weight.add_(1)

    assert line_of(user)[0] == __file__
    with pytest.warns(RuntimeWarning, match=r"Linear\.weight was changed in place"):
        user()
