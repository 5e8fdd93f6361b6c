"""Greedy training against a slow loop of numpy, PCA's bound, resuming bit for bit, divergence, and fine-tuning."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from fanin.pretraining.autoencoder import StackedAutoencoder
from fanin.pretraining.autoencoder.finetune import unrolled_loss
from fanin.pretraining.autoencoder.layer import Passes
from fanin.pretraining.divergence import DivergedError
from fanin.record import Divergence
from fanin.streams import Stream

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, FEATURES = 23, 6


def data(rows: int = ROWS, features: int = FEATURES) -> np.ndarray:
    return np.random.default_rng(11).uniform(size=(rows, features))


def model(**params: Any) -> StackedAutoencoder:
    return StackedAutoencoder(**{"hidden": (5, 3), "batch_size": 4, "epochs": 2, "dtype": torch.float64} | params)


def weights(fitted: StackedAutoencoder) -> list[np.ndarray]:
    return [*fitted.coefs_, *fitted.intercepts_, *fitted.decoder_coefs_, *fitted.decoder_intercepts_]


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def slow_layer(
    x: np.ndarray,
    start: list[np.ndarray],
    *,
    place: int,
    epochs: int,
    lr: float,
    momentum: float,
    share: float,
    tied: bool,
) -> list[np.ndarray]:
    """A sigmoid autoencoder with cross-entropy, row by row: W (V, H), b, D (H, V), c after so many epochs."""
    W, b, D, c = (p.copy() for p in start)
    V = [np.zeros_like(p) for p in (W, b, D, c)]
    for epoch in range(1, epochs + 1):
        order = Stream(0, "pretraining order", epoch=epoch, layer=place).permutation(len(x))
        for step in range(1, len(x) // 4 + 1):
            rows = order[4 * (step - 1) : 4 * step]
            words = Stream(0, "corruption", epoch=epoch, step=step, layer=place).uint16(4 * x.shape[1])
            kept = (words.view("<i2").astype(int) + 2**15 >= round(share * 2**16)).reshape(4, -1)
            G = [np.zeros_like(p) for p in (W, b, D, c)]
            for clean, keep in zip(x[rows], kept, strict=True):
                noisy = clean * keep
                h = expit(noisy @ W + b)
                by_z = (expit(h @ D + c) - clean) / 4
                by_a = (D @ by_z) * h * (1 - h)
                G[0] += np.outer(noisy, by_a)
                G[1] += by_a
                G[2] += np.outer(h, by_z)
                G[3] += by_z
            if tied:
                G[0] = G[0] + G[2].T
            for i, p in enumerate((W, b, D, c)):
                V[i] = momentum * V[i] + G[i]
                np.subtract(p, lr * V[i], out=p)
            if tied:
                D = W.T.copy()
    return [W, b, D, c]


def starts(params: dict[str, Any], hidden: tuple[int, ...], x: np.ndarray) -> list[list[np.ndarray]]:
    fresh = model(**params, hidden=hidden, epochs=0).fit(x)
    parts = fresh.coefs_, fresh.intercepts_, fresh.decoder_coefs_, fresh.decoder_intercepts_
    return [list(layer) for layer in zip(*parts, strict=True)]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_training_against_a_slow_loop(tied: bool, momentum: float) -> None:
    """Two layers: the second on the clean codes of the first, both with corrupted inputs and clean targets."""
    params = {"tied": tied, "momentum": momentum, "corruption": "masking", "amount": (0.25, 0.4), "lr": (0.5, 0.3)}
    ours, x = model(**params).fit(data()), data()
    for place, start in enumerate(starts(params, (5, 3), data())):
        share, lr = params["amount"][place], params["lr"][place]
        setting = {"place": place, "epochs": 2, "lr": lr, "momentum": momentum, "tied": tied}
        W, b, D, c = slow_layer(x, start, share=share, **setting)
        fitted = [
            ours.coefs_[place],
            ours.intercepts_[place],
            ours.decoder_coefs_[place],
            ours.decoder_intercepts_[place],
        ]
        for mine, theirs in zip(fitted, (W, b, D, c), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-11)
        assert not np.allclose(slow_layer(x, start, share=share + 0.1, **setting)[0], W, atol=1e-6)
        x = expit(x @ W + b)
    np.testing.assert_allclose(ours.transform(data()), x, rtol=1e-9)


@pytest.mark.parametrize("kind", ["masking", "gaussian", "salt_and_pepper"])
def test_no_corruption_is_the_plain_autoencoder_bit_for_bit(kind: str) -> None:
    plain = weights(model().fit(data()))
    assert equal(weights(model(corruption=kind, amount=0.0).fit(data())), plain)
    assert not equal(weights(model(corruption=kind, amount=0.25).fit(data())), plain)


def test_a_linear_autoencoder_reaches_pca_and_never_passes_it() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 6)) @ np.diag([2.0, 1.5, 1.0, 0.5, 0.3, 0.2]) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    params = {
        "hidden": (2,),
        "activation": "identity",
        "output": "linear",
        "tied": False,
        "batch_size": 200,
        "lr": 0.05,
    }
    residual = np.linalg.svd(x - x.mean(0), compute_uv=False)[2:]
    best = (residual**2).sum() / 2 / len(x)
    loss = -model(**params, momentum=0.9, epochs=400).fit(x).score(x)
    assert best * (1 - 1e-9) <= loss <= best * 1.001
    assert -model(**params, epochs=3).fit(x).score(x) > best * 1.1, "the comparison can fail"


def test_partial_fits_are_a_fit_and_the_state_resumes_bit_for_bit() -> None:
    params = {"corruption": "gaussian", "amount": 0.2, "momentum": 0.7, "tied": False, "epochs": (2, 3)}
    whole = model(**params).fit(data())
    assert [(e["layer"], e["epoch"]) for e in whole.history_] == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    one = model(**params)
    for done in range(1, 6):
        one.partial_fit(data())
        file = io.BytesIO()
        torch.save(one.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        other = model(**params, warm_start=True).load_state_dict(state).fit(data())
        assert equal(weights(other), weights(whole)), f"resumed after {done} epochs"
        assert other.history_ == whole.history_
    assert equal(weights(one), weights(whole))
    one.partial_fit(data())
    assert not equal(weights(one), weights(whole))
    assert (one.history_[-1]["layer"], one.history_[-1]["epoch"]) == (2, 4)


def test_resuming_without_the_velocity_would_be_seen() -> None:
    whole = model(momentum=0.7).fit(data())
    state = model(momentum=0.7).partial_fit(data()).state_dict()
    state["velocity"] = [torch.zeros_like(v) for v in state["velocity"]]
    other = model(momentum=0.7, warm_start=True).load_state_dict(state).fit(data())
    assert not equal(weights(other), weights(whole))


def test_fit_starts_anew_and_a_state_does_not_follow_its_model() -> None:
    fitted = model().fit(data())
    first, state = weights(fitted), fitted.state_dict()
    assert equal(weights(fitted.fit(data())), first)
    fitted.partial_fit(data())
    assert equal(weights(model().load_state_dict(state)), first)
    assert not equal(weights(fitted), first)
    assert not equal(weights(model(seed=1).fit(data())), first)


def test_divergence_is_recorded_and_mended() -> None:
    params = {"output": "linear", "activation": "identity", "hidden": (5, 3), "epochs": 3, "momentum": 0.5}
    broken = model(**params, lr=(1e-3, 1e200))
    with pytest.raises(DivergedError, match=r"layer 2: diverged in epoch 1, step \d \(loss (inf|nan)\).*lower lr"):
        broken.fit(data())
    found = broken.divergence_
    assert found is not None
    assert (found.epoch, found.layer) == (1, 2)
    assert 1 < found.step <= ROWS // 4
    untouched = starts({"output": "linear", "activation": "identity"}, (5, 3), data())[1]
    assert np.array_equal(broken.coefs_[1], untouched[0])
    mended = broken.set_params(lr=1e-3, warm_start=True).fit(data())
    assert mended.divergence_ is None
    assert equal(weights(mended), weights(model(**params, lr=1e-3).fit(data())))


def test_finetuning_lowers_the_loss_of_the_whole() -> None:
    for tied in (True, False):
        fitted = model(tied=tied, epochs=5, lr=0.5).fit(data())
        before, top = fitted.score(data()), fitted.coefs_[1]
        fitted.finetune(data(), epochs=40)
        assert fitted.score(data()) > before
        assert not np.array_equal(fitted.coefs_[1], top)
        same = [np.array_equal(w.T, d) for w, d in zip(fitted.coefs_, fitted.decoder_coefs_, strict=True)]
        assert same == [tied, tied]
        assert [e["epoch"] for e in fitted.history_ if e["layer"] is None] == list(range(1, 41))


@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_unrolled_gradient_of_one_layer_is_the_explicit_one(output: str) -> None:
    fitted, x = model(hidden=(5,), output=output).fit(data()), torch.from_numpy(data())
    task, layer = fitted._settings().task(0, x), fitted._layers[0]
    passes = Passes(layer, ROWS, activation=task.activation, output=task.output, loss=task.loss, corrupted=False)
    passes.clean.copy_(x)
    value, gradient = passes.forward(layer), layer.zeros()
    passes.backward(layer, gradient, 0.0)
    leaf = layer.like([p.clone().requires_grad_() for p in layer.tensors()])
    loss = unrolled_loss([leaf], x, x, task)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-12)
    for mine, theirs in zip(gradient.tensors(), leaf.tensors(), strict=True):
        assert torch.allclose(mine, theirs.grad, rtol=1e-10, atol=1e-13)
    assert loss.item() == pytest.approx(-fitted.score(data()), rel=1e-12)
    assert loss.item() != pytest.approx(unrolled_loss([leaf], x * 0.9, x, task).item(), rel=1e-6)


def test_finetuning_that_diverges() -> None:
    fitted = model(output="linear", activation="identity", lr=1e-3).fit(data())
    before = weights(fitted)
    fitted.set_params(lr=1e200)
    with pytest.raises(DivergedError, match=r"fine-tuning: diverged in epoch 1, step \d \(loss"):
        fitted.finetune(data(), epochs=2)
    assert equal(weights(fitted), before)
    assert isinstance(fitted.divergence_, Divergence)
    assert fitted.divergence_.layer is None
