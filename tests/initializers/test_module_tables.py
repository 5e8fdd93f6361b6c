"""init_'s table of decisions for whole networks, and that what is drawn is what it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from fanin.initializers import init_
from fanin.initializers.module.decisions import Decision, Decisions
from fanin.theory import gain
from tests.initializers.networks import GPT, Recurrent, ResNet, Shared, UNet, mlp

pytestmark = pytest.mark.usefixtures("one_thread")


def brief(table: Decisions) -> dict[str, tuple[Any, ...]]:
    """Of each weight: activation, how it was found, gain, std; of all else: the scheme, or why it is left alone."""
    return {row.path: _brief(row) for row in table}


def _brief(row: Decision) -> tuple[Any, ...]:
    if row.fan_out is None:
        return (row.scheme or row.note,)
    assert row.std is not None
    return (row.activation, row.found, row.gain and round(row.gain, 4), round(row.std, 4))


RELU = 1.4142


LEAKY = round(math.sqrt(2 / 1.04), 4)
NORM = ("left alone: normalisation",)
GELU = round(gain("gelu"), 4)
TABLES: list[tuple[Callable[[], nn.Module], Any, dict[str, tuple[Any, ...]]]] = [
    (
        mlp,
        torch.ones(2, 8),
        {
            "0.weight": ("relu", RELU, 0.5),
            "0.bias": ("zeros",),
            "2.weight": ("relu", RELU, 0.5),
            "2.bias": ("zeros",),
            "4.weight": ("", 1.0, round(8**-0.5, 4)),
            "4.bias": ("zeros",),
        },
    ),
    (
        ResNet,
        torch.ones(2, 3, 16, 16),
        {
            "stem.weight": ("relu", RELU, round(math.sqrt(2 / 27), 4)),
            "bn.weight": NORM,
            "bn.bias": NORM,
            "blocks.0.conv1.weight": ("relu", RELU, round(math.sqrt(2 / 36), 4)),
            "blocks.0.bn1.weight": NORM,
            "blocks.0.bn1.bias": NORM,
            "blocks.0.conv2.weight": ("relu", RELU, round(math.sqrt(2 / 72), 4)),
            "blocks.0.bn2.weight": NORM,
            "blocks.0.bn2.bias": NORM,
            "blocks.0.shortcut.0.weight": ("relu", RELU, round(math.sqrt(2 / 4), 4)),
            "blocks.0.shortcut.1.weight": NORM,
            "blocks.0.shortcut.1.bias": NORM,
            "fc.weight": ("", 1.0, round(8**-0.5, 4)),
            "fc.bias": ("zeros",),
        },
    ),
    (
        GPT,
        torch.zeros(2, 6, dtype=torch.long),
        {
            "tokens.weight": ("tied to head.weight, set there as the weight of a layer",),
            "places.weight": ("normal",),
            **{f"{norm}.{name}": NORM for norm in ("ln1", "ln2", "end") for name in ("weight", "bias")},
            "attention.in_proj_weight": ("", 1.0, round(8**-0.5, 4)),
            "attention.in_proj_bias": ("zeros",),
            "attention.out_proj.weight": ("", 1.0, round(8**-0.5, 4)),
            "attention.out_proj.bias": ("zeros",),
            "qkv.weight": ("", 1.0, round(8**-0.5, 4)),
            "qkv.bias": ("zeros",),
            "out.weight": ("", 1.0, round(8**-0.5, 4)),
            "out.bias": ("zeros",),
            "mlp.0.weight": ("gelu", GELU, round(gain("gelu") / math.sqrt(8), 4)),
            "mlp.0.bias": ("zeros",),
            "mlp.2.weight": ("", 1.0, round(32**-0.5, 4)),
            "mlp.2.bias": ("zeros",),
            "head.weight": ("", 1.0, round(8**-0.5, 4)),
        },
    ),
    (
        Recurrent,
        torch.zeros(2, 5, dtype=torch.long),
        {
            "table.weight": ("normal",),
            "lstm.weight_ih_l0": ("", 1.0, 0.5),
            "lstm.weight_hh_l0": ("", 1.0, round(8**-0.5, 4)),
            "lstm.bias_ih_l0": ("zeros",),
            "lstm.bias_hh_l0": ("zeros",),
            "hidden.weight": ("tanh", round(gain("tanh"), 4), round(gain("tanh") / math.sqrt(8), 4)),
            "hidden.bias": ("zeros",),
            "out.weight": ("", 1.0, round(8**-0.5, 4)),
            "out.bias": ("zeros",),
        },
    ),
    (
        UNet,
        torch.ones(1, 1, 16, 16),
        {
            "down.weight": ("leaky_relu(0.2)", LEAKY, round(LEAKY / 4, 4)),
            "down.bias": ("zeros",),
            "bottom.weight": ("leaky_relu(0.2)", LEAKY, round(math.sqrt(2 / 1.04) / 8, 4)),
            "bottom.bias": ("zeros",),
            "up.weight": ("relu", RELU, 0.25),  # 8 channels * 16 taps / 4 of the stride: 32 terms
            "up.bias": ("zeros",),
            "out.weight": ("", 1.0, round(32**-0.5, 4)),
            "out.bias": ("zeros",),
        },
    ),
    (
        Shared,
        torch.ones(2, 4),
        {
            "twice.weight": ("elu", round(gain("elu"), 4), round(gain("elu") / 2, 4)),
            "twice.bias": ("zeros",),
            "once.weight": ("sigmoid", round(gain("sigmoid"), 4), round(gain("sigmoid") / 2, 4)),
            "once.bias": ("zeros",),
            "tied.weight": ("tied to once.weight, set there",),
            "tied.bias": ("zeros",),
            "frozen.weight": ("left alone: frozen (requires_grad is False)",),
            "frozen.bias": ("left alone: frozen (requires_grad is False)",),
        },
    ),
]
INSIDE = ("in_proj_weight", "weight_ih_l0", "weight_hh_l0")  # nothing outside follows them: not looked for


@pytest.mark.parametrize("how", ["traced", "symbolic"])
@pytest.mark.parametrize(("build", "inputs", "expected"), TABLES, ids=lambda v: getattr(v, "__name__", ""))
def test_the_table_of_decisions(
    build: Callable[[], nn.Module], inputs: Tensor, expected: dict[str, tuple[Any, ...]], how: str
) -> None:
    module = build()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.get_rng_state()
    table = init_(module, inputs=inputs if how == "traced" else None, dry_run=True)
    found = {path: "" if path.endswith(INSIDE) else how for path in expected}
    full = {p: v if len(v) == 1 else (v[0], found[p], v[1], v[2]) for p, v in expected.items()}
    assert brief(table) == full
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert [row.path for row in table] == [name for name, _ in module.named_parameters(remove_duplicate=False)]


@pytest.mark.parametrize(("build", "inputs", "expected"), TABLES, ids=lambda v: getattr(v, "__name__", ""))
def test_what_is_drawn_is_what_the_table_says(build: Callable[[], nn.Module], inputs: Tensor, expected: Any) -> None:
    def wide() -> nn.Module:
        return build(width=64) if build in (mlp, GPT) else build()  # type: ignore[call-arg]

    table, draws = init_(wide(), inputs=inputs if build not in (mlp, GPT) else None, dry_run=True), 12
    pooled: dict[str, list[Tensor]] = {row.path: [] for row in table}
    generator = torch.Generator().manual_seed(0)
    for _ in range(draws):
        for name, value in init_(wide(), generator=generator).named_parameters(remove_duplicate=False):
            pooled[name].append(value.detach())
    for row in table:
        values = torch.stack(pooled[row.path]).flatten().double().numpy()
        if row.scheme in ("kaiming_normal", "normal") and row.kind != "Embedding":
            assert stats.kstest(values, "norm", args=(0, row.std)).pvalue > 1e-4, row
            assert stats.kstest(values, "norm", args=(0, row.std * 1.5)).pvalue < 1e-2, row  # and it could fail
        elif row.scheme == "zeros":
            assert not values.any()


def test_the_readable_table() -> None:
    lines = str(init_(mlp(), dry_run=True)).splitlines()
    assert lines[0].split() == ["parameter", "kind", "shape", "fans", "activation", "gain", "scheme", "std", "note"]
    assert " ".join(lines[1].split()) == "0.weight Linear 8x8 8 -> 8 relu (symbolic) 1.414 kaiming_normal 0.5"
    assert len(lines) == 7
    assert init_(mlp(), dry_run=True).of("4.weight").gain == 1
    with pytest.raises(KeyError):
        init_(mlp(), dry_run=True).of("5.weight")
