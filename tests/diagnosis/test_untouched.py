"""No trace: whatever a network is made of, wherever it raises, diagnose and its kin leave it as it was, bit for bit."""

from __future__ import annotations

import copy
import random
from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fanin.diagnosis import diagnose
from fanin.diagnosis.lr_find import lr_find
from fanin.diagnosis.one_batch import overfit_one_batch
from fanin.diagnosis.watch import watch
from fanin.errors import FaninError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),  # the users' own hook, on inputs
]
WIDTH, CLASSES, BATCH = 6, 3, 8


class BoomError(Exception):
    """What a network or a loss raises in these tests."""


class Functional(nn.Module):
    """Functions, a parameter of its own, a buffer that every pass counts, noise from all three generators."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("unset", None)

    def forward(self, x):
        self.calls += 1
        noise = 1e-3 * (random.random() + np.random.rand())  # noqa: NPY002 - as users' code draws
        return torch.tanh(x * self.scale) + noise * torch.rand_like(x)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Raises(nn.Module):
    """The identity, until it is called for the n-th time by any copy."""

    def __init__(self, at):
        super().__init__()
        self.at, self.count = at, [0]  # shared by copies made here, counted anew by deep copies

    def forward(self, x):
        self.count[0] += 1
        if self.count[0] == self.at:
            raise BoomError
        return x


LEAVES = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "relu": nn.ReLU,
    # behind a layer: torch itself refuses two in a row
    "relu in place": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True)),
    "tanh": nn.Tanh,
    "batch norm": lambda: nn.BatchNorm1d(WIDTH),
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "dropout": lambda: nn.Dropout(0.3),
    "functional": Functional,
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
}


@st.composite
def networks(draw):
    """A random tree of modules, with shared and frozen parts, gradients here and there, hooks, mixed modes."""
    torch.manual_seed(draw(st.integers(0, 99)))
    parts = [LEAVES[name]() for name in draw(st.lists(st.sampled_from(sorted(LEAVES)), min_size=1, max_size=5))]
    if draw(st.booleans()):
        parts.append(parts[draw(st.integers(0, len(parts) - 1))])  # the same module twice
    if draw(st.booleans()):
        parts = [Residual(nn.Sequential(*parts))]
    model = nn.Sequential(*parts, nn.Linear(WIDTH, CLASSES))
    for p in model.parameters():
        p.requires_grad_(draw(st.integers(0, 4)) > 0)
        if draw(st.booleans()):
            p.grad = torch.full_like(p, 0.5)
    model[-1].weight.requires_grad_(True)
    for part in model.modules():
        part.training = draw(st.integers(0, 3)) > 0
    if draw(st.booleans()):
        model.register_forward_hook(lambda *_: None)
        model[-1].register_full_backward_hook(lambda *_: None)
    return model


def state_of(model):
    """Everything that must stay: by identity, and by value as bytes."""

    def content(tensor):
        return None if tensor is None else (id(tensor), tensor.detach().numpy().tobytes(), tensor.requires_grad)

    parts = list(model.modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    return {
        "parameters": [content(p) for m in parts for p in m._parameters.values()],
        "gradients": [content(p.grad) for p in model.parameters()],
        "buffers": [content(b) for m in parts for b in m._buffers.values()],
        "state": {k: v.numpy().tobytes() for k, v in model.state_dict().items()},
        "modes": [m.training for m in parts],
        "hooks": [list(getattr(m, name)) for m in parts for name in hooks],
        "parts": [(id(m), list(m._modules)) for m in parts],
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002 - the global generator is meant
        "python": random.getstate(),
    }


def data():
    g = torch.Generator().manual_seed(5)
    x = torch.randn(3 * BATCH, WIDTH, generator=g)
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, x[:, :CLASSES].argmax(1)), batch_size=BATCH, shuffle=True
    )


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


WAYS = {
    "diagnose, one pass": lambda m, loss: diagnose(m, data(), loss=loss, optimizer=sgd, steps=0),
    "diagnose, 3 steps": lambda m, loss: diagnose(m, data(), loss=loss, optimizer=sgd, steps=3),
    "lr_find": lambda m, loss: lr_find(m, data(), loss=loss, optimizer=sgd, seeds=2, steps=10),
    "overfit_one_batch": lambda m, loss: overfit_one_batch(m, data(), loss=loss, optimizer=sgd, steps=3),
}


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=6)
@given(model=networks())
def test_nothing_is_left_behind(way, model):
    before = state_of(model)
    WAYS[way](model, nn.functional.cross_entropy)
    assert state_of(model) == before


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=4)
@given(model=networks(), at=st.integers(1, 8))
def test_nothing_is_left_behind_where_forward_raises(way, model, at):
    model.append(Raises(at))
    before = state_of(model)
    with suppress(FaninError, BoomError):
        WAYS[way](model, nn.functional.cross_entropy)
    assert state_of(model) == before


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=4)
@given(model=networks(), at=st.integers(1, 8))
def test_nothing_is_left_behind_where_the_loss_raises(way, model, at):
    calls = [0]

    def loss(outputs, targets):
        calls[0] += 1
        if calls[0] == at:
            raise BoomError
        return nn.functional.cross_entropy(outputs, targets)

    before = state_of(model)
    with suppress(FaninError, BoomError):
        WAYS[way](model, loss)
    assert state_of(model) == before


@settings(max_examples=12)
@given(model=networks(), raising=st.sampled_from([None, 0, 1]), seed=st.integers(0, 9))
def test_watching_changes_nothing_and_leaves_no_hook(model, raising, seed):
    """A user's own loop does to the model what it does unwatched, gradients and random numbers included."""
    twin = copy.deepcopy(model)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.grad = None if p.grad is None else p.grad.clone()  # deepcopy leaves gradients out

    def train(network, watched):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global generator is meant
        random.seed(seed)
        optimizer = sgd([p for p in network.parameters() if p.requires_grad])
        looking = watch(network, optimizer, every=1, on_finding=lambda _: None) if watched else nullcontext()
        with suppress(BoomError), looking:
            for i, (x, y) in enumerate(data()):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x), y).backward()
                if i == raising:
                    raise BoomError
                optimizer.step()
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks
        gradients = [None if p.grad is None else p.grad.numpy().tobytes() for p in network.parameters()]
        found = state_of(network)
        return gradients, {key: found[key] for key in ("state", "modes", "torch", "numpy", "python")}

    hooks = state_of(model)["hooks"]
    assert train(model, watched=True) == train(twin, watched=False)
    assert state_of(model)["hooks"] == hooks


def test_the_comparison_sees_every_kind_of_trace():
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, CLASSES))
    x = torch.randn(4, WIDTH)
    traces = {
        "state": lambda: model[0].weight.data.add_(1e-7),
        "gradients": lambda: setattr(model[0].weight, "grad", torch.zeros(WIDTH, WIDTH)),
        "buffers": lambda: model(x),
        "modes": model[1].eval,
        "hooks": lambda: model[2].register_forward_hook(lambda *_: None),
        "torch": lambda: torch.rand(1),
        "numpy": np.random.rand,
        "python": random.random,
    }
    for key, leave in traces.items():
        before = state_of(model)
        leave()
        assert state_of(model)[key] != before[key], key
