"""init_ on grouped and strided convolutions, by schemes that make a matrix as a whole: one for each group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fanin.initializers import init_

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kernels(weight: Tensor, groups: int, *, transposed: bool = False) -> list[Tensor]:
    """Each group's kernel as (outputs, inputs, *kernel)."""
    return [part.transpose(0, 1) if transposed else part for part in weight.detach().chunk(groups)]


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("scheme", ["dirac", "hadamard", "idinit"])
def test_identities_pass_every_channel_of_every_group(scheme: str, groups: int) -> None:
    conv = init_(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=groups), nn.Conv2d(8, 4, 1)), scheme)[0]
    x = torch.randn(2, 8, 5, 5, generator=seeded())
    with torch.no_grad():
        assert torch.equal(conv(x), x)


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_dirac_is_torchs_with_groups(groups: int) -> None:
    conv = init_(nn.Conv2d(12, 6, 3, groups=groups), "dirac")
    assert torch.equal(conv.weight, nn.init.dirac_(torch.empty_like(conv.weight), groups=groups))
    assert groups == 1 or not torch.equal(conv.weight, nn.init.dirac_(torch.empty_like(conv.weight)))


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("groups", [2, 16, 48])
def test_filters_are_orthonormal_within_each_group(kind: Any, groups: int) -> None:
    conv = nn.Sequential(kind(48, 48, 3, groups=groups), nn.ReLU())
    row = init_(conv, "orthogonal", generator=seeded(), dry_run=True)[0]
    init_(conv, "orthogonal", generator=seeded())
    found = kernels(conv[0].weight, groups, transposed=kind is nn.ConvTranspose2d)
    for kernel in found:
        rows = kernel.flatten(1)
        assert torch.allclose(rows @ rows.T, 2 * torch.eye(len(rows)), atol=1e-5)  # ReLU's gain
    assert not torch.allclose(found[0], found[1])
    assert conv[0].weight.detach().square().mean().sqrt() == pytest.approx(row.std, rel=1e-4)
    assert f"{groups} groups drawn separately" in row.note


def test_signals_keep_their_size_through_a_depthwise_orthogonal_convolution() -> None:
    conv = init_(nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular", groups=64), "orthogonal", generator=seeded())
    x = torch.randn(8, 64, 16, 16, generator=seeded(1))
    assert conv(x).detach().square().mean() == pytest.approx(1, rel=0.02)  # of 131,072 entries


@pytest.mark.parametrize("groups", [1, 4, 32])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_strided_transposed_convolution_keeps_the_second_moment(stride: int, groups: int) -> None:
    conv = nn.ConvTranspose2d(32, 32, 4, stride, groups=groups, bias=False)
    row = init_(conv, "orthogonal", generator=seeded(), dry_run=True)[0]
    init_(conv, "orthogonal", generator=seeded())
    y = conv(torch.randn(16, 32, 12, 12, generator=seeded(1))).detach()[..., 4:-4, 4:-4]  # edges have fewer terms
    assert y.square().mean() == pytest.approx(1, rel=0.1)
    assert conv.weight.detach().square().mean().sqrt() == pytest.approx(row.std, rel=1e-4)
    assert ("stride" in row.note) == (stride > 1)


def test_a_transposed_convolution_to_many_channels_is_tall() -> None:
    """Of 2 inputs by 4 taps an output reads 2: as of a dense layer from 2 to 20, std is 1 / sqrt(20)."""
    conv = init_(nn.ConvTranspose2d(2, 20, 2, 2), "orthogonal", generator=seeded())
    assert conv.weight.detach().square().mean().sqrt() == pytest.approx(20**-0.5, rel=1e-5)


def test_a_delta_orthogonal_grouped_convolution_is_an_isometry() -> None:
    conv = init_(nn.Conv1d(12, 12, 3, padding=1, groups=4, bias=False), "delta_orthogonal", generator=seeded())
    x = torch.randn(2, 12, 7, generator=seeded(1))
    assert conv(x).detach().norm() == pytest.approx(float(x.norm()), rel=1e-5)


@pytest.mark.parametrize("scheme", ["looks_linear", "gaussian_submatrix"])
def test_pairs_of_channels_cannot_be_kept_within_groups(scheme: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with pytest.raises(ValueError, match=r"^2\.weight .*pairs.*2 groups.*use orthogonal"):
        init_(model, scheme)


def test_a_scheme_of_ones_own_is_called_for_each_group() -> None:
    seen = []

    def counted(noise: Any, shape: tuple[int, ...], *, fan_in: int, fan_out: int) -> Tensor:
        seen.append((shape, fan_in, fan_out))
        return torch.full(shape, float(len(seen)))

    conv = init_(nn.Conv2d(6, 9, 1, groups=3), counted)
    assert seen == [((3, 2, 1, 1), 2, 3)] * 3
    assert conv.weight[::3, 0, 0, 0].tolist() == [1, 2, 3]


def test_independent_entries_are_drawn_at_once() -> None:
    grouped, dense = nn.Conv2d(32, 32, 3, groups=4), nn.Conv2d(8, 32, 3)
    init_(grouped, "lecun_normal", generator=seeded())
    init_(dense, "lecun_normal", generator=seeded())
    assert torch.equal(grouped.weight, dense.weight)
    assert "groups" not in init_(grouped, "lecun_normal", dry_run=True)[0].note
