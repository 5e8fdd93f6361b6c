"""The first batch: second moments, gradients, units and equal rows against hooks, autograd and slow loops."""

from __future__ import annotations

import math
from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fanin.diagnosis.start import Start, first_pass, like
from fanin.errors import FaninError
from fanin.training import Batch

pytestmark = pytest.mark.usefixtures("one_thread")


def batch(n: int = 16, features: int = 5, outputs: int = 2) -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch((torch.randn(n, features, generator=g),), torch.randn(n, outputs, generator=g))


def net(*parts: nn.Module) -> nn.Sequential:
    """With weights drawn under one seed."""
    torch.manual_seed(1)
    for part in parts:
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return nn.Sequential(*parts)


def test_gradients_and_norms_are_those_of_autograd() -> None:
    model, one = net(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3, bias=False), nn.ReLU(), nn.Linear(3, 2)), batch()
    start = first_pass(model, one, functional.mse_loss)
    by_hand: dict[str, Tensor] = {}
    handles = [
        part.register_full_backward_hook(lambda _, __, out, name=name: by_hand.__setitem__(name, out[0]))
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear)
    ]
    loss = functional.mse_loss(model(one.first.requires_grad_()), one.targets)  # which the hooks ask for
    loss.backward()
    for handle in handles:
        handle.remove()
    assert start.loss == pytest.approx(loss.item())
    assert [row.layer for row in start.layers] == ["0", "2", "4"]
    for row in start.layers:
        weight = model.get_parameter(row.parameter)
        size = float(weight.detach().norm())
        assert row.gradient == pytest.approx(float(by_hand[row.layer].square().mean()) * 16**2, rel=1e-5)
        assert row.weight_gradient == pytest.approx(float(weight.grad.norm()), rel=1e-5)
        assert row.weight == pytest.approx(size, rel=1e-5)
        assert (row.units, row.fan_in) == tuple(weight.shape)
        assert row.gradient != pytest.approx(float(by_hand[row.layer].square().mean()), rel=1e-2)  # it can fail
    assert (start.without_gradient, start.broken, start.error) == ((), (), None)


def test_a_batch_twice_has_the_same_gradient_of_an_example() -> None:
    model, one = net(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)), batch()
    twice = Batch((one.first.repeat(2, 1),), one.targets.repeat(2, 1))
    a, b = (first_pass(model, each, functional.mse_loss).layers for each in (one, twice))
    assert [row.gradient for row in a] == pytest.approx([row.gradient for row in b], rel=1e-4)


def test_nothing_is_left_in_grad() -> None:
    model = net(nn.Linear(5, 2))
    first_pass(model, batch(), functional.mse_loss)
    assert all(p.grad is None for p in model.parameters())


def test_vanished_gradients_keep_their_size() -> None:
    model = net(nn.Linear(5, 2))
    start = first_pass(model, batch(), lambda z, y: 1e-25 * functional.mse_loss(z, y))
    plain = first_pass(model, batch(), functional.mse_loss)
    assert start.layers[0].gradient == pytest.approx(1e-50 * (plain.layers[0].gradient or 0), rel=1e-4)


def slow_dead(values: Tensor) -> float:
    """Share of columns without a number above 0, one after the other."""
    columns = range(values.shape[1])
    return sum(all(v <= 0 for v in values[:, i].flatten().tolist()) for i in columns) / len(columns)


def slow_flat(values: Tensor, function: str) -> float:
    """Share of numbers at which the derivative is under a twentieth of its largest."""
    slopes = [4 * v * (1 - v) if function == "Sigmoid" else 1 - v * v for v in values.flatten().tolist()]
    return sum(s < 0.05 for s in slopes) / len(slopes)


def test_dead_units_are_counted_as_a_loop_does() -> None:
    model = net(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].bias[:3] = -100.0
    (row,) = first_pass(model, batch(), functional.mse_loss).units
    expected = slow_dead(model[:2](batch().first).detach())
    assert expected >= 3 / 8
    assert (row.dead, row.count, row.layer) == (pytest.approx(expected), 8, "0")


def test_dead_channels_are_dead_at_every_position() -> None:
    model = net(nn.Conv1d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2))
    with torch.no_grad():
        model[0].bias[:2] = -100.0
    x = torch.randn(8, 2, 5, generator=torch.Generator().manual_seed(2))
    (row,) = first_pass(model, Batch((x,), torch.zeros(8, 2)), functional.mse_loss).units
    expected = slow_dead(model[:2](x).detach())
    assert expected == 2 / 6
    assert (row.dead, row.count) == (pytest.approx(expected), 6)


def test_the_last_axis_has_the_units_of_a_sequence() -> None:
    model = net(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].bias[:2] = -100.0
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(2))
    (row,) = first_pass(model, Batch((x,), torch.zeros(4, 3, 2)), functional.mse_loss).units
    assert (row.dead, row.count) == (pytest.approx(slow_dead(model[:2](x).detach().flatten(0, 1))), 6)
    assert row.dead == pytest.approx(2 / 6)


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.Tanh])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_saturation_is_the_share_of_flat_values(kind: type[nn.Module], scale: float) -> None:
    model = net(nn.Linear(5, 8), kind(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight.mul_(scale)
    (row,) = first_pass(model, batch(), functional.mse_loss).units
    expected = slow_flat(model[:2](batch().first).detach().double(), kind.__name__)
    assert row.saturated == pytest.approx(expected, abs=1e-9)
    assert (expected > 0.5) == (scale == 30.0)


def test_equal_rows_are_units_with_equal_weights_and_gradients() -> None:
    model = net(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        for part in (model[0], model[2]):
            part.weight.fill_(0.3)
            part.bias.zero_()
    rows = first_pass(model, batch(), functional.mse_loss).layers
    assert [row.equal for row in rows] == [True, True, False]
    # the last layer's columns differ, so that gradients of units below it do, and those of the first do not
    assert [row.equal_gradients for row in rows] == [True, False, False]


@pytest.mark.parametrize("columns", [True, False])
def test_units_are_columns_of_a_plain_product(columns: bool) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
            with torch.no_grad():
                self.w.copy_((self.w[:, :1] if columns else self.w[:1]).clone())  # equal columns, or equal rows

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.w).tanh()

    (row,) = first_pass(Plain(), batch(outputs=3), functional.mse_loss).layers
    assert (row.units, row.fan_in, row.equal) == (3, 5, columns)


def test_units_are_the_second_axis_of_a_transposed_convolution() -> None:
    model = net(nn.ConvTranspose1d(3, 4, 2))
    (row,) = first_pass(model, Batch((torch.ones(2, 3, 5),), torch.zeros(2, 4, 6)), functional.mse_loss).layers
    assert (row.units, row.fan_in, row.kernel) == (4, 6, (2,))


def test_parameters_that_no_gradient_reaches_are_named() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.cut, self.idle = nn.Linear(5, 5), nn.Linear(5, 2), nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.cut(self.used(x).detach())

    start = first_pass(Half(), batch(), functional.mse_loss)
    assert start.without_gradient == ("used.weight", "used.bias", "idle.weight", "idle.bias")
    assert start.graph is not None
    assert start.graph.used == {"cut.weight", "cut.bias"}


def test_gradients_that_are_not_finite_are_named() -> None:
    start = first_pass(net(nn.Linear(5, 2)), batch(), lambda z, y: (z - z.detach()).abs().sqrt().sum())
    assert math.isfinite(start.loss)
    assert start.broken == ("0.weight", "0.bias")
    assert not start.finite
    assert first_pass(net(nn.Linear(5, 2)), batch(), functional.mse_loss).finite


def test_what_a_likelihood_gets_is_looked_at_and_not_what_the_data_hold() -> None:
    one = Batch((batch().first,), torch.arange(16) % 5)
    ordinal = first_pass(
        net(nn.Linear(5, 4)),
        one,
        lambda z, y: functional.binary_cross_entropy_with_logits(z, (y[:, None] > torch.arange(4)).to(z)),
    )
    assert ordinal.bce_range == (0.0, 1.0)
    plain = first_pass(
        net(nn.Linear(5, 1)), one, lambda z, y: functional.binary_cross_entropy_with_logits(z[:, 0], y.to(z))
    )
    assert plain.bce_range == (0.0, 4.0)
    raw = first_pass(net(nn.Linear(5, 5)), one, functional.nll_loss)
    assert raw.output is not None
    z = raw.output.detach().double().exp().sum(1)
    assert raw.nll_mass == pytest.approx((float(z.mean()), float((z - 1).abs().max())), rel=1e-5)
    proper = first_pass(net(nn.Linear(5, 5)), one, functional.cross_entropy)
    assert proper.nll_mass == pytest.approx((1.0, 0.0), abs=1e-5)


def test_errors_are_kept_with_the_stage() -> None:
    def fails(*_: Tensor) -> Tensor:
        raise KeyError("no")

    start = first_pass(net(nn.Linear(5, 2)), batch(), fails)
    assert (start.stage, type(start.error)) == ("loss", KeyError)
    assert first_pass(net(nn.Linear(4, 2)), batch(), functional.mse_loss).stage == "forward"
    several = first_pass(net(nn.Linear(5, 2)), batch(), lambda z, y: (z - y).square())
    assert isinstance(several.error, FaninError)


def test_told_is_whether_outputs_enter_the_loss() -> None:
    model, one = net(nn.Linear(5, 2)), batch()
    assert first_pass(model, one, functional.mse_loss).told
    assert not first_pass(model, one, lambda z, y: (0 * z).sum()).told


def test_outputs_of_one_tensor_are_rebuilt_around_another() -> None:
    a, b = torch.zeros(3, 2), torch.ones(3, 2)
    pair = namedtuple("pair", "z note")
    assert like(a, b) is b
    assert like((a, None), b)[0] is b
    assert like({"z": a, "note": "x"}, b) == {"z": b, "note": "x"} or like({"z": a}, b)["z"] is b
    assert like(pair(a, "x"), b).z is b
    assert like([a], b)[0] is b
    assert like((a, a), b) is None
    assert like("text", b) is None


@pytest.mark.parametrize(
    ("outputs", "paired"),
    [(torch.zeros(3, 2), True), ({"z": torch.zeros(3, 2)}, True), ((torch.zeros(3), torch.zeros(3)), False)],
)
def test_paired_is_one_tensor_against_one(outputs: object, paired: bool) -> None:
    main = outputs if isinstance(outputs, Tensor) else torch.zeros(3, 2)
    start = Start(Batch((torch.zeros(3, 1),), torch.zeros(3, 2)), outputs=outputs, output=main)
    assert start.paired is paired
    assert not Start(start.batch, outputs=torch.tensor(1.0), output=torch.tensor(1.0)).paired
