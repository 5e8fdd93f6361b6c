"""The test bed is what it says: balanced, seeded, and its labels proved; `bed/prove.py` proves all of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from torch import nn
from torch.optim import Optimizer

from tests.diagnosis.bed import CASES, CODES
from tests.diagnosis.bed import data as sets
from tests.diagnosis.bed.data import own_targets, standardised
from tests.diagnosis.bed.judges import WORST, Judge, accuracy, labels_right, r_squared, rounded
from tests.diagnosis.bed.prove import MARGIN, Proof, prove
from tests.diagnosis.bed.training import batches_of, epoch_of, trained_score

FAULTY = [case for case in CASES if case.faulty]
HEALTHY = [case for case in CASES if not case.faulty]
NAMED = {case.name: case for case in CASES}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)


def test_there_are_enough_of_both():
    assert len(FAULTY) >= 56
    assert len(HEALTHY) >= 76
    assert len(NAMED) == len(CASES)


def test_every_cause_is_somewhere_the_first():
    assert {case.primary for case in FAULTY} == set(CODES)


def test_the_halves_are_balanced_kind_by_kind():
    for half in (FAULTY, HEALTHY):
        counts = Counter((case.kind, case.half) for case in half)
        for kind in {case.kind for case in half}:
            assert abs(counts[kind, "develop"] - counts[kind, "report"]) <= 1, kind
        assert abs(sum(case.half == "report" for case in half) - len(half) / 2) <= 3


def test_the_faults_are_as_frequent_as_in_real_programs():
    """Output activations lead, then epochs and rates together, losses and outputs, preprocessing, optimisers."""
    first = Counter(case.primary for case in FAULTY)
    assert first["output-activation"] == max(first.values())
    assert first["too-few-epochs"] >= first["batch-size"]
    assert first["optimizer"] > first["init-scale"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_set_up_can_be_made_and_takes_a_batch(case):
    """Fresh objects each time, the optimiser of this model unless that is the fault, one forward pass."""
    setup, again = case.setup(), case.setup()
    assert setup.model is not again.model
    for p, q in zip(setup.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(p, q)
    held = [p for group in getattr(setup.optimizer, "param_groups", []) for p in group["params"]]
    if isinstance(setup.optimizer, Optimizer) and not {"optimizer", "layers"} & set(case.expected):
        assert {id(p) for p in held} <= {id(p) for p in setup.model.parameters()}
    x, _ = next(iter(batches_of(setup.data)))
    setup.model.eval()
    with torch.no_grad():
        setup.model(x)


def test_making_a_case_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    for name in ("digits_relu_adam", "tuned_whole", "softmax_then_cross_entropy"):
        NAMED[name].setup(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_different_seeds_draw_different_weights():
    weights = [NAMED["digits_relu_adam"].setup(seed).model[0].weight for seed in (0, 1)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "cancer", "words_bagged", "flipped"])
def test_the_references_are_what_logistic_regression_reaches(name):
    split = getattr(sets, name)()
    if name in {"wine", "cancer"}:
        split = standardised(split)
    answers = LogisticRegression(max_iter=3000).fit(split.x, split.y).predict(split.x_test)
    truth = split.y_test.numpy()
    found = np.mean([(answers[truth == c] == c).mean() for c in np.unique(truth)])
    assert found == pytest.approx(split.reference, abs=0.03)


def test_the_reference_of_diabetes_is_what_ridge_regression_explains():
    d = sets.diabetes()
    found = RidgeCV().fit(d.x, d.y).score(d.x_test, d.y_test)
    assert found == pytest.approx(d.reference, abs=0.03)


@pytest.mark.parametrize(("components", "explained"), [(2, 0.28), (8, 0.67), (16, 0.85)])
def test_what_principal_components_explain_of_digits(components, explained):
    """The figures in healthy/representations.py; and r_squared agrees with it, from a network of those very weights."""
    d = own_targets(sets.digits(), 1.0)
    analysis = PCA(components).fit(d.x.double())
    down, up = nn.Linear(64, components), nn.Linear(components, 64)
    directions = torch.tensor(analysis.components_, dtype=torch.float32)
    mean = torch.tensor(analysis.mean_, dtype=torch.float32)
    with torch.no_grad():
        down.weight.copy_(directions)
        down.bias.copy_(-directions @ mean)
        up.weight.copy_(directions.T)
        up.bias.copy_(mean)
    assert r_squared(d).score(nn.Sequential(down, up)) == pytest.approx(explained, abs=0.006)


class Answers(nn.Module):
    """Says the same whatever it is asked."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answers


def four(y: torch.Tensor) -> sets.Split:
    """A split of four rows with these targets."""
    return sets.Split(torch.zeros(4, 1), y, torch.zeros(4, 1), y, 1.0)


@pytest.mark.parametrize(
    ("judge", "targets", "answers", "score"),
    [
        (accuracy, [0, 0, 0, 1], [[2.0, 1], [2, 1], [2, 1], [2, 1]], 0.5),  # balanced: one class of two
        (accuracy, [0, 0, 1, 1], [[-1.0], [1], [1], [1]], 0.75),
        (accuracy, [0, 0, 1, 1], [[float("nan")]] * 4, WORST),
        (rounded, [0, 1, 2, 3], [[0.4], [0.6], [1.4], [3.0]], 0.75),
        (r_squared, [[0.0], [1], [2], [3]], [[0.0], [1], [2], [3]], 1.0),
        (r_squared, [[0.0], [1], [2], [3]], [[1.5]] * 4, 0.0),
        (r_squared, [[0.0], [1], [2], [3]], [[99.0]] * 4, WORST),
        (r_squared, [[0.0], [1], [2], [3]], [[float("inf")]] * 4, WORST),
        (labels_right, [[0.0, 1], [0, 1], [0, 1], [0, 1]], [[-1.0, 1], [-1, -1], [-1, 1], [1, 1]], 0.75),
    ],
)
def test_the_judges_by_hand(judge, targets, answers, score):
    split = four(torch.tensor(targets))
    assert judge(split).score(Answers(torch.tensor(answers))) == pytest.approx(score)


def test_judging_leaves_the_mode_alone():
    model = nn.Sequential(nn.Linear(64, 10), nn.Dropout(0.5))
    model[0].eval()
    accuracy(sets.digits()).score(model)
    assert [m.training for m in model.modules()] == [True, False, True]


def test_an_epoch_is_what_the_loader_gives():
    """Cutting whole tensors gives the loader's own batches, from the same random state."""
    loader = sets.batches(sets.iris(), 16)
    torch.manual_seed(0)
    theirs = torch.cat([y for _, y in loader])
    torch.manual_seed(0)
    ours = torch.cat([y for _, y in epoch_of(loader)])
    assert torch.equal(ours.sort().values, theirs.sort().values)
    assert [len(y) for _, y in epoch_of(loader)] == [len(y) for _, y in loader]
    assert not torch.equal(ours, loader.dataset.tensors[1]), "not shuffled"


def test_a_program_that_raises_has_the_worst_score():
    assert trained_score(NAMED["an_output_too_few"].setup()) == WORST


@pytest.mark.parametrize(
    ("scores", "repaired", "why"),
    [
        ((0.95, 0.96, 0.97), (), ""),
        ((0.95, 0.96, 0.89), (), "under the bar"),
        ((0.5, 0.6, 0.5), (0.95, 0.95, 0.96), ""),
        ((0.5, 0.6, 0.5), (0.7, 0.8, 0.9), "repaired twin is under the bar"),
        ((0.5, 0.96, 0.5), (0.95, 0.95, 0.96), "not every"),
        ((0.93, 0.93, 0.93), (0.95, 0.95, 0.96), "too small"),
    ],
)
def test_a_proof_can_fail(scores, repaired, why):
    found = Proof("name", 0.90, scores, repaired).fails
    assert bool(found) == bool(why)
    assert why in found


@pytest.mark.parametrize(
    "name", ["digits_relu_adam", "wine_standardised", "softmax_of_one_unit", "classes_from_one", "cancer_as_it_comes"]
)
def test_some_labels_are_proved_here(name):
    assert prove(NAMED[name], seeds=(0,)).fails == ""


def test_a_healthy_case_at_fault_would_be_seen():
    """The bar is one: a network without training is far under it, and so is a program at fault."""
    healthy = NAMED["digits_relu_adam"].setup()
    judge: Judge = healthy.judge
    assert judge.score(healthy.model) < judge.reference - MARGIN
    at_fault = trained_score(NAMED["adam_at_a_millionth"].setup())
    assert at_fault < judge.reference - MARGIN
