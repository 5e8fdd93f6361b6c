"""Data at fault: inputs not scaled, targets out of range, evaluation prepared otherwise, no signal, few rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, faulty
from tests.diagnosis.bed.data import Split, batches, column, pictures, standard_targets, standardised
from tests.diagnosis.bed.judges import accuracy, labels_right, r_squared
from tests.diagnosis.bed.models import Recurrent, SmallCNN, perceptron


@faulty("input-scale")
def wine_as_it_comes(mended: bool) -> Setup:
    """Wine's features from .1 to 1680, as they come."""
    d = standardised(data.wine()) if mended else data.wine()
    model = perceptron(13, 32, 3)
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 16), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test, budget=15)


@faulty("input-scale", "learning-rate-high")
def cancer_as_it_comes(mended: bool) -> Setup:
    """Areas up to 2500 beside smoothness of .1, into SGD."""
    d = column(data.cancer())
    d = standardised(d) if mended else d
    model = perceptron(30, 16, 1)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), optimizer, accuracy(d))


@faulty("input-scale", "saturation")
def bytes_into_tanh(mended: bool) -> Setup:
    """Pixels 0..255 into tanh units, which are all at their ends."""
    d = data.digits() if mended else data.bytes_of_digits()
    model = perceptron(64, 32, 32, 10, activation=nn.Tanh)
    optimizer = SGD(model.parameters(), lr=0.1)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=15)


@faulty("input-scale", "learning-rate-high")
def bytes_into_a_cnn(mended: bool) -> Setup:
    """Pixels 0..255 into convolutions under SGD with momentum."""
    d = pictures(data.digits() if mended else data.bytes_of_digits())
    model = SmallCNN()
    optimizer = SGD(model.parameters(), lr=0.03, momentum=0.9)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=10)


@faulty("input-scale")
def kelvin(mended: bool) -> Setup:
    """Features around 300 with deviations of about one, as temperatures in kelvin."""
    d = standardised(data.moons())
    d = d if mended else d.inputs(d.x + 300, d.x_test + 300)
    d = column(d)
    model = perceptron(2, 32, 32, 1)
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), optimizer, accuracy(d), epochs=40)


@faulty("input-scale", "learning-rate-low", "optimizer")
def divided_twice(mended: bool) -> Setup:
    """Pixels in [0, 1] divided by 255 once more."""
    d = data.digits()
    d = d if mended else d.inputs(d.x / 255, d.x_test / 255)
    model = perceptron(64, 64, 10)
    optimizer = SGD(model.parameters(), lr=0.1)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d))


@faulty("input-scale", "learning-rate-high", "non-finite")
def houses_as_they_come(mended: bool) -> Setup:
    """A regression on square metres, rooms, years and incomes as they are: not a number by SGD."""
    d = column(standard_targets(data.friedman()))
    scale = torch.tensor([4e4, 30.0, 5.0, 2000.0, 1.0, 1.0, 90.0, 1e3, 1.0, 10.0])
    d = standardised(d) if mended else d.inputs(d.x * scale, d.x_test * scale)
    model = perceptron(10, 64, 1)
    optimizer = SGD(model.parameters(), lr=0.05)
    return Setup(model, (d.x, d.y), nn.MSELoss(), optimizer, r_squared(d, reference=0.85), budget=40)


@faulty("label-range", "output-shape")
def classes_from_one(mended: bool) -> Setup:
    """Classes 1, 2, 3 for three outputs."""
    d = data.iris()
    trained = d if mended else d.targets(d.y + 1, d.y_test)
    model = perceptron(4, 16, 3)
    return Setup(
        model, batches(trained, 16), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=1e-2), accuracy(d), budget=40
    )


@faulty("label-range", "loss")
def signs_for_bce(mended: bool) -> Setup:
    """Targets -1 and 1 in BCEWithLogitsLoss: the loss of the negative ones has no floor."""
    d = standardised(data.rare())
    y = column(d)
    trained = y if mended else y.targets(2 * y.y - 1, d.y_test)
    model = perceptron(12, 24, 1)
    optimizer = Adam(model.parameters(), lr=5e-3)
    judge = accuracy(d, reference=0.88)
    return Setup(model, batches(trained, 32), nn.BCEWithLogitsLoss(), optimizer, judge, budget=25)


@faulty("label-range", "learning-rate-low")
def prices(mended: bool) -> Setup:
    """Prices of 100,000 to 500,000 as targets, Adam at 1e-3."""
    d = column(data.friedman())
    d = standard_targets(d) if mended else d.targets(2e4 * d.y, 2e4 * d.y_test)
    model = perceptron(10, 64, 64, 1)
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d), budget=40)


@faulty("label-range", "learning-rate-low")
def years(mended: bool) -> Setup:
    """Years around 1990 as targets."""
    d = column(data.friedman())
    d = standard_targets(d) if mended else d.targets(d.y + 1976, d.y_test + 1976)
    model = perceptron(10, 64, 1)
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d, reference=0.9), epochs=40)


@faulty("label-range")
def mask_of_bytes(mended: bool) -> Setup:
    """A mask of 0 and 255, as read from a picture, in BCEWithLogitsLoss."""
    d = data.discs()
    trained = d if mended else d.targets(255 * d.y, d.y_test)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 1, 3, padding=1),
    )
    judge = labels_right(d)
    return Setup(
        model, batches(trained, 16), nn.BCEWithLogitsLoss(), Adam(model.parameters(), lr=3e-3), judge, budget=8
    )


@faulty("eval-mismatch")
def test_pixels_not_standardised(mended: bool) -> Setup:
    """Training pixels standardised, those of the evaluation in [0, 1]."""
    raw, d = data.digits(), standardised(data.digits())
    seen = d if mended else d.inputs(d.x, raw.x_test)
    model = perceptron(64, 64, 10, activation=nn.Tanh)
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(seen), eval_data=seen.test)


@faulty("eval-mismatch")
def test_set_not_standardised(mended: bool) -> Setup:
    """Training features standardised, those of the evaluation as they came."""
    raw, d = data.cancer(), standardised(data.cancer())
    seen = d if mended else d.inputs(d.x, raw.x_test)
    model = perceptron(30, 16, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    return Setup(model, (d.x, d.y), nn.CrossEntropyLoss(), optimizer, accuracy(seen), eval_data=seen.test)


@faulty("eval-mismatch")
def test_set_upside_down(mended: bool) -> Setup:
    """Evaluation pictures read from the last row up, and black for white."""
    d = pictures(data.digits())
    seen = d if mended else d.inputs(d.x, 1 - d.x_test.flip(2))
    model = SmallCNN()
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(seen), eval_data=seen.test, budget=10
    )


@faulty("eval-mismatch")
def test_targets_not_scaled(mended: bool) -> Setup:
    """Training targets standardised, those of the evaluation 14 +- 5."""
    raw, d = column(data.friedman()), column(standard_targets(data.friedman()))
    seen = d if mended else d.targets(d.y, raw.y_test)
    model = perceptron(10, 64, 1)
    optimizer = Adam(model.parameters(), lr=5e-3)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(seen), eval_data=seen.test, budget=40)


@faulty("no-signal")
def targets_shuffled_alone(mended: bool) -> Setup:
    """Inputs and targets shuffled each by its own permutation."""
    d = data.digits()
    order = torch.randperm(len(d.y), generator=torch.Generator().manual_seed(0))
    trained = d if mended else d.targets(d.y[order], d.y_test)
    model = perceptron(64, 64, 10)
    return Setup(model, batches(trained, 32), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d))


@faulty("no-signal", "input-scale")
def constant_inputs(mended: bool) -> Setup:
    """Integer division by 255: all inputs are zero."""
    raw = pictures(data.bytes_of_digits())
    d = (
        pictures(data.digits())
        if mended
        else raw.inputs(raw.x.int().div(256, rounding_mode="floor").float(), raw.x_test * 0)
    )
    model = SmallCNN()
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d), budget=10
    )


@faulty("no-signal")
def one_class_only(mended: bool) -> Setup:
    """The first rows of a file sorted by class."""
    d = data.wine()
    d = standardised(d)
    order = d.y.sort().indices[:40]
    trained = d if mended else Split(d.x[order], d.y[order], d.x_test, d.y_test, d.reference)
    model = perceptron(13, 32, 3)
    return Setup(model, batches(trained, 16), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d))


@faulty("overfitting")
def wide_on_few_points(mended: bool) -> Setup:
    """Two dozen points with much noise through a wide network; mended by seventeen times as many, in as many steps."""
    d = data.sine()
    noise = 0.6 * torch.randn(d.y.shape, generator=torch.Generator().manual_seed(0))
    d = d.targets(d.y + noise, d.y_test)
    trained = d if mended else d.first(24)
    model = perceptron(1, 128, 128, 1)
    optimizer = Adam(model.parameters(), lr=5e-3)
    return Setup(
        model,
        batches(trained, 8),
        nn.MSELoss(),
        optimizer,
        r_squared(d, reference=0.85),
        eval_data=d.test,
        budget=9 if mended else 160,
    )


@faulty("overfitting")
def wrong_labels_learnt(mended: bool) -> Setup:
    """One label in five is wrong, and a wide network learns them by heart; mended by stopping early."""
    d = data.flipped().first(120)
    model = perceptron(8, 128, 128, 2)
    optimizer = Adam(model.parameters(), lr=5e-3)
    judge = accuracy(d)
    budget = 2 if mended else 80
    return Setup(model, batches(d, 20), nn.CrossEntropyLoss(), optimizer, judge, eval_data=d.test, budget=budget)


@faulty("overfitting")
def diabetes_too_long(mended: bool) -> Setup:
    """Diabetes by a wide network for sixty epochs; the mended one stops after two."""
    d = column(standard_targets(standardised(data.diabetes())))
    model = perceptron(10, 128, 128, 1)
    optimizer = Adam(model.parameters(), lr=5e-3)
    judge = r_squared(d)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, judge, eval_data=d.test, budget=2 if mended else 60)


@faulty("non-finite")
def missing_values(mended: bool) -> Setup:
    """Features that are missing in one row of a hundred, as NaN."""
    d = standardised(data.wine())
    x = d.x.clone()
    if not mended:
        x[::60, 4] = float("nan")
    d = d.inputs(x, d.x_test)
    model = perceptron(13, 32, 3)
    return Setup(model, batches(d, 16), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d))


@faulty("non-finite", "label-range")
def logarithm_of_zero(mended: bool) -> Setup:
    """Targets by log, of which some were zero: minus infinity."""
    d = column(data.friedman())
    raw = Split(d.x, (d.y - 8).clamp_min(0), d.x_test, (d.y_test - 8).clamp_min(0), 0.82)
    logs = raw.targets(raw.y.log(), raw.y_test.log1p())
    trained = raw.targets(raw.y.log1p(), raw.y_test.log1p()) if mended else logs
    model = perceptron(10, 64, 64, 1)
    return Setup(
        model, batches(trained, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(trained), budget=30
    )


@faulty("non-finite", "loss", "init-scale")
def logarithm_of_softmax(mended: bool) -> Setup:
    """log(softmax) by hand on scores of hundreds: the logarithm of an underflow."""
    d = data.waves()
    model = Recurrent(nn.GRU, 1, 24, 3)
    with torch.no_grad():
        model.head.weight.mul_(1 if mended else 600)

    def loss(scores: Tensor, y: Tensor) -> Tensor:
        logs = scores.log_softmax(1) if mended else scores.softmax(1).log()
        return -logs.gather(1, y[:, None]).mean()

    return Setup(model, batches(d, 32), loss, Adam(model.parameters(), lr=5e-3), accuracy(d), budget=12)
