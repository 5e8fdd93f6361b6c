"""Residual rules: factors in closed form, what they do to a deep network's signal, and errors that help."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fanin.initializers import init_
from fanin.initializers.module.residual import Residual

pytestmark = pytest.mark.usefixtures("one_thread")


class Gate(nn.Module):
    """What multiplies a branch: a number, or a vector."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Net(nn.Module):
    """x + f(x), `depth` times; the layers of a branch are made in another order than they run in."""

    def __init__(self, depth: int = 4, width: int = 16, gate: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.stem = nn.Linear(width, width)
        self.blocks = nn.ModuleList(nn.ModuleDict({"branch": Branch(width, gate)}) for _ in range(depth))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block["branch"](x)
        return x


class Branch(nn.Module):
    def __init__(self, width: int, gate: tuple[int, ...] | None) -> None:
        super().__init__()
        self.down, self.up, self.middle = (nn.Linear(width, width) for _ in range(3))
        self.act = nn.PReLU()
        self.gate = nn.Identity() if gate is None else Gate(*gate)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.down(self.act(self.middle(self.act(self.up(x))))))


BRANCHES = "blocks.*.branch"


def ratios(rule: dict[str, Any], net: Net) -> dict[str, float]:
    """The standard deviation in the table with a rule over that without it."""
    plain, scaled = init_(net, dry_run=True), init_(net, residual=rule, dry_run=True)
    pairs = [(a, b) for a, b in zip(plain, scaled, strict=True) if a.fan_out is not None]
    assert all(a.std and b.std is not None for a, b in pairs)
    return {a.path: b.std / a.std for a, b in pairs if a.std and b.std is not None}


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_fixup(depth: int) -> None:
    net = Net(depth)
    got = ratios({"branches": BRANCHES, "rule": "fixup"}, net)
    inner = depth ** (-1 / 4)  # L^(-1 / (2 m - 2)) with m = 3
    expected = {"stem.weight": 1.0, "head.weight": 0.0}
    for i in range(depth):
        expected |= {f"blocks.{i}.branch.{name}.weight": inner for name in ("up", "middle")}
        expected[f"blocks.{i}.branch.down.weight"] = 0.0  # the last to run, the first to be made
    assert got == pytest.approx(expected)
    init_(net, residual=Residual(BRANCHES, "fixup"), bias=0.5, generator=torch.Generator().manual_seed(0))
    assert not net.head.weight.detach().any()
    assert not net.head.bias.detach().any()
    assert float(net.stem.bias.detach().min()) == 0.5


def test_the_factor_of_fixup_is_on_what_is_drawn() -> None:
    plain, scaled = Net(), Net()
    init_(plain, generator=torch.Generator().manual_seed(0))
    init_(scaled, residual=Residual(BRANCHES, "fixup"), generator=torch.Generator().manual_seed(0))
    for name, weight in plain.named_parameters():
        if "up" in name or "middle" in name:
            assert torch.allclose(dict(scaled.named_parameters())[name], weight * 4 ** (-1 / 4))
    assert torch.equal(scaled.stem.weight, plain.stem.weight)


def test_depth_is_one_over_the_root_of_the_branches() -> None:
    got = ratios({"branches": BRANCHES, "rule": "depth"}, Net(9))
    assert {name for name, ratio in got.items() if ratio != 1} == {f"blocks.{i}.branch.down.weight" for i in range(9)}
    assert got["blocks.0.branch.down.weight"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("shape", "rule", "value"), [((1,), "skipinit", 0.0), ((16,), "layerscale", 0.1)])
def test_gates(shape: tuple[int, ...], rule: str, value: float) -> None:
    net = Net(3, gate=shape)
    assert set(ratios({"branches": BRANCHES, "rule": rule}, net).values()) == {1.0}
    init_(net, residual={"branches": BRANCHES, "rule": rule})
    for block in net.blocks:
        assert torch.equal(block["branch"].gate.factor.detach(), torch.full(shape, value))
        assert float(block["branch"].act.weight.detach()) == 0.25  # a PReLU's slope is no gate
    row = init_(net, residual={"branches": BRANCHES, "rule": rule}, dry_run=True).of("blocks.1.branch.gate.factor")
    assert (row.scheme, row.note) == (f"{value:g}", f"gate of a residual branch ({rule})")


def test_without_a_gate_the_last_layer_stands_for_it() -> None:
    net = init_(Net(3), bias=1.0, residual={"branches": BRANCHES, "rule": "skipinit"})
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net.features(x), net.stem(x))
    got = ratios({"branches": BRANCHES, "rule": "layerscale", "value": 1e-3}, Net(3))
    assert got["blocks.0.branch.down.weight"] == pytest.approx(1e-3)
    assert got["blocks.0.branch.up.weight"] == 1


@pytest.mark.parametrize(("depth", "value"), [(18, 0.1), (19, 1e-5), (24, 1e-5), (25, 1e-6)])
def test_layerscale_goes_by_depth(depth: int, value: float) -> None:
    net = Net(depth, width=2)
    got = ratios({"branches": BRANCHES, "rule": "layerscale"}, net)
    assert got["blocks.0.branch.down.weight"] == pytest.approx(value)


def test_depth_keeps_the_signal_of_a_deep_network() -> None:
    def growth(residual: Residual | None) -> float:
        net = init_(Net(32, width=64), residual=residual, generator=torch.Generator().manual_seed(0))
        return float((net.features(torch.eye(64)).square().mean() / net.stem(torch.eye(64)).square().mean()).detach())

    assert growth(None) > 1e6  # each branch adds its own variance: a power of the depth
    # (1 + 1 / L)^L at gain 1 of the last layer; the branch's own gain is near 1
    assert growth(Residual(BRANCHES, "depth")) < 10


def test_parts_of_a_branch_can_be_left_out_and_modules_named() -> None:
    net = Net(4)
    got = ratios({"branches": list(net.blocks), "rule": "fixup", "without": ["blocks.*.branch.middle"]}, net)
    assert got["blocks.0.branch.middle.weight"] == 1
    assert got["blocks.0.branch.up.weight"] == pytest.approx(4 ** (-1 / 2))  # m = 2
    assert ratios({"branches": BRANCHES, "head": "stem"}, net)["stem.weight"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"branches": "block.*"}, r"residual.branches: expected modules of this network .*got 'block.\*'"),
        ({"branches": "blocks.*.branch.act"}, "has no weight that init_ sets"),
        ({"branches": ["blocks.*", "blocks.0.branch"]}, "lies both in 'blocks.0' and in 'blocks.0.branch'"),
        ({"branches": BRANCHES, "rule": "fixdown"}, "expected one of fixup, skipinit, layerscale, depth"),
        ({"branches": BRANCHES, "rule": "depth", "value": 1.0}, "only skipinit and layerscale"),
        ({"branches": BRANCHES, "rule": "depth", "head": "head"}, "only fixup"),
        ({"branches": BRANCHES, "head": "nothing"}, "residual.head: expected modules"),
    ],
)
def test_errors(options: dict[str, Any], words: str) -> None:
    net = Net(2)
    before = net.stem.weight.clone()
    with pytest.raises(ValueError, match=words):
        init_(net, residual=options)
    assert torch.equal(net.stem.weight, before)
