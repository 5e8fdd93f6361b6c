"""Too few epochs, learning rates too high or too low, batches too small or too large."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, faulty
from tests.diagnosis.bed.data import batches, column, own_targets, pictures, standard_targets, standardised
from tests.diagnosis.bed.judges import accuracy, r_squared
from tests.diagnosis.bed.models import Autoencoder, Recurrent, SmallCNN, TokenRecurrent, Transformer, perceptron


@faulty("too-few-epochs", "learning-rate-low", "optimizer")
def digits_two_epochs(mended: bool) -> Setup:
    """Two epochs of plain SGD at .02."""
    d = data.digits()
    model = perceptron(64, 64, 10)
    optimizer = SGD(model.parameters(), lr=0.02)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=40 if mended else 2)


@faulty("too-few-epochs", "batch-size", "learning-rate-low")
def cnn_one_epoch(mended: bool) -> Setup:
    """One pass over a thousand pictures in batches of 64."""
    d = pictures(data.digits())
    model = SmallCNN()
    return Setup(
        model, batches(d, 64), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d), epochs=30 if mended else 1
    )


@faulty("too-few-epochs", "learning-rate-low")
def friedman_four_epochs(mended: bool) -> Setup:
    """Four epochs of a regression that needs forty."""
    d = column(standard_targets(data.friedman()))
    model = perceptron(10, 64, 64, 1)
    optimizer = Adam(model.parameters(), lr=2e-3)
    judge = r_squared(d)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, judge, eval_data=d.test, epochs=60 if mended else 4)


@faulty("too-few-epochs", "learning-rate-low")
def reviews_two_epochs(mended: bool) -> Setup:
    """Two epochs of an LSTM on tokens."""
    d = data.reviews()
    model = TokenRecurrent(nn.LSTM, 40, 24, 2)
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=20 if mended else 2)


@faulty("too-few-epochs", "learning-rate-low")
def spirals_three_epochs(mended: bool) -> Setup:
    """Three epochs on spirals."""
    d = data.spirals()
    model = perceptron(2, 64, 64, 3)
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=60 if mended else 3)


@faulty("too-few-epochs", "learning-rate-low", "optimizer")
def autoencoder_one_epoch(mended: bool) -> Setup:
    """An autoencoder stopped after its second epoch."""
    d = own_targets(data.digits(), 0.82)
    model = Autoencoder(64, 64, 16, nn.Identity())
    optimizer = Adam(model.parameters(), lr=2e-3)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d), epochs=40 if mended else 2)


@faulty("too-few-epochs", "learning-rate-low")
def wine_five_epochs(mended: bool) -> Setup:
    """Ten epochs of four steps each."""
    d = standardised(data.wine())
    model = perceptron(13, 32, 3)
    optimizer = SGD(model.parameters(), lr=0.01)
    return Setup(model, (d.x, d.y), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=150 if mended else 5)


@faulty("too-few-epochs", "learning-rate-low")
def sums_three_epochs(mended: bool) -> Setup:
    """Three epochs of a GRU that adds."""
    d = data.sums()
    model = Recurrent(nn.GRU, 1, 24, 1)
    optimizer = Adam(model.parameters(), lr=1e-3)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d), epochs=25 if mended else 3)


@faulty("learning-rate-high", "non-finite", "exploding-gradient")
def regression_diverges(mended: bool) -> Setup:
    """SGD at rate 1 on a regression: not a number within an epoch."""
    d = column(standard_targets(standardised(data.friedman())))
    model = perceptron(10, 64, 64, 1)
    optimizer = SGD(model.parameters(), lr=0.05 if mended else 1.0)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d, reference=0.85), budget=30)


@faulty("learning-rate-high", "dead-units")
def adam_at_half(mended: bool) -> Setup:
    """Adam at .5, as one would choose it for SGD."""
    d = data.digits()
    model = perceptron(64, 64, 64, 10)
    optimizer = Adam(model.parameters(), lr=1e-3 if mended else 0.5)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test)


@faulty("learning-rate-high", "optimizer", "dead-units")
def cnn_fast_momentum(mended: bool) -> Setup:
    """Momentum .9 at rate .8."""
    d = pictures(data.digits())
    model = SmallCNN()
    optimizer = SGD(model.parameters(), lr=0.03 if mended else 0.8, momentum=0.9)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=10)


@faulty("learning-rate-high")
def transformer_too_fast(mended: bool) -> Setup:
    """A transformer by Adam at .1."""
    d = data.reviews()
    model = Transformer(40, 12, 2, depth=1)
    optimizer = Adam(model.parameters(), lr=2e-3 if mended else 0.1)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=8)


@faulty("learning-rate-high", "saturation")
def gru_too_fast(mended: bool) -> Setup:
    """A GRU under RMSprop at .3."""
    d = data.waves()
    model = Recurrent(nn.GRU, 1, 24, 3)
    optimizer = RMSprop(model.parameters(), lr=5e-3 if mended else 0.3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d, reference=0.95), budget=15)


@faulty("learning-rate-low")
def adam_at_a_millionth(mended: bool) -> Setup:
    """Adam at 1e-6."""
    d = data.digits()
    model = perceptron(64, 64, 10)
    optimizer = Adam(model.parameters(), lr=1e-3 if mended else 1e-6)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d))


@faulty("learning-rate-low", "optimizer")
def iris_sgd_too_slow(mended: bool) -> Setup:
    """SGD at 1e-5 on iris, planned for 50 epochs."""
    d = data.iris()
    model = perceptron(4, 16, 3)
    optimizer = SGD(model.parameters(), lr=0.1 if mended else 1e-5)
    return Setup(model, (d.x, d.y), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=80)


@faulty("learning-rate-low", "optimizer")
def cnn_sgd_too_slow(mended: bool) -> Setup:
    """SGD at 1e-4, without momentum, on pictures."""
    d = data.stripes()
    model = nn.Sequential(nn.Conv2d(3, 12, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, 4))
    optimizer = SGD(model.parameters(), lr=0.1 if mended else 1e-4)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test)


@faulty("learning-rate-low")
def gru_too_slow(mended: bool) -> Setup:
    """AdamW at 1e-6 for a GRU."""
    d = data.sums()
    model = Recurrent(nn.GRU, 1, 24, 1)
    optimizer = AdamW(model.parameters(), lr=1e-2 if mended else 1e-6)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d), budget=10)


@faulty("batch-size", "layers")
def batch_norm_of_two_rows(mended: bool) -> Setup:
    """Batch normalisation over two rows."""
    d = standardised(data.friedman())
    d = column(standard_targets(d))
    model = nn.Sequential(
        nn.Linear(10, 48),
        nn.BatchNorm1d(48),
        nn.ReLU(),
        nn.Linear(48, 48),
        nn.BatchNorm1d(48),
        nn.ReLU(),
        nn.Linear(48, 1),
    )
    optimizer = Adam(model.parameters(), lr=5e-3)
    judge = r_squared(d, reference=0.88)
    return Setup(model, batches(d, 32 if mended else 2, drop_last=True), nn.MSELoss(), optimizer, judge, budget=15)


@faulty("batch-size", "too-few-epochs", "learning-rate-low")
def whole_set_as_a_batch(mended: bool) -> Setup:
    """All of the training data as one batch: one step an epoch, and fifteen epochs."""
    d = data.digits()
    model = perceptron(64, 64, 10)
    size = 32 if mended else 1258
    return Setup(model, batches(d, size), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d), epochs=15)


@faulty("batch-size", "learning-rate-high")
def one_row_at_a_time(mended: bool) -> Setup:
    """Batches of one row at a rate for batches of 32."""
    d = standardised(data.digits())
    model = perceptron(64, 64, 10)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Setup(model, batches(d, 32 if mended else 1), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=4)


@faulty("batch-size", "too-few-epochs", "learning-rate-low")
def one_huge_batch_of_waves(mended: bool) -> Setup:
    """Batches of 600 in an epoch of 630 rows, twelve epochs."""
    d = data.waves()
    model = Recurrent(nn.GRU, 1, 24, 3)
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 32 if mended else 600), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=12)
