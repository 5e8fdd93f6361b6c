"""Invented studies with realistic records, stored and read back: what every test of the report looks at."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from fanin.record import Divergence, Epoch, LayerSignal, Record
from fanin.report.results import StudySummary
from fanin.report.summary import summarize
from fanin.report.trials import Trials
from fanin.store import Store
from fanin.study import Study

DATA: dict[str, Any] = {
    "name": "mnist",
    "fingerprint": "2ca13d58b859dc92",  # that of the real MNIST, for which numbers are published
    "source": "IDX files",
    "train": 60000,
    "test": 10000,
    "features": 784,
    "classes": [str(i) for i in range(10)],
    "scale": 1 / 255,
}
DIGITS = DATA | {"name": "digits", "fingerprint": "d" * 16, "train": 1437, "test": 360, "features": 64, "scale": 1 / 16}
ENVIRONMENT = {
    "fanin": "0.1.0",
    "torch": "2.13.0",
    "numpy": "2.3.1",
    "python": "3.12.3",
    "platform": "Linux-6.8-x86_64",
    "cpu": "AMD EPYC 9654",
    "device": "cpu",
    "matmul": "default",
    "threads": 1,
    "stack": 2,
}
NAN = float("nan")


def cost_curve(start: float, end: float, epochs: int, noise: float, rng: random.Random) -> list[float]:
    """A power law from start to end with multiplicative noise."""
    slope = math.log(end / start) / math.log(epochs) if epochs > 1 else 0.0
    return [start * (t**slope) * math.exp(rng.gauss(0, noise)) for t in range(1, epochs + 1)]


def record(
    trial_id: str,
    seed: int,
    *,
    cost: list[float],
    accuracy: float,
    raw: float | None = None,
    signal: tuple[LayerSignal, ...] = (),
    train: bool = False,
) -> Record:
    """A finished trial whose last accuracy is exactly `accuracy`."""
    last = len(cost)
    epochs = []
    for t, value in enumerate(cost, 1):
        here = accuracy - (accuracy - 0.1) * 0.12 * (1 / t - 1 / last)
        shown = here if raw is None else raw
        more = (value * 0.8, min(1.0, here + 0.005)) if train else (None, None)
        epochs.append(Epoch(t, 1.25, value, value * 1.6 + 0.05, here, shown, *more))
    return Record(trial_id, seed, "done", tuple(epochs), signal, None, None, 1.25 * last + 0.5, ENVIRONMENT)


def depth_signal(
    layers: int,
    gain: float,
    gradient: float,
    rng: random.Random,
    *,
    dead: float | None = 0.0,
    saturated: float | None = None,
) -> tuple[LayerSignal, ...]:
    """Geometric signals at epochs 0 and 15: activations times `gain` a layer, gradients backward."""
    found = []
    for epoch in (0, 15):
        for n in range(1, layers + 1):
            a = 0.3 * gain**n * math.exp(rng.gauss(0, 0.1))
            g = 0.09 * gradient ** (layers - n) * math.exp(rng.gauss(0, 0.25))
            hidden = n < layers
            found.append(LayerSignal(epoch, n, a, g, g**0.5, dead if hidden else None, saturated if hidden else None))
    return tuple(found)


def store(folder: Path, study: Study, records: dict[str, list[Record]], data: dict[str, Any] = DATA) -> StudySummary:
    """Write the records, read them back and summarise them."""
    with Store.create(folder) as opened:
        opened.put_study(study, data)
        for arm in study.arms:
            for trial, made in zip(study.trials(arm), records[arm.name], strict=False):
                fixed = Record(**{**made.__dict__, "trial_id": trial.id(data["fingerprint"]), "seed": trial.seed})
                opened.add(trial, data["fingerprint"], fixed)
    with Store.open(folder) as opened:
        stored = next(s for s in opened.studies() if s.study.name == study.name)
        return summarize(stored, opened)


def trials_of(folder: Path, records: list[Record]) -> Trials:
    """Records of one arm, stored and read back as columns."""
    study = Study.from_dict({"name": "one", "seeds": max(1, len(records))})
    with Store.create(folder) as opened:
        opened.put_study(study, DATA)
        for trial, made in zip(study.trials(study.arms[0]), records, strict=False):
            fixed = replace(made, trial_id=trial.id(DATA["fingerprint"]), seed=trial.seed)
            opened.add(trial, DATA["fingerprint"], fixed)
        return Trials.of(opened.columns(study, "default"))


def _study(**content: Any) -> Study:
    return Study.from_dict(json.loads(json.dumps(content)))


def reproduced(folder: Path) -> StudySummary:
    """Two arms, both published curves inside; Xavier's accuracy is higher by 3 points."""
    rng = random.Random(1)
    published = {
        "N(0,1)": {"train_cost": cost_curve(129.3, 0.75, 15, 0.0, rng), "accuracy_on_raw_pixels": 0.9450},
        "Xavier uniform": {
            "train_cost": cost_curve(0.25, 0.0072, 15, 0.0, rng),
            "accuracy_on_raw_pixels": 0.9805,
        },
    }
    study = _study(
        name="nn",
        title="A network of two hidden layers",
        question="How much does the initialisation matter to a 784-256-256-10 ReLU network?",
        arms=[
            {"name": "N(0,1)", "init": "normal", "published": published["N(0,1)"]},
            {"name": "Xavier uniform", "init": "xavier_uniform", "published": published["Xavier uniform"]},
        ],
        questions=[
            {
                "ask": "Does Xavier's initialisation help?",
                "a": {"arm": "Xavier uniform"},
                "b": {"arm": "N(0,1)"},
                "if_higher": "Yes: {a} against {b}, {difference} [{low}, {high}] more, {wins} of {n} seeds.",
                "if_lower": "No, it hurts by {difference}.",
            },
            {
                "ask": "Is its first epoch's cost lower?",
                "a": {"arm": "Xavier uniform", "metric": "train_cost_first_epoch"},
                "b": {"arm": "N(0,1)", "metric": "train_cost_first_epoch"},
                "if_higher": "No.",
                "if_lower": "Yes: {a} against {b}; published points inside: {a_points} and {b_points}.",
            },
        ],
    )
    deep = {"N(0,1)": (120.0, 60.0), "Xavier uniform": (0.9, 0.8)}
    level = {"N(0,1)": (129.3, 0.75, 0.945), "Xavier uniform": (0.25, 0.0072, 0.980)}
    records = {}
    for name, (start, end, accuracy) in level.items():
        records[name] = [
            record(
                "",
                s,
                cost=cost_curve(start, end, 15, 0.05, rng),
                accuracy=round(accuracy + rng.gauss(0, 0.0012), 4),
                raw=round(accuracy + rng.gauss(0, 0.0012), 4),
                signal=depth_signal(3, *deep[name], rng),
            )
            for s in range(6)
        ]
    return store(folder, study, records)


def not_reproduced(folder: Path) -> StudySummary:
    """Points outside: the published curve is another net's, as a note says; names are hostile."""
    rng = random.Random(2)
    curve = cost_curve(0.28, 0.008, 15, 0.0, rng)
    study = _study(
        name="deep",
        title="Five layers <b>& three</b>",
        question="Do more layers help?",
        notes="The notes define five layers but join three of them.",
        recipe={"hidden": [512, 512, 512, 512], "init": "xavier_uniform"},
        arms=[
            {
                "name": "as <b>& described",
                "published": {
                    "train_cost": curve,
                    "accuracy_on_raw_pixels": 0.9819,
                    "if_outside": "The printed numbers come from a net of three layers & 512 outputs.",
                },
                "note": "Five layers, as the notes define them.",
            },
            {"name": "with dropout", "dropout": 0.3},
        ],
        questions=[
            {
                "ask": "Does dropout help?",
                "a": {"arm": "with dropout"},
                "b": {"arm": "as <b>& described"},
                "if_higher": "Dropout helps: {difference} [{low}, {high}].",
                "if_lower": "It hurts.",
            }
        ],
    )
    records = {
        study.arms[0].name: [
            record(
                "",
                s,
                cost=cost_curve(0.28, 0.02, 15, 0.03, rng),
                accuracy=round(0.980 + rng.gauss(0, 0.0012), 4),
                signal=depth_signal(5, 0.9, 0.9, rng),
            )
            for s in range(6)
        ],
        "with dropout": [
            record(
                "",
                s,
                cost=cost_curve(0.31, 0.045, 15, 0.03, rng),
                accuracy=round(0.981 + rng.gauss(0, 0.0012), 4),
                signal=depth_signal(5, 0.9, 0.9, rng),
            )
            for s in range(6)
        ],
    }
    return store(folder, study, records)


def troubled(folder: Path) -> StudySummary:
    """Six seeds of SGD: one diverged in epoch 4, one failed, against six of Adam that finished."""
    rng = random.Random(3)
    study = _study(
        name="rates",
        title="A rate too large",
        question="Is a learning rate of 1 too large?",
        arms=[{"name": "Adam"}, {"name": "SGD, lr = 1", "optimizer": {"name": "sgd", "lr": 1.0}}],
    )
    made = {
        name: [
            record("", s, cost=cost_curve(0.3, 0.02, 15, 0.1, rng), accuracy=round(a + rng.gauss(0, 0.002), 4))
            for s in range(6)
        ]
        for name, a in (("Adam", 0.98), ("SGD, lr = 1", 0.972))
    }
    bad = made["SGD, lr = 1"]
    before = Record(**{**bad[2].__dict__, "status": "diverged", "epochs": bad[2].epochs[:3]})
    last = Epoch(4, 1.25, NAN, NAN, 0.098, 0.098)
    bad[2] = Record(**{**before.__dict__, "epochs": (*before.epochs, last), "divergence": Divergence(4, 417, 1)})
    bad[4] = Record("", 4, "failed", error="out of memory", seconds=0.2, environment=ENVIRONMENT)
    return store(folder, study, made)


def one_seed(folder: Path) -> StudySummary:
    """One seed: no interval, no verdict, nothing reproduced or not."""
    rng = random.Random(4)
    published = {"train_cost": cost_curve(0.61, 0.25, 15, 0.0, rng)}
    study = _study(
        name="softmax",
        title="Softmax regression",
        question="What does one seed say?",
        seeds=1,
        recipe={"hidden": []},
        arms=[{"name": "default", "published": published}, {"name": "N(0,1)", "init": "normal"}],
        questions=[
            {
                "ask": "Which is better?",
                "a": {"arm": "default"},
                "b": {"arm": "N(0,1)"},
                "if_higher": "The first.",
                "if_lower": "The second.",
            }
        ],
    )
    records = {
        "default": [record("", 0, cost=cost_curve(0.61, 0.25, 15, 0.01, rng), accuracy=0.9271, raw=0.9012)],
        "N(0,1)": [record("", 0, cost=cost_curve(4.8, 0.4, 15, 0.01, rng), accuracy=0.9003, raw=0.8891)],
    }
    return store(folder, study, records)


INITS = {
    "Xavier uniform": ("xavier_uniform", 0.980, 0.9, 0.9),
    "Xavier normal": ("xavier_normal", 0.9803, 0.9, 0.9),
    "He uniform": ("kaiming_uniform", 0.9805, 1.0, 1.0),
    "He normal": ("kaiming_normal", 0.9804, 1.0, 1.0),
    "LeCun normal": ("lecun_normal", 0.979, 0.5, 0.5),
    "orthogonal": ("orthogonal", 0.9806, 1.0, 0.95),
    "PyTorch default": ("default", 0.977, 0.25, 0.2),
    "N(0,1)": ("normal", 0.944, 250.0, 240.0),
    "constant 0.1": ({"name": "constant", "value": 0.2}, 0.3, 20.0, 6.0),
    "zeros": ("zeros", 0.1135, 0.0, 0.0),
}


def many(folder: Path) -> StudySummary:
    """Ten initialisations: some equal, one that mostly fails, one without any gradient."""
    rng = random.Random(5)
    study = _study(
        name="init",
        title="Ten initialisations",
        question="Which initialisations train a five-layer ReLU network?",
        arms=[{"name": name, "init": init} for name, (init, *_) in INITS.items()],
        notes="Zeros fail by symmetry.",
    )
    records = {}
    for name, (_, accuracy, gain, gradient) in INITS.items():
        trains = accuracy > 0.9
        spread = 0.0012 if trains else 0.0 if name == "zeros" else 0.25
        start, end = (2.302, 2.301) if name == "zeros" else (129.0, 0.75) if name == "N(0,1)" else (0.28, 0.01)
        records[name] = [
            record(
                "",
                s,
                cost=cost_curve(start, end, 15, 0.0001 if name == "zeros" else 0.1, rng),
                accuracy=round(min(0.99, max(0.1, accuracy + rng.gauss(0, spread))), 4),
                signal=depth_signal(5, gain, gradient, rng, dead=1.0 if name == "zeros" else 0.03),
            )
            for s in range(6)
        ]
    return store(folder, study, records)


def batchnorm(folder: Path) -> StudySummary:
    """With and without batch normalisation, measured on the training set too; four published curves each."""
    rng = random.Random(6)
    shape = {"with BN": (0.12, 0.046, 0.973), "without": (0.18, 0.10, 0.955)}
    published = {}
    for name, (start, end, accuracy) in shape.items():
        curve = cost_curve(start, end, 10, 0.0, rng)
        reached = [accuracy - (accuracy - 0.1) * 0.12 * (1 / t - 0.1) for t in range(1, 11)]
        published[name] = {
            "train_loss": [0.8 * c for c in curve],
            "test_loss": [1.6 * c + 0.05 for c in curve],
            "train_accuracy": [round(a + 0.005, 2) for a in reached],
            "test_accuracy": [round(a, 2) for a in reached],
        }
    study = _study(
        name="batchnorm",
        title="Batch normalisation",
        question="Does batch normalisation help a narrow network?",
        recipe={"hidden": [32, 32], "batch_size": 32, "epochs": 10, "train_metrics": True},
        arms=[
            {"name": "with BN", "normalization": "batch", "published": published["with BN"]},
            {"name": "without", "published": published["without"]},
        ],
        questions=[
            {
                "ask": "Does batch normalisation help?",
                "a": {"arm": "with BN"},
                "b": {"arm": "without"},
                "if_higher": "Yes: {difference} [{low}, {high}].",
                "if_lower": "No.",
            }
        ],
    )
    records = {
        name: [
            record(
                "",
                s,
                cost=cost_curve(start, end, 10, 0.06, rng),
                accuracy=round(a + rng.gauss(0, 0.002), 4),
                train=True,
            )
            for s in range(6)
        ]
        for name, (start, end, a) in shape.items()
    }
    return store(folder, study, records)


def signals(folder: Path) -> StudySummary:
    """Ten layers of sigmoid, tanh, ReLU and leaky ReLU: with sigmoid the gradient dies on its way back."""
    rng = random.Random(7)
    shape = {
        "sigmoid": (1.0, 0.06, 0.1135),
        "tanh": (0.85, 0.8, 0.972),
        "relu": (0.9, 0.95, 0.978),
        "leaky_relu": (0.9, 0.95, 0.978),
    }
    study = _study(
        name="activation", title="Activations in a deep network",
        question="Why do deep sigmoid networks not train?",
        recipe={"hidden": [128] * 9, "init": "xavier_uniform"},
        arms=[{"name": name, "activation": name} for name in shape],
        questions=[{
            "ask": "Does the gradient reach the first layer?",
            "a": {"arm": "relu", "metric": "gradient_ratio"}, "b": {"arm": "sigmoid", "metric": "gradient_ratio"},
            "if_higher": "With ReLU {a} of it does, with sigmoid {b}.", "if_lower": "Yes.",
        }],
    )  # fmt: skip
    records = {
        name: [
            record(
                "",
                s,
                cost=cost_curve(2.4 if name == "sigmoid" else 0.5, 2.3 if name == "sigmoid" else 0.03, 15, 0.02, rng),
                accuracy=0.1135 if name == "sigmoid" else round(a + rng.gauss(0, 0.0015), 4),
                signal=depth_signal(
                    10,
                    gain,
                    gradient,
                    rng,
                    dead=None if name in ("sigmoid", "tanh") else 0.12,
                    saturated=0.3 if name == "sigmoid" else 0.08 if name == "tanh" else None,
                ),
            )
            for s in range(6)
        ]
        for name, (gain, gradient, a) in shape.items()
    }
    return store(folder, study, records)


ALL = (reproduced, not_reproduced, troubled, one_seed, many, batchnorm, signals)


def all_of_them(folder: Path) -> list[StudySummary]:
    """Every invented study, in one folder."""
    return [make(folder) for make in ALL]
