"""LSUV, within-layer normalisation and Jacobian tuning against slow loops, exact Jacobians and theory."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fanin.initializers.calibrate import calibrate_
from fanin.initializers.calibrate.jacobian import partial_norm
from fanin.initializers.calibrate.statistics import moments

pytestmark = pytest.mark.usefixtures("one_thread")


def inputs(*shape: int, seed: int = 9) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def deep(activation: type[nn.Module], depth: int = 20, width: int = 64, *, bias: bool = True) -> nn.Sequential:
    """PyTorch's default start: weights of variance 1 / (3 fan_in)."""
    widths = [20, *[width] * (depth - 1), 10]
    pairs = pairwise(widths)
    layers = [part for pair in pairs for part in (nn.Linear(*pair, bias=bias), activation())]
    return nn.Sequential(*layers[:-1])


def outputs_of(module: nn.Module, batch: Any, kinds: tuple[type, ...] = (nn.Linear,)) -> list[Tensor]:
    """The output of every layer, by a loop over hooks that the library has no part in."""
    seen: list[Tensor] = []
    handles = [
        m.register_forward_hook(lambda _m, _i, out: seen.append(out.detach().double()))
        for m in module.modules()
        if isinstance(m, kinds)
    ]
    with torch.no_grad():
        module(batch)
    for handle in handles:
        handle.remove()
    return seen


def slow_lsuv(module: nn.Sequential, batch: Tensor, iterations: int = 5) -> list[int]:
    """The paper's algorithm as it stands there: the whole network anew for every layer and iteration, in NumPy."""
    counts = []
    for layer in range(0, len(module), 2):
        for t in range(iterations + 1):
            x = batch.double().numpy()
            for part in module[: layer + 1]:
                if isinstance(part, nn.Linear):
                    x = x @ part.weight.detach().double().numpy().T
                    x = x + (part.bias.detach().double().numpy() if part.bias is not None else 0)
                else:
                    x = np.maximum(x, 0) if isinstance(part, nn.ReLU) else np.tanh(x)
            variance = x.var()
            if abs(variance - 1) < 0.05 or t == iterations:
                counts.append(t)
                break
            with torch.no_grad():
                module[layer].weight.div_(math.sqrt(variance))
    return counts


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("bias", [True, False])
def test_lsuv_is_the_papers_loop(activation: type[nn.Module], bias: bool) -> None:
    batch = inputs(128, 20)
    mine = drawn(lambda: deep(activation, bias=bias)).double()
    theirs = drawn(lambda: deep(activation, bias=bias)).double()
    assert outputs_of(mine, batch.double())[9].var() < 0.1  # signals have died before
    report = calibrate_(mine, batch.double(), "lsuv")
    counts = slow_lsuv(theirs, batch.double())
    assert [change.iterations for change in report.changes] == counts
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-10)
    for output, change in zip(outputs_of(mine, batch.double()), report.changes, strict=True):
        variance = float(output.var(correction=0))
        assert abs(variance - 1) < 0.05
        assert variance == pytest.approx(change.after, rel=1e-10)
    assert max(counts) <= (5 if bias else 1)
    assert report.notes == {}


def test_lsuv_runs_the_module_once() -> None:
    module, calls = drawn(lambda: deep(nn.ReLU, 12, bias=False)), []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    forwards = {"count": 0}
    for part in module:
        if isinstance(part, nn.Linear):

            def counted(x: Tensor, real: Callable[[Tensor], Tensor] = part.forward) -> Tensor:
                forwards["count"] += 1
                return real(x)

            part.forward = counted
    calibrate_(module, inputs(64, 20), "lsuv")
    assert len(calls) == 1
    assert forwards["count"] == 24  # once by the module, once after its division


def test_lsuv_of_convolutions_and_residual_branches() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Conv2d(3, 8, 3, padding=1)
            self.branch = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, groups=2) for _ in range(6))
            self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            for part in self.branch:
                x = x + torch.relu(part(x))
            return self.up(x)

    module, batch = drawn(Residual), inputs(16, 3, 8, 8)
    report = calibrate_(module, batch, "lsuv")
    assert len(report.changes) == 8
    for output in outputs_of(module, batch, (nn.Conv2d, nn.ConvTranspose2d)):
        assert abs(float(output.var(correction=0)) - 1) < 0.05


def test_lsuv_with_orthogonal_starts_from_orthonormal_matrices() -> None:
    module = drawn(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 5))).double()
    batch = inputs(64, 3, 6, 6).double()
    weights = []
    for seed in (0, 0, 1):
        calibrate_(module, batch, "lsuv", orthogonal=True, generator=torch.Generator().manual_seed(seed))
        weights.append(module[0].weight.detach().clone())
    for layer in (module[0], module[2]):
        rows = layer.weight.detach().flatten(1)
        gram = rows @ rows.T
        assert torch.allclose(gram / gram[0, 0], torch.eye(len(rows), dtype=torch.float64), atol=1e-12)
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


@pytest.mark.parametrize("bias", [True, False])
def test_lsuv_leaves_and_names_a_layer_with_a_dead_input(bias: bool) -> None:
    module = drawn(lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8, bias=bias), nn.Linear(8, 3)))
    with torch.no_grad():
        module[0].bias.fill_(-1e3)  # no unit ever fires
    before = module[2].weight.clone()
    report = calibrate_(module, inputs(32, 5), "lsuv")
    assert torch.equal(module[2].weight, before)
    expected = "does not depend on its weights" if bias else "is constant"
    assert expected in report.notes["2.weight"]
    assert "dead" in report.notes["2.weight"]
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_lsuv_names_a_layer_whose_biases_vary_too_much() -> None:
    module = nn.Linear(4, 2)
    with torch.no_grad():
        module.bias.copy_(torch.tensor([-3.0, 3.0]))  # variance 9 by themselves
    report = calibrate_(module, inputs(64, 4), "lsuv")
    assert report.changes[0].iterations == 5
    assert report.changes[0].after == pytest.approx(9, rel=0.01)
    assert "biases" in report.notes["weight"]


def test_moments_are_numpys_in_double() -> None:
    values = inputs(50, 4, 3) * 1e-3 + 1e3  # float32 would lose the variance in the mean
    mean, variance = moments(values, "w")
    assert float(mean) == pytest.approx(values.double().numpy().mean(), rel=1e-12)
    assert float(variance) == pytest.approx(values.double().numpy().var(), rel=1e-9)
    mean, variance = moments(values, "w", 1)
    assert mean.numpy() == pytest.approx(values.double().numpy().mean((0, 2)), rel=1e-12)
    assert variance.numpy() == pytest.approx(values.double().numpy().var((0, 2)), rel=1e-9)
    assert float(moments(torch.full((7, 3), 0.1), "w")[1]) == 0


LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = [
    (lambda: nn.Linear(5, 7), (64, 5), (0,)),
    (lambda: nn.Linear(5, 7), (16, 6, 5), (0, 1)),
    (lambda: nn.Conv1d(4, 6, 3, groups=2), (16, 4, 9), (0, 2)),
    (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (8, 4, 6, 6), (0, 2, 3)),
    (lambda: nn.Conv2d(4, 6, 3), (4, 9, 9), (1, 2)),  # without a batch dimension
    (lambda: nn.ConvTranspose2d(4, 6, 3), (16, 4, 5, 5), (0, 2, 3)),
    (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2), (16, 4, 5, 5), (0, 2, 3)),
    (lambda: nn.ConvTranspose1d(6, 6, 3, groups=3), (16, 6, 5), (0, 2)),
    (lambda: nn.Conv3d(2, 3, 2), (8, 2, 4, 4, 4), (0, 2, 3, 4)),
]


@pytest.mark.parametrize(("build", "shape", "over"), LAYERS)
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_within_layer_sets_mean_and_variance_of_every_channel(
    build: Callable[[], nn.Module], shape: tuple[int, ...], over: tuple[int, ...], beta: float
) -> None:
    layer, batch = drawn(build).double(), inputs(*shape).double() * 3 + 1
    start = layer(batch).detach().numpy()
    assert abs(start.mean(over)).max() > 0.05
    report = calibrate_(layer, batch, "within_layer", beta=beta)
    after = layer(batch).detach().numpy()
    assert after.mean(over) == pytest.approx(beta, abs=1e-12)
    assert after.var(over) == pytest.approx(1, abs=1e-10)
    assert report.changes[0].before == pytest.approx(start.var(over).mean())
    # and nothing but a scale and a shift of every channel
    mean, deviation = start.mean(over, keepdims=True), start.std(over, keepdims=True)
    assert after == pytest.approx((start - mean) / deviation + beta, abs=1e-10)


def test_within_layer_of_a_deep_network() -> None:
    module, batch = drawn(lambda: deep(nn.ReLU)).double(), inputs(128, 20).double()
    report = calibrate_(module, batch, "within_layer")
    assert report.changes[-1].before < 0.2  # 1 / 6, or less, of what it gets
    for output in outputs_of(module, batch):
        assert output.mean(0).numpy() == pytest.approx(0, abs=1e-9)
        assert output.var(0, correction=0).numpy() == pytest.approx(1, abs=1e-9)


def test_within_layer_names_what_it_cannot_have() -> None:
    module = drawn(lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3, bias=False)))
    with torch.no_grad():
        module[0].weight[1] = 0
    before = module[0].weight[1].clone()
    bias = module[0].bias.detach()[1].clone()
    report = calibrate_(module, inputs(64, 5), "within_layer")
    assert torch.equal(module[0].weight[1], before)
    assert torch.equal(module[0].bias[1], bias)
    assert "1 of 4 channels left as they are" in report.notes["0.weight"]
    assert "no biases" in report.notes["2.weight"]
    output = module(inputs(64, 5))
    assert output.var(0, correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)

    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(5))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    custom = Custom()
    report = calibrate_(custom, inputs(64, 5), "within_layer")
    assert "Custom has no channels" in report.notes["weight"]
    assert torch.equal(custom.weight, torch.eye(5))
    calibrate_(custom, 3 * inputs(64, 5), "lsuv")  # which needs no channels
    assert float(custom(3 * inputs(64, 5)).detach().var(correction=0)) == pytest.approx(1, abs=0.05)


def exact_norms(module: nn.Sequential, batch: Tensor) -> list[float]:
    """|dy/dx|_F^2 / (units of y), the mean over the batch, from each Linear's output to the next's, by jacrev."""
    norms = []
    places = [i for i, part in enumerate(module) if isinstance(part, nn.Linear)]
    for one, other in pairwise(places):
        x = module[: one + 1](batch).detach()
        jacobians = torch.func.vmap(torch.func.jacrev(lambda v, s=module[one + 1 : other + 1]: s(v)))(x)
        norms.append(float(jacobians.detach().square().sum((1, 2)).mean()) / jacobians.shape[1])
    return norms


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU])
def test_the_estimate_is_the_exact_jacobians_norm(activation: type[nn.Module]) -> None:
    module, batch = drawn(lambda: deep(activation, 4, 12)).double(), inputs(16, 20).double()
    exact = exact_norms(module, batch)
    report = calibrate_(module, batch, "jacobian", dry_run=True, probes=300, generator=torch.Generator().manual_seed(0))
    # the first is what it was; of the later ones the layers before have changed
    assert report.changes[0].before == pytest.approx(exact[0], rel=0.03)
    with torch.no_grad():
        module[2].weight.mul_(1.1)
    assert report.changes[0].before != pytest.approx(exact_norms(module, batch)[0], rel=0.03)
    calibrate_(module, batch, "jacobian", probes=300, generator=torch.Generator().manual_seed(0))
    assert exact_norms(module, batch) == pytest.approx([1, 1, 1], abs=0.07)  # tolerance and noise


def test_the_estimate_of_a_linear_map_in_closed_form() -> None:
    x = inputs(200, 30).double().requires_grad_()
    matrix = inputs(20, 30, seed=1).double()
    norm = partial_norm(x @ matrix.T, [x], 200)
    assert norm == pytest.approx(float(matrix.square().sum()) / 20, rel=0.01)
    unrelated = inputs(3, 3).requires_grad_()
    assert partial_norm(x @ matrix.T, [x, unrelated], 200) == pytest.approx(norm, rel=0.01)  # the last that matters
    assert partial_norm(x @ matrix.T, [unrelated], 3) == 0
    assert partial_norm(matrix, [x], 3) == 0


@pytest.mark.parametrize(("variance", "expected"), [(2.0, 1.0), (3.0, 1.5)])
def test_wide_relu_networks_have_the_norm_of_theory(variance: float, expected: float) -> None:
    # E relu'(z)^2 = 1/2, so that weights of variance v / fan_in have norm v / 2: He's 1, others are brought to it
    module, batch = drawn(lambda: deep(nn.ReLU, 7, 400)), inputs(64, 20)
    generator = torch.Generator().manual_seed(3)
    for part in module:
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0, math.sqrt(variance / part.in_features), generator=generator)
            nn.init.zeros_(part.bias)
    start = [part.weight.detach().clone() for part in module if isinstance(part, nn.Linear)]
    report = calibrate_(module, batch, "jacobian", generator=generator)
    hidden = report.changes[:-1]  # the last has but ten outputs
    assert [change.before for change in hidden] == pytest.approx([expected] * len(hidden), rel=0.1)
    assert [change.after for change in report.changes] == pytest.approx([1] * 6, abs=0.05)
    assert exact_ratio(module, start) == pytest.approx([1, *[expected**-0.5] * 5], rel=0.06)


def exact_ratio(module: nn.Sequential, start: list[Tensor]) -> list[float]:
    linears = [part for part in module if isinstance(part, nn.Linear)][:-1]
    return [float(part.weight.detach()[0, 0] / was[0, 0]) for part, was in zip(linears, start, strict=False)]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("method", ["lsuv", "within_layer", "jacobian"])
def test_gradients_reach_the_first_layer_of_a_deep_network(activation: type[nn.Module], method: str) -> None:
    def ratio(module: nn.Module) -> float:
        """The gradient's norm in the second layer over that in the last but one."""
        loss = nn.functional.cross_entropy(module(inputs(64, 20)), torch.arange(64) % 10)
        gradients = torch.autograd.grad(loss, [p for p in module.parameters() if p.dim() == 2])
        return float(gradients[1].norm() / gradients[-2].norm())

    module = drawn(lambda: deep(activation))
    assert ratio(module) < 2e-3
    calibrate_(module, inputs(128, 20), method, generator=torch.Generator().manual_seed(0))
    assert 0.05 < ratio(module) < 50


def test_jacobian_names_first_and_unreached_layers() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.join = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.join(torch.relu_(self.one(x)) + torch.relu_(self.two(x)))

    report = calibrate_(drawn(Branches), inputs(64, 5), "jacobian")
    assert [change.name for change in report.changes] == ["join.weight"]
    assert "no layer comes before" in report.notes["one.weight"]
    assert "does not depend on a layer before" in report.notes["two.weight"]


def test_jacobian_takes_the_last_of_several_layers_before() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.branch, self.leave = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            return self.leave(3 * x + self.branch(torch.tanh(x)))

    module = drawn(Residual)
    report = calibrate_(module, inputs(200, 5), "jacobian", dry_run=True, probes=100, tolerance=1e9)
    from_branch = float(module.leave.weight.detach().square().sum()) / 4  # and nine times that from `enter`, or more
    assert [change.name for change in report.changes] == ["branch.weight", "leave.weight"]
    assert report.changes[1].before == pytest.approx(from_branch, rel=0.03)
