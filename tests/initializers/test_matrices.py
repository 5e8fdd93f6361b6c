"""Matrices and kernels made as a whole: exact forms, singular values, isometry, parity with torch's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import Tensor, nn
from torch.nn import functional

from fanin import initializers
from fanin.initializers import Drawn
from tests.initializers.matrices import convolved, draw, eye

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = ["orthogonal", "delta_orthogonal", "sparse", "looks_linear", "gaussian_submatrix"]
FIXED = ["identity", "dirac", "hadamard", "idinit"]
DENSE_ONLY = ["identity", "sparse"]


# identities


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (1, 1)], ids=str)
def test_identity_is_torchs(shape: tuple[int, int]) -> None:
    assert torch.equal(draw("identity", shape), nn.init.eye_(torch.empty(shape)).double())
    assert torch.equal(draw("identity", shape, gain=0.5), 0.5 * eye(*shape))
    assert torch.equal(draw("dirac", shape, gain=3.0), 3 * eye(*shape))


@pytest.mark.parametrize("shape", [(4, 3, 3), (3, 4, 2), (4, 4, 3, 5), (2, 6, 4, 1), (3, 3, 1, 3, 2)], ids=str)
def test_dirac_is_torchs(shape: tuple[int, ...]) -> None:
    assert torch.equal(draw("dirac", shape), nn.init.dirac_(torch.empty(shape)).double())


def test_dirac_of_groups_one_by_one_is_torchs() -> None:
    whole = nn.init.dirac_(torch.empty(6, 2, 3, 3), groups=3).double()
    assert torch.equal(torch.cat([draw("dirac", (2, 2, 3, 3)) for _ in range(3)]), whole)
    assert not torch.equal(draw("dirac", (6, 2, 3, 3)), whole)


def test_dirac_convolves_to_the_same_picture() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 7, 6)))
    assert torch.equal(functional.conv2d(x, draw("dirac", (4, 4, 5, 3)), padding=(2, 1)), x)


@pytest.mark.parametrize(("rows", "columns"), [(8, 3), (8, 7), (7, 3), (100, 30), (2, 1), (65, 64), (600, 400)])
def test_hadamard_of_growing_widths_is_scipys(rows: int, columns: int) -> None:
    order = 2 ** math.ceil(math.log2(rows))
    theirs = linalg.hadamard(order)[:rows, :columns] / math.sqrt(order)
    values = draw("hadamard", (rows, columns))
    assert np.allclose(values.numpy(), theirs, rtol=1e-15, atol=0)
    assert torch.allclose(values.square().sum(0), torch.full((columns,), rows / order, dtype=torch.float64))
    isometry = torch.allclose(values.T @ values, eye(columns, columns), atol=1e-14)
    assert isometry == (rows == order)


def test_hadamard_elsewhere_is_the_identity() -> None:
    assert torch.equal(draw("hadamard", (6, 6)), eye(6, 6))
    assert torch.equal(draw("hadamard", (3, 7)), eye(3, 7))
    kernel = draw("hadamard", (8, 3, 3, 3))
    assert torch.equal(kernel[:, :, 1, 1], draw("hadamard", (8, 3)))
    assert float(kernel.square().sum()) == pytest.approx(3)  # nothing beside the centre


def test_hadamard_reaches_every_hidden_unit_where_the_identity_does_not() -> None:
    x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    reached = (draw("hadamard", (8, 3)) @ x).count_nonzero()
    assert (int(reached), int((draw("identity", (8, 3)) @ x).count_nonzero())) == (8, 3)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(4, 4), (10, 4), (4, 10), (4, 5), (5, 7), (3, 2), (1, 6), (6, 1), (1, 1)], ids=str)
def test_idinit_entry_by_entry(shape: tuple[int, int], last: bool) -> None:
    rows, columns = shape
    expected = torch.zeros(shape, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            if rows < columns:
                subtracted = j >= rows and (i - (j - rows)) % (columns - rows) == 0
            else:
                subtracted = (i + 1 - j) % columns == 0
            if (i - j) % columns == 0:
                expected[i, j] = 0.25 if last else 1.5
            elif last and subtracted:
                expected[i, j] = -0.25
    assert torch.equal(draw("idinit", shape, tau=1.5, epsilon=0.25, last=last), expected)
    kernel = draw("idinit", (*shape, 3, 5), tau=1.5, epsilon=0.25, last=last)
    assert torch.equal(kernel[:, :, 1, 2], expected)
    assert kernel.count_nonzero() == expected.count_nonzero()


def test_idinit_keeps_the_mean_square_and_ends_in_nearly_nothing() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 9)))
    wide = draw("idinit", (12, 4)) @ x
    assert torch.allclose(wide.square().mean(0), x.square().mean(0))
    end = draw("idinit", (4, 12), last=True)
    assert float((end @ wide.relu()).abs().max()) == 0  # differences of copies
    assert 0 < float((end @ torch.from_numpy(np.random.default_rng(1).normal(size=12))).abs().max()) < 1e-5
    assert float(end.sum(1).abs().max()) == 0


# orthogonal ones


def on_sphere(values: list[float], dimension: int) -> float:
    """How well one coordinate of a uniform point on the sphere in so many dimensions fits: a p-value."""
    half = (dimension - 1) / 2  # (x + 1) / 2 is Beta((n - 1) / 2, (n - 1) / 2)
    return float(stats.kstest((np.array(values) + 1) / 2, "beta", args=(half, half)).pvalue)


@pytest.mark.parametrize("gain", [1.0, 1.7])
@pytest.mark.parametrize("shape", [(6, 2, 3), (40, 3, 3, 3), (18, 2, 3, 3), (3, 4, 2, 1, 3)], ids=str)
def test_orthogonal_kernels_have_orthonormal_filters(shape: tuple[int, ...], gain: float) -> None:
    kernel = draw("orthogonal", shape, gain=gain)
    assert kernel.shape == shape
    assert torch.allclose(torch.linalg.svdvals(kernel.flatten(1)), torch.tensor(gain, dtype=torch.float64), rtol=1e-12)


def test_orthogonal_kernels_are_haar_distributed_as_torchs() -> None:
    ours = [float(draw("orthogonal", (3, 2, 2, 2), seed=seed)[0, 1, 0, 1]) for seed in range(500)]
    generator = torch.Generator().manual_seed(0)
    theirs = [float(nn.init.orthogonal_(torch.empty(3, 2, 2, 2), generator=generator)[0, 1, 0, 1]) for _ in ours]
    assert on_sphere(ours, 8) > 1e-4
    assert on_sphere(ours, 3) < 1e-4  # the check can fail
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


def operator(kernel: Tensor, *picture: int) -> Tensor:
    """The matrix of the circular convolution, column by column."""
    size = kernel.shape[1] * math.prod(picture)
    units = torch.eye(size, dtype=kernel.dtype).reshape(size, kernel.shape[1], *picture)
    return convolved(units, kernel).reshape(size, -1).T


@pytest.mark.parametrize("shape", [(4, 4, 3), (5, 2, 3), (3, 3, 3, 3), (6, 2, 1, 5), (2, 2, 3, 3, 3)], ids=str)
def test_delta_orthogonal_is_an_isometry(shape: tuple[int, ...]) -> None:
    picture = (5,) * (len(shape) - 2) if len(shape) < 5 else (3, 3, 3)
    values = torch.linalg.svdvals(operator(draw("delta_orthogonal", shape, gain=1.3), *picture))
    assert torch.allclose(values, torch.tensor(1.3, dtype=torch.float64), rtol=1e-12)


def test_an_orthogonal_kernel_is_no_isometry() -> None:
    values = torch.linalg.svdvals(operator(draw("orthogonal", (4, 4, 3)), 5))
    assert float(values.max() / values.min()) > 1.1


def test_delta_orthogonal_is_haar_distributed_at_the_centre() -> None:
    kernels = [draw("delta_orthogonal", (5, 3, 3), seed=seed) for seed in range(500)]
    assert on_sphere([float(k[2, 1, 1]) for k in kernels], 5) > 1e-4
    assert all(float(k[:, :, 0].abs().max() + k[:, :, 2].abs().max()) == 0 for k in kernels)


def test_delta_orthogonal_dense_is_orthogonal_and_a_shrinking_kernel_is_refused() -> None:
    for shape in ((3, 7), (7, 3)):
        assert torch.equal(draw("delta_orthogonal", shape), draw("orthogonal", shape))
    with pytest.raises(ValueError, match=r"at least as many output.*got 3 and 4.*use orthogonal"):
        draw("delta_orthogonal", (3, 4, 3, 3))


# sparse


@pytest.mark.parametrize(("rows", "sparsity"), [(50, 0.9), (10, 0.25), (7, 0.1), (20, 0.0), (3, 0.9)])
def test_sparse_has_torchs_number_of_zeros_in_each_column(rows: int, sparsity: float) -> None:
    values = draw("sparse", (rows, 40), sparsity=sparsity, std=0.5)
    with torch.random.fork_rng():
        theirs = nn.init.sparse_(torch.empty(rows, 40), sparsity, std=0.5)
    zeros = (values == 0).sum(0)
    assert torch.equal(zeros, (theirs == 0).sum(0))
    assert int(zeros[0]) == math.ceil(sparsity * rows)


def test_sparse_weights_are_normal_and_anywhere() -> None:
    values = draw("sparse", (50, 2000), sparsity=0.8, std=0.3)
    kept = values[values != 0].numpy()
    assert stats.kstest(kept, "norm", args=(0, 0.3)).pvalue > 1e-4
    assert stats.kstest(kept, "norm", args=(0, 0.33)).pvalue < 1e-4  # the check can fail
    assert kept.mean() == pytest.approx(0, abs=5 * 0.3 / len(kept) ** 0.5)
    assert kept.var() == pytest.approx(0.09, abs=5 * 0.09 * (2 / len(kept)) ** 0.5)
    by_row = (values != 0).sum(1).numpy()  # each Binomial(2000, 0.2)
    assert stats.chisquare(by_row).pvalue > 1e-4
    neighbours = ((values[0] != 0) & (values[1] != 0)).double().mean()
    assert float(neighbours) == pytest.approx(10 * 9 / (50 * 49), abs=0.02)  # without replacement
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = nn.init.sparse_(torch.empty(50, 400), 0.8, std=0.3)
    assert stats.ks_2samp(kept, theirs[theirs != 0].numpy()).pvalue > 1e-4


# all of them


@pytest.mark.parametrize("name", RANDOM)
def test_the_generator_is_honoured(name: str) -> None:
    def drawn(seed: int) -> Tensor:
        return draw(name, (20, 10), noise=torch.Generator().manual_seed(seed))

    state = torch.random.get_rng_state()
    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(draw(name, (20, 10)), draw(name, (20, 10), seed=1))


@pytest.mark.parametrize("name", FIXED)
def test_nothing_is_drawn(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert torch.equal(draw(name, (20, 10), noise=generator).double(), draw(name, (20, 10)).float().double())
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("name", RANDOM + FIXED)
def test_numbers_are_of_the_noises_type(name: str) -> None:
    generator = torch.Generator()
    shapes = [(6, 4)] if name in DENSE_ONLY else [(6, 4), (6, 4, 3)]
    for shape in shapes:
        assert draw(name, shape, noise=generator).dtype == torch.float32
        assert draw(name, shape, noise=Drawn(generator, torch.float64)).dtype == torch.float64
        assert draw(name, shape).dtype == torch.float64
        assert draw(name, shape).shape == shape


@pytest.mark.parametrize("name", RANDOM + FIXED)
@pytest.mark.parametrize("shape", [(5,), (0, 3), (3, 0)], ids=str)
def test_impossible_shapes_are_named(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected the shape of a weight.*got \({shape[0]}"):
        getattr(initializers, name)(None, shape, fan_in=5, fan_out=5)


@pytest.mark.parametrize("name", DENSE_ONLY)
def test_kernels_are_refused_by_what_is_dense(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: expected a dense weight's shape.*got \(4, 4, 3\); use"):
        draw(name, (4, 4, 3))
