"""A layer's dense products against plain ones in float64, exact and in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fanin.engine import products
from fanin.engine.buffers import buffer

BATCH = 20
KINDS = ["Dense", "FirstLayer", "ClassesFirst"]


def operands(members: int, fan_in: int, fan_out: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = (members, BATCH, fan_in), (members, fan_in, fan_out), (members, 1, fan_out), (members, BATCH, fan_out)
    x, weight, bias, delta = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return x, weight.transpose(1, 2), bias, delta


def run(layer: products.Products, x: Tensor, weight: Tensor, bias: Tensor, delta: Tensor) -> list[Tensor]:
    z, below = buffer(weight, *delta.shape), buffer(weight, *x.shape)
    gradient = buffer(weight, len(x), x.shape[2], weight.shape[1]).transpose(1, 2).fill_(7)
    layer.forward(x, weight, bias, z)
    layer.by_weight(delta, gradient)
    layer.by_input(below)
    return [z, gradient, below]


def wanted(x: Tensor, weight: Tensor, bias: Tensor, delta: Tensor) -> list[Tensor]:
    return [x @ weight.transpose(1, 2) + bias, delta.transpose(1, 2) @ x, delta @ weight]


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_products_in_float64(kind: str, members: int) -> None:
    given = operands(members, 48, 6)
    layer = getattr(products, kind)(products.Exact())
    for _ in range(2):  # buffers are used again
        for ours, theirs in zip(run(layer, *given), wanted(*given), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_products_in_bfloat16(kind: str, members: int) -> None:
    """Operands and results are rounded, each once, and nothing else: against float64 products of rounded operands."""
    x, weight, bias, delta = operands(members, 48, 6, torch.float32)
    layer = getattr(products, kind)(products.Half())
    rough = [t.bfloat16().double() for t in (x, weight, delta)]
    exact = wanted(rough[0], rough[1], torch.zeros(()), rough[2])
    for _ in range(2):
        found = run(layer, x, weight, bias, delta)
        found[0] = found[0].double() - bias
        for ours, theirs in zip(found, exact, strict=True):
            assert ((ours - theirs).abs() <= 2**-8 * theirs.abs() + 1e-4).all()
            assert not torch.allclose(ours.double(), theirs, rtol=1e-5)  # it was rounded
    assert found[1].dtype == torch.float32


def test_the_last_layer_is_exact_in_every_precision() -> None:
    first, middle, last = products.dense(3, "bf16")
    assert isinstance(first, products.FirstLayer)
    assert isinstance(middle._arithmetic, products.Half)
    assert isinstance(last, products.ClassesFirst)
    assert isinstance(last._arithmetic, products.Exact)
    assert [type(p) for p in products.dense(1, "fp32")] == [products.ClassesFirst]
