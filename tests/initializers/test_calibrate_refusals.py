"""calibrate_ on what it cannot calibrate, and on compiled modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fanin.initializers.calibrate import calibrate_

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS: list[tuple[str, dict[str, Any]]] = [
    ("lsuv", {}),
    ("within_layer", {}),
    ("jacobian", {}),
    ("gradinit", {"steps": 2, "loss": lambda y: y.square().mean()}),
    ("metainit", {"steps": 2}),
]
NAMES = [name for name, _ in METHODS]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(("method", "options"), METHODS, ids=NAMES)
def test_what_has_no_memory_is_named(method: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        module = network()
    with pytest.raises(ValueError, match=r"module: .*0\.weight is on the meta device.*init_.*device="):
        calibrate_(module, torch.randn(4, 8), method, **options)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_jacobians_of_values_that_are_not_finite_are_refused(bad: float) -> None:
    module = network()
    before = [p.clone() for p in module.parameters()]
    with pytest.raises(ValueError, match=r"0\.weight: expected finite outputs"):
        calibrate_(module, torch.full((4, 8), bad), "jacobian")
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize(("method", "options"), METHODS, ids=NAMES)
def test_a_compiled_module_is_calibrated_as_the_one_in_it(method: str, options: dict[str, Any]) -> None:
    plain, inner, x = network(), network(), torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    compiled = torch.compile(inner, backend="eager")
    expected = calibrate_(plain, x, method, generator=torch.Generator().manual_seed(2), **options)
    found = calibrate_(compiled, x, method, generator=torch.Generator().manual_seed(2), **options)  # type: ignore
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), inner.parameters(), strict=True))
    assert [c.name for c in found.changes] == [f"_orig_mod.{c.name}" for c in expected.changes]


@pytest.mark.parametrize("method", ["gradinit", "metainit"])
def test_complex_parameters_stay(method: str) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.real, self.turn = nn.Linear(4, 4), nn.Parameter(torch.ones(4, 4, dtype=torch.complex64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.real(x).to(torch.complex64) @ self.turn).abs()

    module = Mixed()
    report = calibrate_(module, torch.randn(6, 4), method, **dict(METHODS)[method])
    assert "turn" not in [change.name for change in report.changes]
    assert torch.equal(module.turn, torch.ones(4, 4, dtype=torch.complex64))
