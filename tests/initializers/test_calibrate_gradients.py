"""MetaInit and GradInit against closed forms, finite differences and torch.optim."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fanin.initializers.calibrate import calibrate_
from fanin.initializers.calibrate.gradinit import loss_after_step
from fanin.initializers.calibrate.metainit import gradient_quotient
from fanin.initializers.calibrate.task import Task

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


INPUTS = torch.randn(24, 6, generator=seeded(1), dtype=torch.float64)
LABELS = (INPUTS @ torch.randn(6, 3, generator=seeded(2), dtype=torch.float64)).argmax(1)


def deep(activation: type[nn.Module] = nn.Tanh, depth: int = 3, width: int = 7) -> nn.Sequential:
    widths = [6, *[width] * (depth - 1), 3]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pairs = pairwise(widths)
        layers = [part for pair in pairs for part in (nn.Linear(*pair), activation())]
    return nn.Sequential(*layers[:-1]).double()


def matrices(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.dim() == 2]


def loss_of(module: nn.Module) -> Tensor:
    return functional.cross_entropy(module(INPUTS), LABELS)


def test_the_quotient_of_a_quadratic_loss_in_closed_form() -> None:
    # loss = sum a w^2 / 2: g = a w, H g = a^2 w, (g - H g) / g - 1 = -a
    curvature = torch.rand(5, 4, generator=seeded(0), dtype=torch.float64) + 0.5
    weight = torch.randn(5, 4, generator=seeded(1), dtype=torch.float64).requires_grad_()
    quotient = gradient_quotient((curvature * weight.square()).sum() / 2, [weight], eps=1e-12)
    assert float(quotient.detach()) == pytest.approx(float(curvature.mean()), rel=1e-9)
    linear = gradient_quotient((3.0 * weight).sum(), [weight], eps=1e-12)
    assert float(linear.detach()) == pytest.approx(0, abs=1e-9)
    flat = gradient_quotient((0.0 * weight).sum(), [weight])
    assert float(flat.detach()) == 1  # no gradient at all counts as changing wholly


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_the_quotient_by_finite_differences(eps: float) -> None:
    module = deep()
    weights = matrices(module)
    quotient = gradient_quotient(loss_of(module), list(weights), eps=eps)
    h = 1e-4

    def gradient() -> Tensor:
        """By differences of the loss, an entry at a time."""
        slopes = []
        for weight in weights:
            for i in range(weight.numel()):
                entry = weight.detach().view(-1)[i]
                start = entry.item()
                entry.fill_(start + h)
                up = loss_of(module).item()
                entry.fill_(start - h)
                slopes.append((up - loss_of(module).item()) / (2 * h))
                entry.fill_(start)
        return torch.tensor(slopes, dtype=torch.float64)

    def shift(by: Tensor) -> None:
        place = 0
        for weight in weights:
            weight.detach().add_(by[place : place + weight.numel()].view_as(weight))
            place += weight.numel()

    g = gradient()
    shift(h * g)
    up = gradient()
    shift(-2 * h * g)
    product = (up - gradient()) / (2 * h)
    shift(h * g)
    sign = torch.where(g >= 0, 1.0, -1.0)
    expected = float((((g - product) / (g + eps * sign)) - 1).abs().mean())
    assert float(quotient.detach()) == pytest.approx(expected, rel=1e-4)
    wrong = float(((product / g.abs().clamp(min=1e-12)) - 1).abs().mean())
    assert wrong != pytest.approx(expected, rel=1e-2)


def slopes_of_norms(module: nn.Module) -> list[float]:
    """dGQ / d|W| by differences of the quotient along each weight."""
    slopes = []
    for weight in matrices(module):
        norm, h, values = float(weight.detach().norm()), 1e-6, []
        for step in (h, -2 * h, h):
            weight.detach().mul_(1 + step / norm)
            values.append(float(gradient_quotient(loss_of(module), list(matrices(module))).detach()))
            norm += step
        slopes.append((values[0] - values[1]) / (2 * h))
    return slopes


@pytest.mark.parametrize("steps", [1, 2])
def test_metainit_moves_norms_against_their_slopes(steps: int) -> None:
    module, expected = deep(), deep()
    velocity, lr, momentum = [0.0] * 3, 0.01, 0.5
    lowest, best = float(gradient_quotient(loss_of(expected), list(matrices(expected))).detach()), expected.state_dict()
    for _ in range(steps):
        slopes = slopes_of_norms(expected)
        for i, weight in enumerate(matrices(expected)):
            velocity[i] = momentum * velocity[i] - lr * (1 if slopes[i] > 0 else -1)
            norm = float(weight.detach().norm())
            weight.detach().mul_((norm + velocity[i]) / norm)
        quotient = float(gradient_quotient(loss_of(expected), list(matrices(expected))).detach())
        assert quotient < lowest or steps > 1
        if quotient < lowest:
            lowest, best = quotient, {name: value.clone() for name, value in expected.state_dict().items()}
    options: dict[str, Any] = {"targets": LABELS, "steps": steps, "lr": lr, "momentum": momentum}
    report = calibrate_(module, INPUTS, "metainit", **options)
    for name, value in module.state_dict().items():
        assert torch.allclose(value, best[name], rtol=1e-7)
    assert report.objective == pytest.approx((report.objective[0], lowest), rel=1e-7)
    assert [change.after for change in report.changes] == pytest.approx(
        [float(w.detach().norm()) for w in matrices(module)]
    )
    assert len({slope > 0 for slope in slopes_of_norms(deep())}) == 2  # both signs occur


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_metainit_lowers_the_quotient_of_a_deep_network_without_data(activation: type[nn.Module]) -> None:
    module = deep(activation, 20, 16)
    report = calibrate_(module, torch.zeros(24, 6).double(), "metainit", steps=40, generator=seeded(0))
    assert report.objective is not None
    before, after = report.objective
    assert after < 0.9 * before
    # the batch of zeros was used for its shape alone; on other data the quotient is lower too
    fresh = [
        float(gradient_quotient(loss_of(m), list(matrices(m))).detach()) for m in (deep(activation, 20, 16), module)
    ]
    assert fresh[1] < 0.9 * fresh[0]


def test_metainit_never_turns_a_weight_round_and_leaves_zeros() -> None:
    module = deep()
    with torch.no_grad():
        module[2].weight.zero_()
    signs = [weight.detach().sign() for weight in matrices(module)]
    report = calibrate_(module, INPUTS, "metainit", targets=LABELS, steps=5, lr=100.0)
    assert [torch.equal(w.detach().sign(), s) for w, s in zip(matrices(module), signs, strict=True)] == [True] * 3
    assert report.changes[1].after == 0


def test_metainit_wants_scores_for_its_labels() -> None:
    module = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
    with pytest.raises(ValueError, match=r"random labels.*shape \(batch, classes, ...\).*returned \(24,\).*give loss="):
        calibrate_(module.double(), INPUTS, "metainit")
    start = module[0].weight.detach().clone()
    calibrate_(module, INPUTS, "metainit", loss=lambda z: z.square().mean(), steps=1)
    assert not torch.equal(module[0].weight, start)


OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("lr", [0.1, 1e-3])
def test_the_loss_after_a_step_is_torch_optims(optimizer: Any, lr: float) -> None:
    module, stepped = deep(), deep()
    task = Task(module, INPUTS, targets=LABELS)
    mine = float(loss_after_step(task, dict(module.named_parameters()), optimizer=optimizer, lr=lr))
    loss_of(stepped).backward()
    OPTIMIZERS[optimizer](stepped.parameters(), lr=lr).step()
    assert mine == pytest.approx(loss_of(stepped).item(), rel=1e-10)
    assert mine != pytest.approx(loss_of(module).item(), rel=1e-6)  # it has moved


def scaled(scales: list[float]) -> nn.Sequential:
    module = deep()
    for parameter, scale in zip(module.parameters(), scales, strict=True):
        parameter.detach().mul_(scale)
    return module


def objective(scales: list[float], optimizer: str, lr: float, gamma: float) -> float:
    """The paper's: the norm of the gradient above gamma, else the loss after a step of torch.optim."""
    module = scaled(scales)
    loss_of(module).backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    norm = float(gradient.norm(2 if optimizer == "sgd" else 1))
    if norm > gamma:
        return norm
    OPTIMIZERS[optimizer](module.parameters(), lr=lr).step()
    return loss_of(module).item()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("gamma", [1e-3, 100.0])
def test_gradinit_moves_scales_against_their_slopes(optimizer: str, gamma: float) -> None:
    h, lr, slopes = 1e-6, 0.05, []
    for i in range(6):
        up, down = ([1.0 + sign * h * (i == j) for j in range(6)] for sign in (1, -1))
        slopes.append((objective(up, optimizer, lr, gamma) - objective(down, optimizer, lr, gamma)) / (2 * h))
    assert len({slope > 0 for slope in slopes}) == 2  # both signs occur
    assert min(map(abs, slopes)) > 1e-5  # and none is in doubt
    module = deep()
    options: dict[str, Any] = {"optimizer": optimizer, "lr": lr, "gamma": gamma, "steps": 1, "scale_lr": 0.02}
    report = calibrate_(module, INPUTS, "gradinit", targets=LABELS, **options)
    expected = [0.98 if slope > 0 else 1.02 for slope in slopes]  # the first step of Adam is a sign
    assert [change.after for change in report.changes] == pytest.approx(expected, rel=1e-3)
    for one, other in zip(module.parameters(), scaled([c.after for c in report.changes]).parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradinit_lowers_the_loss_after_a_step_of_a_deep_network(optimizer: Any) -> None:
    lr = 0.1 if optimizer == "sgd" else 1e-3
    module = deep(nn.Tanh, 20, 16)
    options: dict[str, Any] = {"optimizer": optimizer, "lr": lr, "steps": 60, "scale_lr": 0.03, "gamma": 50.0}
    report = calibrate_(module, INPUTS, "gradinit", targets=LABELS, **options)
    after = []
    for trial in (deep(nn.Tanh, 20, 16), module):
        loss_of(trial).backward()
        OPTIMIZERS[optimizer](trial.parameters(), lr=lr).step()
        after.append(loss_of(trial).item())
    assert report.objective == pytest.approx(after, rel=1e-9)
    assert after[1] < 0.97 * after[0]


def test_gradinit_bounds_the_gradient_and_the_scales() -> None:
    module = deep()
    for weight in matrices(module):
        weight.detach().mul_(6)  # an explosive start

    def norm() -> float:
        gradients = torch.autograd.grad(loss_of(module), list(module.parameters()))
        return float(torch.cat([g.flatten() for g in gradients]).norm())

    assert norm() > 1
    report = calibrate_(module, INPUTS, "gradinit", targets=LABELS, gamma=0.7, steps=150, smallest=0.5)
    assert norm() < 0.75  # it hovers about the bound
    assert min(change.after for change in report.changes) >= 0.5
    assert report.notes == {}
    report = calibrate_(deep(), INPUTS, "gradinit", targets=LABELS, gamma=1e-3, steps=1)
    assert "above 0.001: take more steps" in report.notes["gamma"]


def test_gradinit_says_where_the_loss_is_not_finite() -> None:
    module = deep()
    start = [p.detach().clone() for p in module.parameters()]
    with pytest.raises(ValueError, match="expected a finite loss; it is nan at step 0"):
        calibrate_(module, INPUTS * float("inf"), "gradinit", targets=LABELS)
    assert all(map(torch.equal, module.parameters(), start))
    with pytest.raises(ValueError, match="finite gradient quotient; it is nan after 0 steps"):
        calibrate_(module, INPUTS * float("inf"), "metainit", targets=LABELS)
