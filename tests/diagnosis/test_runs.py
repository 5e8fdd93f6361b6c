"""Samples, scores, the best constant's loss and the ranking, against scikit-learn, closed forms and slow loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, r2_score
from torch import Tensor, nn
from torch.nn import functional

from fanin.diagnosis.ranking import ranked
from fanin.diagnosis.runs import constant_loss, evaluating, run, score
from fanin.diagnosis.sample import Sample, inputs_of, sample_of, targets_in
from fanin.errors import DataError
from fanin.finding import Finding
from fanin.training import Batch, Training

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(n: int = 200, classes: int = 4, seed: int = 1) -> Tensor:
    """Unequally frequent classes."""
    weights = torch.arange(1.0, classes + 1)
    return torch.multinomial(weights, n, replacement=True, generator=torch.Generator().manual_seed(seed))


# -- sample: what kind of targets

KINDS: list[tuple[str, Tensor, str]] = [
    ("indices", labels(), "classes"),
    ("two indices", labels(classes=2), "classes"),
    ("0.0 and 1.0", labels(classes=2).float(), "binary"),
    ("truth values", labels(classes=2).bool(), "binary"),
    ("-1.0 and 1.0", 2.0 * labels(classes=2) - 1, "binary"),
    ("one-hot", functional.one_hot(labels()).float(), "binary"),
    ("numbers", drawn(50, 1), "real"),
    ("counts as floats", labels().float(), "real"),
    ("maps of indices", labels(64).view(4, 4, 4), "classes"),
    ("with NaN", torch.tensor([0.3, math.nan, 2.5]), "real"),
    ("complex", drawn(5).to(torch.complex64), "other"),
]


@pytest.mark.parametrize(("y", "kind"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS])
def test_the_kind_of_targets(y: Tensor, kind: str) -> None:
    assert targets_in(y, drawn(len(y), 3)).kind == kind
    assert targets_in(None, drawn(4, 3)).kind == targets_in(["a"], drawn(4, 3)).kind == "other"


def test_moments_are_numpy_s_and_leave_out_what_is_not_finite() -> None:
    x = drawn(40, 3) * 5 + 2
    x[3, 1], x[7, 2] = math.nan, math.inf
    found, good = inputs_of(x), x.numpy()[np.isfinite(x.numpy())].astype(float)
    assert (found.mean, found.std) == pytest.approx((good.mean(), good.std()), rel=1e-6)
    assert (found.low, found.high, found.broken) == pytest.approx((good.min(), good.max(), 2 / 120))
    whole = inputs_of(drawn(40, 3))
    assert whole.feature_stds is not None
    assert whole.feature_stds.numpy() == pytest.approx(drawn(40, 3).numpy().astype(float).std(0), rel=1e-6)
    assert not whole.constant
    assert inputs_of(torch.ones(4, 3)).constant
    assert inputs_of(torch.zeros(4, 3, dtype=torch.long)).tokens
    assert inputs_of(torch.eye(4).to_sparse()).mean == 0.25
    assert math.isnan(inputs_of(torch.full((4, 2), math.nan)).std)


def test_an_autoencoder_s_targets_are_its_inputs() -> None:
    x = drawn(9, 3)
    assert targets_in(x.clone(), x).like_inputs
    assert not targets_in(x + 1, x).like_inputs
    assert targets_in((x > 0).float(), (x > 0).float()).kind == "real"


def test_a_sample_is_the_first_batches_put_together() -> None:
    batches = [Batch((drawn(8, 3, seed=s),), labels(8, seed=s)) for s in range(5)]
    found = sample_of(batches, most=20)
    assert found.size == 24
    assert torch.equal(found.batch.first, torch.cat([b.first for b in batches[:3]]))
    ragged = [Batch((drawn(8, 3),), labels(8)), Batch((drawn(8, 4),), labels(8))]
    assert sample_of(ragged).size == 8
    with pytest.raises(DataError, match="at least one example"):
        sample_of([])


# -- score


def found(outputs: Tensor, y: Tensor, **options: bool) -> float | None:
    return score(outputs, targets_in(y, drawn(len(y), 3)), **options)


@pytest.mark.parametrize("sharp", [0.0, 0.5, 2.0, 50.0])
def test_classes_are_scored_by_balanced_accuracy_above_chance(sharp: float) -> None:
    y = labels()
    z = sharp * functional.one_hot(y, 4) + drawn(200, 4, seed=3)
    expected = balanced_accuracy_score(y.numpy(), z.argmax(1).numpy(), adjusted=True)
    assert found(z, y) == pytest.approx(max(0.0, expected), abs=1e-12)
    assert found(z, (y + 1) % 4) != pytest.approx(max(0.0, expected), abs=1e-3) or sharp == 0.0


def test_positions_and_images_are_scored_along_the_axis_of_the_classes() -> None:
    y = labels(120).view(6, 4, 5)
    z = 2.0 * functional.one_hot(y, 4) + drawn(6, 4, 5, 4, seed=3)
    expected = balanced_accuracy_score(y.flatten().numpy(), z.argmax(-1).flatten().numpy(), adjusted=True)
    assert found(z, y) == pytest.approx(expected)
    assert found(z.movedim(-1, 1), y) == pytest.approx(expected)


def test_what_the_loss_ignores_is_not_scored() -> None:
    y = labels()
    z = 2.0 * functional.one_hot(y, 4) + drawn(200, 4, seed=3)
    marked = torch.where(torch.arange(200) % 3 == 0, -100, y)
    kept = marked >= 0
    expected = balanced_accuracy_score(y[kept].numpy(), z.argmax(1)[kept].numpy(), adjusted=True)
    assert found(z, marked) == pytest.approx(expected)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_one_logit_or_probability_is_cut_where_it_tells_most(low: float) -> None:
    high = labels(classes=2).bool()
    y = torch.where(high, 1.0, low)[:, None]
    z = 3.0 * high[:, None] - 1.5 + drawn(200, 1, seed=3)
    cut = [balanced_accuracy_score(high.numpy(), (t[:, 0] > 0.5).numpy(), adjusted=True) for t in (z + 0.5, z)]
    assert found(z, y) == pytest.approx(max(cut))
    p = z.sigmoid()
    assert (found(p, y) or 0) >= balanced_accuracy_score(high.numpy(), (p[:, 0] > 0.5).numpy(), adjusted=True)


def test_numbers_are_scored_by_the_explained_variance() -> None:
    y = drawn(200, 3) * torch.tensor([1.0, 5.0, 0.2]) + 7
    z = y + drawn(200, 3, seed=3)
    expected = r2_score(y.numpy(), z.numpy(), multioutput="variance_weighted")
    assert found(z, y) == pytest.approx(expected, rel=1e-5)
    assert found(z - 7, y) == 0.0
    assert found(torch.full_like(y, math.nan), y) == found(torch.full_like(y, math.inf), y) == 0.0


def test_other_units_are_scored_by_the_squared_correlation() -> None:
    y = drawn(200, 1)
    z = -3 * (y + drawn(200, 1, seed=3)) + 40
    expected = float(np.corrcoef(y[:, 0].numpy(), z[:, 0].numpy())[0, 1]) ** 2
    assert found(z, y, scale_free=True) == pytest.approx(expected, rel=1e-5)
    assert found(z, y) == 0.0


def test_impossible_classes_are_no_accident_and_nan_is() -> None:
    y = labels()
    z = 5.0 * functional.one_hot(y, 4) + drawn(200, 4, seed=3)
    masked = z.masked_fill(functional.one_hot((y + 1) % 4, 4).bool(), -math.inf)
    assert (found(masked, y) or 0) >= (found(z, y) or 1)
    assert found(z.masked_fill(functional.one_hot(y, 4).bool(), math.nan), y) == 0.0


def test_what_cannot_be_scored_is_not() -> None:
    assert found(drawn(200, 3), drawn(200, 2)) is None
    assert found(drawn(200, 4), torch.zeros(200, dtype=torch.long)) is None
    assert found(torch.zeros(200, 4, dtype=torch.long), labels()) is None
    assert score(drawn(5, 2), targets_in(None, drawn(5, 2))) is None


# -- the best constant


def least(outputs: object, y: Tensor, loss: Callable[..., Tensor]) -> float | None:
    training = Training.of(nn.Linear(3, 1), (drawn(len(y), 3), y), loss=loss)
    batch = Batch((drawn(len(y), 3),), y)
    return constant_loss(training, outputs, Sample(batch, inputs_of(batch.first), targets_in(y, batch.first)))


def entropy(y: Tensor) -> float:
    p = torch.bincount(y).double() / len(y)
    return float(-(p * p.log()).sum())


def test_the_best_constant_of_cross_entropy_is_the_entropy_of_the_classes() -> None:
    y = labels()
    assert least(drawn(200, 4), y, functional.cross_entropy) == pytest.approx(entropy(y), abs=1e-4)
    assert least((drawn(200, 4), None), y, lambda z, t: functional.cross_entropy(z[0], t)) == pytest.approx(
        entropy(y), abs=1e-4
    )
    assert least(drawn(200, 4), y, functional.cross_entropy) != pytest.approx(math.log(4), abs=1e-2)


def test_a_row_of_log_probabilities_stays_one() -> None:
    y = labels()
    assert least(drawn(200, 4).log_softmax(1), y, functional.nll_loss) == pytest.approx(entropy(y), abs=1e-4)
    p = drawn(200, 4).softmax(1)
    assert least(p, y, lambda z, t: functional.nll_loss(z.log(), t)) == pytest.approx(entropy(y), abs=1e-4)


def test_the_best_constant_of_the_square_is_the_variance() -> None:
    y = drawn(200, 2) * 3 + 4
    assert least(drawn(200, 2), y, functional.mse_loss) == pytest.approx(float(y.var(0, correction=0).mean()), rel=1e-4)


def test_the_best_constant_of_the_distance_is_that_from_the_median() -> None:
    y = drawn(201, 1).exp()
    assert least(drawn(201, 1), y, functional.l1_loss) == pytest.approx(float((y - y.median()).abs().mean()), rel=5e-3)


def test_the_best_constant_of_binary_cross_entropy_is_the_binary_entropy() -> None:
    y = labels(classes=2).float()[:, None]
    p = float(y.mean())
    expected = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert least(drawn(200, 1), y, functional.binary_cross_entropy_with_logits) == pytest.approx(expected, abs=1e-4)


def test_there_is_no_best_constant_of_several_tensors_or_of_one_number() -> None:
    y = drawn(50, 2)
    assert least((drawn(50, 2), drawn(50, 2)), y, lambda z, t: functional.mse_loss(z[0], t)) is None
    assert least(torch.tensor(1.0), y, lambda z, _: z) is None


# -- runs


def test_a_run_is_torch_s_own_loop() -> None:
    X, y = drawn(64, 3), drawn(64, 1, seed=1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    training = Training.of(model, (X, y), loss=nn.MSELoss(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    batches = [Batch((X[i : i + 8],), y[i : i + 8]) for i in range(0, 64, 8)]
    got = run(training, 8, 0, sample_of([Batch((X,), y)]), batches=batches, keep=True)
    optimizer, losses, moved = torch.optim.SGD(model.parameters(), lr=0.1), [], []
    for step, batch in enumerate(batches, 1):
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        optimizer.zero_grad()
        loss = functional.mse_loss(model(batch.first), batch.targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        now = torch.cat([p.detach().flatten() for p in model.parameters()])
        if step in (2, 5):
            moved.append(float((now - before).norm() / before.norm()))
    assert got.losses == pytest.approx(losses, rel=1e-6)
    assert got.update == pytest.approx(float(np.median(moved)), rel=1e-5)
    assert (got.lr, got.stopped, got.error) == (0.1, None, None)
    assert got.final == pytest.approx(float(np.mean(losses[-5:])))
    assert got.score == pytest.approx(max(0.0, r2_score(y.numpy(), model(X).detach().numpy())), abs=1e-6)
    other = run(training, 8, 0, sample_of([Batch((X,), y)]), batches=batches[::-1])
    assert other.losses != pytest.approx(losses, rel=1e-3)


def test_a_run_keeps_what_it_raised_and_where_it_broke() -> None:
    data = (drawn(64, 3), drawn(64, 1, seed=1))
    model = nn.Linear(3, 1)
    sample = sample_of([Batch((data[0],), data[1])])

    def broken(z: Tensor, y: Tensor) -> Tensor:
        raise ValueError("no")

    failed = run(Training.of(model, data, loss=broken), 3, 0, sample)
    assert isinstance(failed.error, ValueError)
    high = Training.of(model, data, loss=nn.MSELoss(), optimizer=lambda p: torch.optim.SGD(p, lr=1e30))
    burst = run(high, 20, 0, sample)
    assert burst.failed
    assert burst.stopped == len(burst.losses) <= 5
    assert burst.score is None


def test_evaluating_puts_every_module_s_own_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    model[0].eval()
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == [True, False, True]


# -- ranking


def finding(cause: str, confidence: float) -> Finding:
    return Finding(cause, None, None, None, "", "", confidence, "")


def causes(*findings: Finding) -> list[str]:
    return [f.cause for f in ranked(findings)]


def test_the_surest_comes_first_and_each_cause_once() -> None:
    got = ranked([finding("loss", 0.5), finding("batch-size", 0.9), finding("loss", 0.95)])
    assert [(f.cause, f.confidence) for f in got] == [("loss", 0.95), ("batch-size", 0.9)]


def test_a_symptom_comes_after_its_cause_and_after_others() -> None:
    cause, symptom, other = finding("input-scale", 0.8), finding("learning-rate-high", 0.9), finding("overfitting", 0.7)
    assert causes(symptom, other, cause) == ["input-scale", "overfitting", "learning-rate-high"]
    assert causes(symptom, other) == ["learning-rate-high", "overfitting"]
    unsure = replace(cause, confidence=0.7)  # a cause that is clearly less sure explains nothing
    assert causes(symptom, unsure) == ["learning-rate-high", "input-scale"]
