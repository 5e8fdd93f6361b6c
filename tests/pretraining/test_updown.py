"""The up-down algorithm: one update against a slow loop, and that it raises the bound of a tiny network."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from fanin.pretraining.boltzmann.uniforms import Uniforms
from fanin.pretraining.dbn import DBN
from fanin.pretraining.updown import Directed, up_down

pytestmark = pytest.mark.usefixtures("one_thread")


WIDTHS = (6, 5, 4, 3)


def network() -> list[Directed]:
    g = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    layers = []
    for visible, hidden in pairwise(WIDTHS):
        up = draw(hidden, visible)
        down = up if hidden == WIDTHS[-1] else draw(hidden, visible)
        layers.append(Directed(up, draw(hidden), down, draw(visible)))
    return layers


def slow_update(
    v: np.ndarray, layers: list[list[np.ndarray]], *, k: int, lr: float, noise: Any
) -> list[list[np.ndarray]]:
    """The algorithm row by row; noise(rows, columns) are the uniform numbers, in the order in which they are drawn."""
    B = len(v)
    R, r, G, g = (list(parts) for parts in zip(*layers, strict=True))
    s = [v]
    for i in range(2):
        s.append((noise(B, WIDTHS[i + 1]) < expit(s[i] @ R[i].T + r[i])).astype(float))
    q = expit(s[2] @ R[2].T + r[2])
    last, x = q, s[2]
    for _ in range(k):
        h = (noise(B, WIDTHS[3]) < last).astype(float)
        x = (noise(B, WIDTHS[2]) < expit(h @ R[2] + g[2])).astype(float)
        last = expit(x @ R[2].T + r[2])
    d = [None, None, x]
    d[1] = (noise(B, WIDTHS[1]) < expit(x @ G[1] + g[1])).astype(float)
    d[0] = expit(d[1] @ G[0] + g[0])
    new = [[p.copy() for p in layer] for layer in layers]
    for n in range(B):
        new[2][0] += lr / B * (np.outer(q[n], s[2][n]) - np.outer(last[n], x[n]))
        new[2][1] += lr / B * (q[n] - last[n])
        new[2][3] += lr / B * (s[2][n] - x[n])
        for i in range(2):
            missed = s[i][n] - expit(s[i + 1][n] @ G[i] + g[i])
            new[i][2] += lr / B * np.outer(s[i + 1][n], missed)
            new[i][3] += lr / B * missed
            unseen = d[i + 1][n] - expit(d[i][n] @ R[i].T + r[i])
            new[i][0] += lr / B * np.outer(unseen, d[i][n])
            new[i][1] += lr / B * unseen
    new[2][2] = new[2][0]
    return new


@pytest.mark.parametrize("k", [1, 3])
def test_one_update_against_a_slow_loop(k: int) -> None:
    v = np.random.default_rng(1).uniform(size=(7, 6))
    uniforms = Uniforms(0, "up-down").at(epoch=1, step=1)
    before = [
        [p.numpy().copy() for p in (a.recognition, a.bias_hidden, a.generative, a.bias_visible)] for a in network()
    ]
    expected = slow_update(
        v, before, k=k, lr=0.3, noise=lambda *shape: uniforms.fill_(torch.empty(shape, dtype=torch.float64)).numpy()
    )
    layers = network()
    up_down(
        torch.from_numpy(v), layers[:2], layers[2], k=k, lr=0.3, uniforms=Uniforms(0, "up-down").at(epoch=1, step=1)
    )
    for layer, theirs, old in zip(layers, expected, before, strict=True):
        mine = (layer.recognition, layer.bias_hidden, layer.generative, layer.bias_visible)
        for tensor, array, start in zip(mine, theirs, old, strict=True):
            np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-9, atol=1e-12)
            assert not np.allclose(start, array, atol=1e-6), "every tensor moves"


def data(rows: int = 200) -> np.ndarray:
    x = (np.random.default_rng(2).uniform(size=(rows, 5)) < 0.4).astype(np.float32)
    x[:, 3], x[:, 4] = x[:, 0] * x[:, 1], 1 - x[:, 2]
    return x


def trained(**params: Any) -> DBN:
    return DBN(**{"hidden": (3, 4), "batch_size": 20, "epochs": 3, "dtype": torch.float64} | params).fit(data())


def test_finetuning_makes_a_better_generator() -> None:
    """Total variation between samples and data, over all 32 states: lower after tuning than before it."""
    network, place = trained(lr=0.1), 2 ** np.arange(5)[::-1]
    share = np.bincount((data() @ place).astype(int), minlength=32) / len(data())

    def distance() -> float:
        drawn = network.sample(4000, steps=50)
        return np.abs(np.bincount((drawn @ place).astype(int), minlength=32) / 4000 - share).sum() / 2

    before = distance()
    network.finetune(data(), epochs=60, lr=0.5)
    assert distance() < before - 0.2
    errors = [entry["wake_error"] for entry in network.tuning_]
    assert errors[-1] < errors[0]
    assert [entry["epoch"] for entry in network.tuning_] == list(range(1, 61))


def test_each_direction_has_weights_of_its_own_from_then_on() -> None:
    network, rows = trained(), torch.from_numpy(data()).double()
    untuned = network.inverse_transform(network.transform(rows))
    network.finetune(rows, epochs=2, lr=0.5)
    codes = network.transform(rows)
    with torch.no_grad():
        torch.testing.assert_close(network.to_sequential()(rows), codes, rtol=0, atol=1e-10)
        torch.testing.assert_close(network.decoder()(codes), network.inverse_transform(codes), rtol=0, atol=1e-10)
    assert not torch.allclose(network.inverse_transform(codes), untuned, atol=1e-4)
    upward, downward = network.to_sequential()[0].weight, network.decoder()[-2].weight
    assert not torch.allclose(upward, downward.T, atol=1e-4)
    assert torch.equal(network.to_sequential()[2].weight, network.decoder()[0].weight.T), "the top machine has one"


def test_tuning_resumes_bit_for_bit() -> None:
    whole = trained().finetune(data(), epochs=3)
    half = trained().finetune(data(), epochs=1)
    other = DBN(**half.get_params()).load_state_dict(half.state_dict()).finetune(data(), epochs=2)
    assert other.tuning_ == whole.tuning_
    for mine, theirs in zip(other.unrolled().parameters(), whole.unrolled().parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(next(half.unrolled().parameters()), next(whole.unrolled().parameters()))
    assert whole.fit(data()).tuning_ == [], "a fit starts anew"


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more layers of bernoulli units"):
        trained(hidden=(3,)).finetune(data())
    with pytest.raises(ValueError, match="not fitted yet"):
        DBN().finetune(data())
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        trained().finetune(data() * 2)
    with pytest.raises(ValueError, match="at least batch_size = 20 rows; got 10"):
        trained().finetune(data()[:10])
    network = trained()
    with pytest.raises(FloatingPointError, match="lower lr"):
        network.finetune(data(), lr=1e308)
    same = trained().finetune(data(), epochs=len(network.tuning_), lr=1e308)
    assert all(np.isfinite(w).all() for w in network.components_), "weights are those before the epoch that broke"
    assert all(np.array_equal(a, b) for a, b in zip(same.components_, network.components_, strict=True))
