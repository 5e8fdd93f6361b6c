"""prove: pairs are pairs, verdicts are of the runs, nothing of the user's is touched, faults are told."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fanin
from fanin.errors import FaninError
from fanin.finding import Remedy
from fanin.proof.judging import right, steps_of
from fanin.training import Batches, Training, train

G = torch.Generator().manual_seed(0)
X = torch.randn(96, 4, generator=G)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
HELD = (torch.randn(50, 4, generator=G), torch.randint(0, 3, (50,), generator=G))


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def slow(parameters):
    return torch.optim.SGD(parameters, lr=1e-4)


def test_a_learning_rate_that_is_too_low_is_proved_so():
    proof = fanin.prove(make, Remedy("lr", "lr = 0.3", {"lr": 0.3}), (X, Y), optimizer=slow, steps=10)
    assert proof.verdict == "helps"
    assert proof
    assert str(proof).startswith("lr = 0.3 helps: difference −")
    assert proof.arms["baseline"].steps == 10


def test_the_mirror_image_hurts_and_nothing_is_no_evidence():
    fast = lambda parameters: torch.optim.SGD(parameters, lr=0.3)  # noqa: E731
    proof = fanin.prove(make, {"slow": "lr=0.0001", "same": lambda t: t}, (X, Y), optimizer=fast, steps=8)
    assert proof.verdicts["slow"].word == "hurts"
    assert proof.verdicts["same"].word == "no evidence"
    assert proof.verdicts["same"].equal == 8
    assert set(proof.verdicts["same"].difference.values) == {0.0}  # dropout too is the same
    assert not proof


def test_a_run_is_the_training_by_hand():
    model = nn.Linear(4, 3)
    training = Training.of(model, (X, Y), optimizer=slow)
    proof = fanin.prove(model, "lr=0.1", (X, Y), eval_data=HELD, seeds=2, steps=7, optimizer=slow)
    for seed in range(2):
        one = training.new(seed)
        curve = train(one, training.stream(seed), training.loss, torch.optim.SGD(one.parameters(), lr=0.1), steps=7)
        loss = nn.functional.cross_entropy(one(HELD[0]), HELD[1]).item()
        found = proof.arms["lr=0.1"].outcomes[seed]
        assert found.metric == pytest.approx(loss, rel=1e-5)
        assert found.accuracy == (one(HELD[0]).argmax(1) == HELD[1]).sum().item() / 50
        assert sum(curve.losses[:3]) / 3 == pytest.approx(found.curve[0], rel=1e-6)


def test_arrays_are_judged_as_they_are_trained_on():
    held = HELD[0].numpy().astype("float64"), HELD[1].numpy()
    model = nn.Linear(4, 3).double()  # would refuse float32
    proof = fanin.prove(model, "lr=0.1", (X.numpy().astype("float64"), Y.numpy()), eval_data=held, seeds=2, steps=3)
    assert all(outcome.accuracy is not None for outcome in proof.arms["lr=0.1"].outcomes)


def test_nothing_of_the_users_changes(random_state):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(TensorDataset(X, Y), 16, shuffle=True, generator=torch.Generator().manual_seed(1))
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, random_state()
    generator = loader.generator.get_state()
    fanin.prove(model, "normalization", loader, optimizer=optimizer, seeds=2, epochs=1)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert random_state() == state
    assert torch.equal(loader.generator.get_state(), generator)
    assert not optimizer.state
    assert model.training


def test_runs_that_diverge_are_counted_and_worst():
    proof = fanin.prove(make, {"huge": "optimizer=sgd,lr=1e30"}, (X, Y), seeds=6, steps=5)
    verdict = proof.verdicts["huge"]
    assert (verdict.word, verdict.after.successes) == ("hurts", 0)
    assert "finished 0/6 against 6/6 runs" in verdict.text
    assert proof.arms["huge"].mean is None


def test_a_loss_that_changes_is_judged_by_accuracy():
    both = fanin.prove(make, {"margin": "loss=cross_entropy"}, (X, Y), loss=nn.MultiMarginLoss(), seeds=2, steps=5)
    assert (both.metric, both.greater_is_better) == ("accuracy", True)
    real = fanin.prove(lambda: nn.Linear(4, 4), "loss=l1", (X, X), seeds=2, steps=5)
    assert real.metric == "loss"
    asked = fanin.prove(make, "loss=cross_entropy", (X, Y), metric="loss", seeds=2, steps=2)
    assert asked.metric == "loss"


def test_scaled_targets_are_judged_in_their_own_units():
    t = X[:, :1] * 500 + 4000
    proof = fanin.prove(lambda: nn.Linear(4, 1), "target-scaling", (X, t), epochs=20, seeds=6, optimizer=slow_adam)
    assert proof.arms["baseline"].mean > 1e7
    assert proof.arms["target-scaling"].mean < 5e5
    assert proof.verdict == "helps"


def slow_adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)


def test_inputs_are_scaled_in_evaluation_too():
    far = X + 1000
    proof = fanin.prove(make, "input-scaling", (far, Y), metric="accuracy", steps=60, seeds=6, optimizer=slow_adam)
    assert proof.arms["input-scaling"].mean > 0.8
    assert proof.verdict == "helps"


def test_a_metric_of_ones_own_sees_changed_inputs_and_more_is_better():
    def score(model: nn.Module, batches: Batches) -> float:
        assert isinstance(batches, Batches)
        return -sum(float(b.first.mean()) for b in batches.epoch(0))

    proof = fanin.prove(make, "input-scaling", (X + 50, Y), metric=score, steps=2, seeds=6)
    assert (proof.metric, proof.verdict) == ("score", "helps")


def test_several_variants_have_wider_intervals():
    options = {"seeds": 6, "steps": 5}
    one = fanin.prove(make, {"a": "lr=0.01"}, (X, Y), **options).verdicts["a"].difference
    two = fanin.prove(make, {"a": "lr=0.01", "b": "lr=0.1"}, (X, Y), **options).verdicts["a"].difference
    assert one.values == two.values
    assert two.high - two.low > one.high - one.low


def test_it_prints_a_page_a_table_and_plain_data():
    proof = fanin.prove(make, {"a <b>": "lr=0.01"}, (X, Y), seeds=[3, 5], steps=3)
    page = str(proof)
    assert "a <b> too few seeds: 2 pairs; at least 6" in page
    assert "Measured on the training data" in page
    assert "nn.CrossEntropyLoss" in page
    assert "a &lt;b&gt;" in proof._repr_html_()
    data = json.loads(json.dumps(proof.to_dict(), allow_nan=False))
    assert data["seeds"] == [3, 5]
    assert data["verdicts"]["a <b>"]["word"] == "too few seeds"
    assert "All seeds start at the weights" in str(fanin.prove(make(), "lr=0.01", (X, Y), seeds=1, steps=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": 0}, "at least 1"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"epochs": 1, "steps": 2}, "expected one of them"),
        ({"steps": 0}, "at least 1"),
        ({"metric": "f1"}, "metric: expected"),
        ({"remedy": {}}, "empty dict"),
        ({"remedy": {"baseline": "lr=0.1"}}, "another name"),
        ({"remedy": "lr"}, "positive number"),
        ({"data": (X, X[:, :2])}, "baseline, seed 0: training raised RuntimeError"),
        ({"data": (X, X[:, :3]), "metric": "accuracy"}, "targets that name classes"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, "a tensor of one number"),
        ({"metric": lambda *_: "high"}, "metric: expected a number"),
    ],
)
def test_what_cannot_be_done_is_told(options, words):
    given = {"make_model": make, "remedy": "lr=0.1", "data": (X, Y), "seeds": 2, "steps": 1} | options
    if "epochs" in options:
        given["epochs"] = options["epochs"]
    with pytest.raises(FaninError, match=words), _quiet():
        fanin.prove(**given)


def _quiet():
    import warnings

    return warnings.catch_warnings(action="ignore")  # torch warns of shapes that do not fit before it raises


def test_steps():
    batches = Batches.of((X, Y))
    assert steps_of(batches, None, None) == 15
    assert steps_of(batches, 2, None) == 6
    assert steps_of(batches, None, 7) == 7


@pytest.mark.parametrize(
    ("outputs", "targets", "logits", "expected"),
    [
        ([[1.0, 2.0], [3.0, 0.0]], [1, 1], False, (1, 2)),
        ([[1.0, 2.0], [3.0, 0.0]], [[1], [0]], False, (2, 2)),
        ([[0.2, 0.8], [0.4, 0.6]], [[0.0, 1.0], [1.0, 0.0]], False, (1, 2)),
        ([[0.2], [0.8]], [0, 1], False, (2, 2)),
        ([[0.2], [0.8]], [0, 1], True, (1, 2)),
        ([-1.0, 0.1], [0.0, 1.0], True, (2, 2)),
        ([[0.2], [0.8]], [0.3, 1.0], False, None),
        ([[0.2, 0.8]], [[0.3, 1.0]], False, None),
    ],
)
def test_right_answers(outputs, targets, logits, expected):
    assert right(torch.tensor(outputs), torch.tensor(targets), logits=logits) == expected


def test_right_answers_of_positions():
    z = torch.randn(2, 5, 3)
    assert right(z, z.argmax(-1), logits=False) == (10, 10)
    assert right(z.transpose(1, 2), z.argmax(-1), logits=False) == (10, 10)
    assert right(z, None, logits=False) is None
