"""The warning of a watched training names the user's line, whatever stands between it and the step."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from fanin.diagnosis.watch import DiagnosisWarning, watch

pytestmark = pytest.mark.usefixtures("one_thread")


def stuck() -> tuple[nn.Module, torch.optim.Optimizer, nn.Module, torch.Tensor, torch.Tensor]:
    """A network at a learning rate that moves nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(64, 6)
    return model, torch.optim.SGD(model.parameters(), lr=1e-8), nn.CrossEntropyLoss(), x, x[:, :3].argmax(1)


def line(function: Callable[..., None], words: str) -> int:
    """Where in this file `words` stand in a function."""
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, text in enumerate(lines) if words in text)


def plain() -> None:
    model, optimizer, criterion, x, y = stuck()
    with watch(model, optimizer, every=10, loss=criterion):
        for _ in range(150):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()  # here


def scaled() -> None:
    model, optimizer, criterion, x, y = stuck()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    with watch(model, optimizer, every=10, loss=criterion, scaler=scaler):
        for _ in range(150):
            optimizer.zero_grad()
            scaler.scale(criterion(model(x), y)).backward()
            scaler.step(optimizer)  # here
            scaler.update()
            schedule.step()


def closure() -> None:
    model, optimizer, criterion, x, y = stuck()

    def asked() -> torch.Tensor:
        optimizer.zero_grad()
        value = criterion(model(x), y)
        value.backward()
        return value

    with watch(model, optimizer, every=10, loss=criterion):
        for _ in range(150):
            optimizer.step(asked)  # here


def at_the_end() -> None:
    model, optimizer, criterion, x, y = stuck()
    optimizer.param_groups[0]["lr"] = 0.05
    with ExitStack() as stack:
        stack.enter_context(watch(model, optimizer, every=300, loss=criterion))
        for _ in range(60):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()


@pytest.mark.parametrize("training", [plain, scaled, closure])
def test_the_line_is_that_of_the_step(training: Callable[[], None]) -> None:
    with pytest.warns(DiagnosisWarning, match="learning-rate-low") as caught:
        training()
    assert {(w.filename, w.lineno) for w in caught} == {(__file__, line(training, "# here"))}


def test_at_the_end_it_is_in_the_users_file() -> None:
    with pytest.warns(DiagnosisWarning, match="too-few-epochs") as caught:
        at_the_end()
    assert {w.filename for w in caught} == {__file__}


def test_a_user_can_silence_it_by_the_name_of_their_own_module() -> None:
    """As warnings' filters know a warning by the module whose line it names."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DiagnosisWarning, module=__name__.replace(".", r"\."))
        plain()
