"""Whether stacked products are exact is asked of the machine, and a product that is not is seen."""

from __future__ import annotations

import pytest
import torch

from fanin.engine import exactness, matmul

ODD = [[7, 13, 5], [7, 13, 9, 5], [64, 13, 10], [9, 5, 3], [20, 33, 10], [64, 50, 10]]


@pytest.mark.parametrize("batch", [7, 25])
def test_most_odd_shapes_stack_exactly_on_the_blas_path(batch: int) -> None:
    """Not a law of nature, but where it fails, small networks are trained one by one and stacks are not tested.

    A product's bits depend on where its matrices start: members must lie as far apart as alone, on whole registers.
    """
    matmul.use("blas")
    assert sum(exactness.stacks_exactly(sizes, batch, 3) for sizes in ODD) >= len(ODD) - 1


def test_even_shapes_stack_exactly_on_the_blas_path() -> None:
    matmul.use("blas")
    assert all(exactness.stacks_exactly([64, 32, 16], 16, members) for members in (2, 3, 5, 8))


def test_stacks_exactly_sees_a_product_that_depends_on_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul.use("blas")
    bmm = torch.bmm

    def wrong(a: torch.Tensor, b: torch.Tensor, **keywords: torch.Tensor) -> torch.Tensor:
        product = bmm(a, b, **keywords)
        return product.mul_(1 + 2**-22) if len(a) > 1 else product

    monkeypatch.setattr(torch, "bmm", wrong)
    assert not exactness.stacks_exactly([64, 32, 10], 16, 3)
    assert exactness.stacks_exactly([64, 32, 10], 16, 1)


def test_slots_alike_sees_a_product_that_depends_on_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul.use("blas")
    assert exactness.slots_alike([64, 32, 10], 16, 3)
    bmm = torch.bmm

    def wrong(a: torch.Tensor, b: torch.Tensor, **keywords: torch.Tensor) -> torch.Tensor:
        product = bmm(a, b, **keywords)
        product[-1].mul_(1 + 2**-22)
        return product

    monkeypatch.setattr(torch, "bmm", wrong)
    assert not exactness.slots_alike([64, 32, 10], 16, 3)
