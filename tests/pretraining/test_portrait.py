"""What a stack shows of itself, and training epoch by epoch, against enumeration, exact likelihoods and plain fits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fanin.pretraining import DBN, RBM, DivergedError, StackedAutoencoder
from fanin.pretraining.layerwise import epochs, layer_error
from fanin.pretraining.likelihood import log_likelihood
from fanin.pretraining.portrait import (
    as_network,
    chains,
    filters,
    first_likelihood,
    lower_layers,
    pictures,
    pixel_errors,
    reconstructions,
)

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.from_numpy(np.random.default_rng(2).random((80, 6)).astype(np.float32))
HELD_OUT = torch.from_numpy(np.random.default_rng(3).random((50, 6)).astype(np.float32))
SMALL = {"batch_size": 20, "epochs": 2, "seed": 3}


def bits(n):
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def made(*widths, size=1.5):
    """A network of these widths, features first, with weights of this size."""
    rng = np.random.default_rng(7)
    machines = [
        {
            "components": torch.from_numpy(rng.normal(size=(above, below)) * size).float(),
            "intercept_hidden": torch.from_numpy(rng.normal(size=above)).float(),
            "intercept_visible": torch.from_numpy(rng.normal(size=below)).float(),
        }
        for below, above in itertools.pairwise(widths)
    ]
    return DBN(widths[1:], seed=1).load_state_dict({"machines": machines})


def marginals(model):
    """p(v_i = 1) by enumeration: the top machine's states, and conditional probabilities down from them."""
    w, c, b = (p[-1].astype(float) for p in (model.components_, model.intercept_hidden_, model.intercept_visible_))
    states = bits(len(b))
    weights = np.exp(states @ b) * np.prod(1 + np.exp(c + states @ w.T), axis=1)
    p = weights / weights.sum()
    for weight, bias in zip(model.components_[-2::-1], model.intercept_visible_[-2::-1], strict=True):
        below = bits(len(bias))
        on = sigmoid(bias + states @ weight.astype(float))
        p = p @ np.prod(np.where(below[None], on[:, None], 1 - on[:, None]), axis=2)
        states = below
    return p @ states


@pytest.mark.parametrize("widths", [(4, 3), (4, 3, 3), (3, 4, 2, 3)])
def test_free_chains_reach_the_network_s_distribution(widths):
    model = made(*widths)
    ((step, found),) = chains(model, 6000, steps=(60,), seed=5)
    assert step == 60
    expected = marginals(model)
    error = found.std(0).numpy() / np.sqrt(len(found)) + 1e-4
    assert np.abs(found.mean(0).numpy() - expected).max() < 5 * error.max()
    flat = sigmoid(model.intercept_visible_[0].astype(float))  # what biases alone give: the test can fail
    assert np.abs(flat - expected).max() > 20 * error.max()


def test_chains_start_where_they_are_told_and_depend_on_the_seed():
    model = made(6, 5, 4, size=0.3)
    first, second = ([p for _, p in chains(model, X[:3], steps=(0, 1, 4), seed=5)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = [p for _, p in chains(model, X[:3], steps=(0, 1, 4), seed=6)]
    assert not torch.equal(first[2], other[2])


def test_the_likelihood_is_the_exact_one():
    train, held_out = X[:, [0, 0, 0, 1, 1, 1]], HELD_OUT[:, [0, 0, 0, 1, 1, 1]]  # two bits, thrice each
    model = DBN((5,), binarize="threshold", lr=0.3, batch_size=20, epochs=60).fit(train)
    found = first_likelihood(model, train, held_out, temperatures=1000, chains=200, seed=1)
    exact = float(log_likelihood(held_out.gt(0.5).float(), **model.machines_[0].parameters()).mean())
    assert found.least <= exact <= found.most
    assert found.most - found.least < 0.3
    assert exact > 0.3 - 6 * np.log(2)  # far from that of no machine at all
    assert found.pixels == "thresholded at 1/2"


def test_epoch_by_epoch_is_a_fit():
    for make in (
        lambda: DBN((5, 6), transposed=True, **SMALL),
        lambda: StackedAutoencoder((5, 4), corruption="masking", **SMALL),
    ):
        model = make()
        entries = list(epochs(model, X, HELD_OUT))
        assert [(e["layer"], e["epoch"]) for e in entries] == [(1, 1), (1, 2), (2, 1), (2, 2)]
        assert torch.equal(model.transform(X), make().fit(X).transform(X))
        assert list(epochs(model, X, HELD_OUT)) == []


def test_a_layer_s_error_is_that_of_its_own_inputs():
    model = StackedAutoencoder((5, 4), **SMALL).fit(X)
    below = sigmoid(X.numpy() @ model.coefs_[0] + model.intercepts_[0])
    code = sigmoid(below @ model.coefs_[1] + model.intercepts_[1])
    back = sigmoid(code @ model.decoder_coefs_[1] + model.decoder_intercepts_[1])
    assert layer_error(model, X, 2) == pytest.approx(float(((back - below) ** 2).mean()), rel=1e-4)
    last = list(epochs(StackedAutoencoder((5, 4), **SMALL), X, HELD_OUT))[-1]
    assert last["reconstruction_error"] == pytest.approx(layer_error(model, X, 2))
    assert last["held_out_error"] == pytest.approx(layer_error(model, HELD_OUT, 2))


def test_divergence_leaves_what_was_before():
    model = DBN((5, 4), lr=(0.1, 3e38), centered=True, **SMALL)
    with pytest.raises(DivergedError, match="layer 2: diverged in epoch 1") as caught:
        list(epochs(model, X, HELD_OUT))
    assert caught.value.where == model.divergence_
    assert torch.equal(model.transform(X), DBN((5,), lr=0.1, centered=True, **SMALL).fit(X).transform(X))


@pytest.mark.parametrize("kind", [DBN, StackedAutoencoder])
def test_reconstructions_go_up_and_back(kind):
    model = kind((5, 4), **SMALL).fit(X)
    one, two = reconstructions(model, HELD_OUT, 2)
    assert two.numpy() == pytest.approx(model.inverse_transform(model.transform(HELD_OUT)).numpy(), abs=1e-6)
    shallow = kind((5,), **SMALL).fit(X)
    assert one.numpy() == pytest.approx(shallow.inverse_transform(shallow.transform(HELD_OUT)).numpy(), abs=1e-6)
    assert pixel_errors(model, HELD_OUT, 2) == [
        pytest.approx(float((r - HELD_OUT).square().mean())) for r in (one, two)
    ]


def test_filters_are_products_of_weights():
    model = made(6, 5, 4)
    first, second = filters(model, 2)
    assert np.array_equal(first, model.components_[0])
    assert second == pytest.approx(model.components_[1] @ model.components_[0])
    stack = StackedAutoencoder((5, 4), **SMALL).fit(X)
    assert filters(stack, 2)[1] == pytest.approx((stack.coefs_[0] @ stack.coefs_[1]).T)


def test_a_lone_machine_is_a_network_of_one_layer():
    machine = RBM(5, method="pcd", visible="gaussian", **SMALL).fit(X)
    assert torch.equal(as_network(machine).transform(X), machine.transform(X))


def test_lower_layers_share_nothing():
    model = DBN((5, 4), **SMALL).fit(X).finetune(X, 1)
    below = lower_layers(model, 1)
    before = below.transform(X)
    model.partial_fit(X)
    model.finetune(X, 1)
    assert torch.equal(below.transform(X), before)
    assert not torch.equal(model.machines_[0].transform(X), before)


def test_pictures_have_the_shape_of_rows():
    model = DBN((5, 4), **SMALL).fit(X)
    found = pictures(model, HELD_OUT, (2, 3), layers=2, seed=0)
    assert [f.shape for f in found.filters] == [(5, 2, 3), (4, 2, 3)]
    assert found.originals.shape == found.reconstructions[1].shape == (16, 2, 3)
    assert found.chains.shape == (8, len(found.chain_steps), 2, 3)
    assert (found.chains[:, 0].reshape(8, 6)[:, None] == HELD_OUT.numpy()).all(2).any(1).all()  # the data themselves
    assert found.samples.shape[1:] == (2, 3)
    bare = pictures(StackedAutoencoder((5,), **SMALL).fit(X), HELD_OUT, (2, 3), layers=1, seed=0)
    assert len(bare.samples) == len(bare.chains) == 0
