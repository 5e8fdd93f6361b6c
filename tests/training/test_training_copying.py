"""Copies share nothing; what was untouched is so to the last bit, whatever was done meanwhile."""

from __future__ import annotations

import contextlib
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import weight_norm as old_weight_norm

from fanin.errors import FaninError
from fanin.training import copy_of, untouched


def old_style() -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.Sequential(old_weight_norm(nn.Linear(3, 4)), nn.Tanh())


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


class Keeps(nn.Module):
    """Keeps outputs that belong to a graph, alone and in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.last, self.all = None, {"seen": []}

    def forward(self, x):
        self.last = self.layer(x)
        self.all["seen"].append(self.last)
        return self.last


MODULES = {
    "plain": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
    "batch norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
    "weight_norm, old": old_style,
    "weight_norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4))),
    "spectral_norm": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 4))),
    "shared": Shared,
    "keeps outputs": Keeps,
    "frozen": lambda: nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 2)),
    "lstm": lambda: nn.LSTM(3, 4),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_copy_computes_the_same_and_shares_no_tensor(name):
    torch.manual_seed(1)
    model, x = MODULES[name](), torch.randn(5, 3)
    model(x)  # with stored outputs, if it keeps any
    found = copy_of(model.eval())
    mine, its = (out[0] if isinstance(out, tuple) else out for out in (model(x), found(x)))
    assert torch.equal(mine, its)
    own = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    assert not own & {t.data_ptr() for t in (*found.parameters(), *found.buffers())}
    its.sum().backward()
    assert all(p.grad is None for p in model.parameters())


def test_a_copy_trains_alone():
    model = MODULES["plain"]()
    before = pickle.dumps(model.state_dict())
    found = copy_of(model)
    with torch.no_grad():
        for p in found.parameters():
            p.add_(1)
    assert pickle.dumps(model.state_dict()) == before


def test_shared_parameters_stay_shared_and_gradients_are_left_out():
    model = Shared()
    model(torch.ones(1, 3)).sum().backward()
    found = copy_of(model)
    assert found.a.weight is found.b.weight
    assert all(p.grad is None for p in found.parameters())
    assert model.a.weight.grad is not None


def test_modes_and_hooks_are_copied():
    model, seen = MODULES["plain"](), []
    model[0].eval()
    model[0].register_forward_hook(lambda *_: seen.append(1))
    found = copy_of(model)
    assert (found.training, found[0].training) == (True, False)
    found(torch.ones(1, 3))
    assert seen == [1]


def test_a_module_that_cannot_be_copied_is_told():
    model = nn.Linear(2, 2)
    model.file = (i for i in range(3))  # generators cannot be copied
    with pytest.raises(FaninError, match=r"copy\.deepcopy can copy.*generator"):
        copy_of(model)


def all_of(model: nn.Module) -> bytes:
    """Everything that untouched promises, as bytes; -0 is not 0."""
    parts = []
    for path, part in model.named_modules():
        parts.append((path, part.training, len(part._forward_hooks), len(part._forward_pre_hooks)))
        parts.append((len(part._backward_hooks), list(part._buffers), list(part._parameters)))
        for kind in (part._parameters, part._buffers):
            for name, t in kind.items():
                values = None if t is None else (id(t), t.requires_grad, t.detach().numpy().tobytes())
                grad = None if t is None or t.grad is None else (id(t.grad), t.grad.numpy().tobytes())
                parts.append((name, values, grad))
    return pickle.dumps(parts)


ACTIONS = {
    "trains": lambda m: torch.optim.SGD([p for p in m.parameters() if p.requires_grad] or [torch.ones(1)], 0.1),
    "eval": lambda m: m.eval(),
    "train": lambda m: m.train(),
    "freezes": lambda m: m.requires_grad_(False),
    "clears gradients": lambda m: [setattr(p, "grad", None) for p in m.parameters()],
    "adds to gradients": lambda m: [p.grad.add_(1) for p in m.parameters() if p.grad is not None],
    "hooks": lambda m: [part.register_forward_hook(lambda *_: None) for part in m.modules()],
    "removes hooks": lambda m: [part._forward_hooks.clear() for part in m.modules()],
    "writes values": lambda m: [p.data.fill_(float("nan")) for p in m.parameters()],
    "flips zeros": lambda m: [b.data.mul_(-0.0) for b in m.buffers() if b.is_floating_point()],
    "new parameters": lambda m: [setattr(p, "weight", nn.Parameter(torch.ones(1))) for p in m.modules() if has(p)],
    "new buffer": lambda m: m.register_buffer("new", torch.ones(1)),
}


def has(part: nn.Module) -> bool:
    return "weight" in part._parameters


def step(model: nn.Module) -> None:
    """Forward and, where it can be had, backward: a ReLU in place may spoil it for others."""
    with contextlib.suppress(RuntimeError):
        model(torch.randn(4, 3)).sum().backward()


@st.composite
def trees(draw, depth: int = 2) -> nn.Module:
    """Random trees of 3 -> 3 modules, with shared, frozen, evaluating and hooked parts, some with gradients."""
    leaf = st.sampled_from(["linear", "norm", "relu", "dropout", "frozen", "shared"])
    pool = nn.Linear(3, 3)

    def build(level: int) -> nn.Module:
        if level == 0 or draw(st.booleans()):
            kind = draw(leaf)
            if kind == "linear":
                return nn.Linear(3, 3, bias=draw(st.booleans()))
            if kind == "frozen":
                return nn.Linear(3, 3).requires_grad_(False)
            others = {"norm": nn.BatchNorm1d(3), "relu": nn.ReLU(inplace=True), "dropout": nn.Dropout(), "shared": pool}
            return others[kind]
        return nn.Sequential(*(build(level - 1) for _ in range(draw(st.integers(1, 3)))))

    model = nn.Sequential(build(depth), pool)
    for part in model.modules():
        if draw(st.integers(0, 3)) == 0:
            part.training = False
        if draw(st.integers(0, 4)) == 0:
            part.register_forward_hook(lambda *_: None)
    if draw(st.booleans()):
        step(model)
    return model


@settings(max_examples=25)
@given(trees(), st.lists(st.sampled_from(sorted(ACTIONS)), max_size=5), st.booleans())
def test_untouched_over_random_trees(model, actions, raises):
    before, states = all_of(model), torch.get_rng_state()

    def act() -> None:
        with untouched(model):
            step(model)
            for name in actions:
                done = ACTIONS[name](model)
                if name == "trains":
                    done.step()
            if raises:
                raise ZeroDivisionError

    if raises:
        with pytest.raises(ZeroDivisionError):
            act()
    else:
        act()
    assert all_of(model) == before
    assert torch.equal(torch.get_rng_state(), states)


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_the_comparison_sees_every_action(name):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model(torch.randn(4, 3)).sum().backward()
    if name == "train":
        model.eval()
    model[0].register_forward_hook(lambda *_: None)
    before = all_of(model)
    done = ACTIONS[name](model)
    if name == "trains":
        done.step()
    assert all_of(model) != before


def test_values_of_parameters_may_be_left_out():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = all_of(model)
    with untouched(model, parameters=False):
        model.eval()
        model(torch.randn(2, 3)).sum().backward()
    assert all_of(model) == before


def test_an_embedding_that_renormalises_in_its_forward_is_put_back():
    model = nn.Embedding(4, 3, max_norm=0.1)
    before = model.weight.detach().clone()
    with untouched(model, parameters=False):
        model(torch.tensor([0, 1]))
        assert not torch.equal(model.weight, before)
    assert torch.equal(model.weight, before)


def test_nothing_is_written_where_nothing_changed():
    model = nn.Linear(3, 3)
    out = model(torch.ones(1, 3)).sum()
    with untouched(model):
        model(torch.ones(1, 3))
    out.backward()  # would raise if a value had been written in place
    assert model.weight.grad is not None


def test_lazy_and_meta_modules():
    lazy, meta = nn.LazyLinear(3), nn.Linear(3, 3, device="meta")
    with untouched(lazy, meta):
        meta.eval()
    assert meta.training


class Teacher(nn.Module):
    """A student, and a teacher that every forward moves towards it."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.student = nn.Linear(3, 2)
        self.teacher = nn.Linear(3, wide).requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            self.teacher.weight.mul_(0.5)
        return self.student(x)


def test_an_averaged_teacher_comes_back_without_copies_of_the_rest():
    model = Teacher(2)
    before = model.teacher.weight.clone()
    with untouched(model, parameters=False):
        model(torch.ones(1, 3))
        assert not torch.equal(model.teacher.weight, before)
    assert torch.equal(model.teacher.weight, before)


def test_what_cannot_be_put_back_is_told():
    model = Teacher(50)
    with pytest.warns(RuntimeWarning, match="Linear.weight was changed in place"), untouched(model, parameters=False):
        model(torch.ones(1, 3))
