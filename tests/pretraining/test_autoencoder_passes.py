"""One autoencoder's explicit passes: losses against scipy, gradients against autograd, memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.special import expit, xlogy
from torch import nn
from torch.profiler import ProfilerActivity, profile

from fanin.activations import Activation, identity, resolve, sigmoid
from fanin.catalogue import ACTIVATIONS
from fanin.choice import choose
from fanin.pretraining.autoencoder.layer import Layer, Loss, Passes, reconstruction_loss

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH, VISIBLE, HIDDEN = 7, 5, 4


def layer_of(*, tied: bool, dtype: torch.dtype = torch.float64) -> Layer:
    g = torch.Generator().manual_seed(1)
    draw = [torch.randn(shape, generator=g, dtype=dtype) for shape in [(HIDDEN, VISIBLE), (HIDDEN,), (VISIBLE,)]]
    decoder = draw[0] if tied else torch.randn(HIDDEN, VISIBLE, generator=g, dtype=dtype)
    return Layer(draw[0], draw[1], decoder, draw[2])


def batch_of() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    clean = torch.rand(BATCH, VISIBLE, generator=g, dtype=torch.float64)
    return clean, clean * (torch.rand(clean.shape, generator=g) > 0.3)


def autograd(
    layer: Layer, clean: torch.Tensor, inputs: torch.Tensor, *, f: nn.Module, g: nn.Module, loss: Loss
) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients, written as the model is defined and differentiated by torch."""
    leaves = [p.clone().requires_grad_() for p in layer.tensors()]
    weight, bias, decoder_bias = leaves[0], leaves[1], leaves[-1]
    decoder = weight if layer.tied else leaves[2]
    y = g(f(inputs @ weight.T + bias) @ decoder + decoder_bias)
    if loss == "cross_entropy":
        value = nn.functional.binary_cross_entropy(y, clean, reduction="none").sum(1).mean()
    else:
        value = (y - clean).square().sum(1).mean() / 2
    value.backward()
    return value.item(), [p.grad for p in leaves]  # type: ignore[misc]


def explicit(
    layer: Layer, clean: torch.Tensor, inputs: torch.Tensor, *, f: Activation, g: Activation, loss: Loss
) -> tuple[float, list[torch.Tensor]]:
    passes = Passes(layer, BATCH, activation=f, output=g, loss=loss, corrupted=True)
    passes.clean.copy_(clean)
    passes.inputs.copy_(inputs)
    gradient = layer.zeros()
    value = passes.forward(layer)
    passes.backward(layer, gradient, 0.0)
    return value, gradient.tensors()


def agree(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    ("name", "upper"), list(itertools.product(sorted(ACTIVATIONS), ["sigmoid", "linear", "itself"]))
)
def test_gradients_against_autograd(name: str, upper: str, tied: bool) -> None:
    f = resolve(choose("activation", name))
    g, loss = {"sigmoid": (sigmoid(), "cross_entropy"), "linear": (identity(), "squared"), "itself": (f, "squared")}[
        upper
    ]
    layer, (clean, inputs) = layer_of(tied=tied), batch_of()
    value, gradients = explicit(layer, clean, inputs, f=f, g=g, loss=loss)
    expected, theirs = autograd(layer, clean, inputs, f=f.module(), g=g.module(), loss=loss)
    assert value == pytest.approx(expected, rel=1e-9)
    assert len(gradients) == (3 if tied else 4)
    assert agree(gradients, theirs)


def test_the_comparison_can_fail() -> None:
    """The target is the clean input; a tied weight has the sum of both gradients."""
    layer, (clean, inputs) = layer_of(tied=True), batch_of()
    f = sigmoid()
    modules = {"f": f.module(), "g": f.module(), "loss": "cross_entropy"}
    _, gradients = explicit(layer, clean, inputs, f=f, g=f, loss="cross_entropy")
    assert not agree(gradients, autograd(layer, inputs, inputs, **modules)[1])
    assert not agree(gradients, autograd(layer, clean, clean, **modules)[1])
    loose = Layer(layer.weight, layer.bias, layer.weight.clone(), layer.decoder_bias)
    _, apart = explicit(loose, clean, inputs, f=f, g=f, loss="cross_entropy")
    assert torch.allclose(apart[0] + apart[2], gradients[0])
    assert not torch.allclose(apart[0], gradients[0])


def test_momentum_accumulates_in_the_velocity() -> None:
    for tied in (True, False):
        layer, (clean, inputs) = layer_of(tied=tied), batch_of()
        _, once = explicit(layer, clean, inputs, f=sigmoid(), g=sigmoid(), loss="cross_entropy")
        passes = Passes(layer, BATCH, activation=sigmoid(), output=sigmoid(), loss="cross_entropy", corrupted=True)
        passes.clean.copy_(clean)
        passes.inputs.copy_(inputs)
        velocity = layer.zeros()
        for _ in range(2):
            passes.forward(layer)
            passes.backward(layer, velocity, 0.5)
        assert agree(velocity.tensors(), [1.5 * g for g in once])
        assert not agree(velocity.tensors(), [2 * g for g in once])


def test_losses_against_scipy() -> None:
    rng = np.random.default_rng(0)
    z, x = rng.normal(size=(6, 9)), rng.uniform(size=(6, 9))
    x[0] = np.arange(9) % 2  # 0 log 0 = 0
    tensors = torch.from_numpy(z), torch.from_numpy(x)
    cross = reconstruction_loss(*tensors, "cross_entropy", sigmoid(), torch.empty(6, 9, dtype=torch.float64))
    assert float(cross) == pytest.approx(-(xlogy(x, expit(z)) + xlogy(1 - x, expit(-z))).sum(), rel=1e-12)
    squared = reconstruction_loss(*tensors, "squared", identity(), torch.empty(6, 9, dtype=torch.float64))
    assert float(squared) == pytest.approx(((z - x) ** 2).sum() / 2, rel=1e-12)
    assert float(cross) != pytest.approx(float(squared), rel=1e-2)


def test_cross_entropy_stays_finite_where_the_sigmoid_rounds() -> None:
    z, x = torch.tensor([[200.0, -200.0, 50.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    assert float(reconstruction_loss(z, x, "cross_entropy", sigmoid(), torch.empty(1, 3))) == pytest.approx(400)
    assert not bool(torch.isfinite(torch.log(1 - torch.sigmoid(z))).all()), "a logarithm of the sigmoid is not"


@pytest.mark.parametrize("name", [n for n in sorted(ACTIVATIONS) if n not in ("mish", "softsign")])
def test_a_step_allocates_no_more_than_scalars(name: str) -> None:
    """mish and softsign are left out: torch's kernels for them make a temporary."""
    f = resolve(choose("activation", name))
    layer, (clean, inputs) = layer_of(tied=True), batch_of()
    passes = Passes(layer, BATCH, activation=f, output=sigmoid(), loss="cross_entropy", corrupted=True)
    passes.clean.copy_(clean)
    passes.inputs.copy_(inputs)
    velocity = layer.zeros()

    def step() -> None:
        passes.forward(layer)
        passes.backward(layer, velocity, 0.9)

    assert most_allocated(step) <= 64
    assert most_allocated(lambda: inputs @ layer.weight.T) > 64, "the measure can fail"


def most_allocated(work) -> int:
    """The largest number of bytes that one operation allocates."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    return max((event.self_cpu_memory_usage for event in seen.events()), default=0)
