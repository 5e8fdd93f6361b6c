"""The share of its inputs that dropout leaves a layer: seen in a trace, and what critical makes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fanin.initializers import init_
from fanin.theory import critical_weight_variance

pytestmark = pytest.mark.usefixtures("one_thread")


def variance(module: nn.Module, path: str, *, inputs: Tensor | None) -> float:
    """fan_in Var W of a weight, by the table and by what is drawn."""
    row = init_(module, "critical", inputs=inputs, dry_run=True).of(path)
    assert row.std is not None
    assert row.fan_in is not None
    return row.std**2 * row.fan_in


class Functional(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.a, self.b = p, nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(F.relu(self.a(x)), p=self.p, training=self.training).view(-1, 8)).relu()


def layers(*between: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), *between, nn.Linear(8, 2), nn.ReLU())


KEPT = [
    (layers(nn.Dropout(0.25)), "3.weight", 0.75),
    (layers(nn.Dropout(0.5), nn.Dropout(0.5)), "4.weight", 0.25),
    (layers(nn.Dropout(0.3), nn.Identity(), nn.Unflatten(1, (2, 4)), nn.Flatten()), "6.weight", 0.7),
    (layers(nn.AlphaDropout(0.3)), "3.weight", 1.0),  # keeps mean and variance by itself
    (layers(nn.Dropout(1.0)), "3.weight", 1.0),  # nothing is left to be scaled
    (layers(nn.Dropout(0.3), nn.LayerNorm(8)), "4.weight", 1.0),
    (layers(), "2.weight", 1.0),
    (lambda: Functional(0.4), "b.weight", 0.6),
]


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("build", "path", "keep"), KEPT)
def test_the_kept_share_of_what_a_layer_reads(
    build: Callable[[], nn.Module], path: str, keep: float, traced: bool
) -> None:
    x = torch.randn(3, 8) if traced else None
    assert variance(build(), path, inputs=x) == pytest.approx(2 * keep, rel=1e-6)
    row = init_(build(), "critical", inputs=x, dry_run=True).of(path)
    assert (f"keep {keep:g}" in row.note) == (keep < 1)


def test_the_first_layer_and_other_schemes_know_no_dropout() -> None:
    module = KEPT[0][0]()
    assert variance(module, "0.weight", inputs=None) == pytest.approx(2)
    row = init_(module, "kaiming_normal", dry_run=True).of("3.weight")
    assert row.std == pytest.approx(0.5)
    assert "keep" not in row.note


@pytest.mark.parametrize("traced", [False, True])
def test_a_transformers_second_layer_reads_what_dropout_leaves(traced: bool) -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, activation=torch.tanh, batch_first=True)
    x = torch.randn(2, 3, 8) if traced else None
    assert variance(block, "linear2.weight", inputs=x) == pytest.approx(0.8)
    assert variance(block, "linear1.weight", inputs=x) == pytest.approx(critical_weight_variance("tanh"))


def test_second_moments_stay_in_training_with_dropout() -> None:
    depth, width, p = 12, 256, 0.4
    parts = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU(), nn.Dropout(p))]
    module = nn.Sequential(*parts)
    x = torch.randn(256, width, generator=torch.Generator().manual_seed(0))

    def growth(scheme: str) -> float:
        init_(module, scheme, generator=torch.Generator().manual_seed(1))
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(2)
            first, last = module[0](x), module[:-2](x)
        return float(last.square().mean() / first.square().mean())

    # a relative deviation of about sqrt(5 depth / width) = 0.5 over draws of the weights
    assert 0.3 < growth("critical") < 3
    assert growth("kaiming_normal") > 0.3 * (1 / (1 - p)) ** (depth - 1)
