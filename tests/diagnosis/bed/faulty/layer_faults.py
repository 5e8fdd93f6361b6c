"""Structure at fault: layers misplaced, missing, never called, too small, or linear throughout."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, faulty
from tests.diagnosis.bed.data import batches, column, own_targets, pictures, standard_targets, standardised
from tests.diagnosis.bed.judges import accuracy, r_squared
from tests.diagnosis.bed.models import Autoencoder, perceptron


@faulty("layers")
def dropout_of_nearly_all(mended: bool) -> Setup:
    """Dropout(0.95), where a probability of keeping was meant."""
    d = data.digits()
    p = 0.05 if mended else 0.95
    model = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 48), nn.ReLU(), nn.Dropout(p), nn.Linear(48, 10)
    )
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))


@faulty("layers")
def dropout_behind_the_output(mended: bool) -> Setup:
    """Dropout of a half behind the last layer of a regression."""
    d = column(data.friedman())
    model = perceptron(10, 64, 64, 1)
    if not mended:
        model.append(nn.Dropout(0.5))
    optimizer = Adam(model.parameters(), lr=5e-3)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d, reference=0.85), budget=25)


@faulty("layers", "capacity")
def pooled_to_nothing(mended: bool) -> Setup:
    """Three poolings of an 8 x 8 picture: one pixel with four channels is left."""
    d = pictures(data.digits())
    blocks = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    if not mended:
        for _ in range(2):
            blocks += [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 if mended else 4, 10))
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=3e-3), accuracy(d), budget=15
    )


@faulty("layers", "optimizer")
def layers_in_a_list(mended: bool) -> Setup:
    """Layers in a Python list: parameters() does not know them."""
    d = data.spirals()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            hidden = [nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 32)]
            self.hidden = nn.ModuleList(hidden) if mended else hidden
            self.out = nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.hidden:
                x = torch.tanh(layer(x))
            return self.out(x)

    model = Net()
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d), budget=40
    )


@faulty("layers", "missing-nonlinearity", "capacity")
def hidden_layer_never_called(mended: bool) -> Setup:
    """forward goes from the first layer to the last; the hidden ones and their ReLU are registered and never called."""
    d = data.circles()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 2)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc1(x)
            if mended:
                x = self.relu(self.fc2(self.relu(x)))
            return self.fc3(x)

    model = Net()
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d), budget=25
    )


@faulty("layers", "label-range", "output-activation")
def norm_on_the_output(mended: bool) -> Setup:
    """Batch normalisation behind the last layer, its scale too slow for targets of 14 +- 5."""
    d = column(data.friedman())
    model = perceptron(10, 64, 64, 1)
    if not mended:
        model.append(nn.BatchNorm1d(1))
    optimizer = Adam(model.parameters(), lr=5e-3)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d, reference=0.85), epochs=25)


@faulty("layers", "output-activation")
def norm_of_one_output(mended: bool) -> Setup:
    """LayerNorm over a single output: always zero, plus a bias."""
    d = column(standardised(data.cancer()))
    model = perceptron(30, 16, 1)
    if not mended:
        model.append(nn.LayerNorm(1))
    return Setup(model, batches(d, 32), nn.BCEWithLogitsLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d))


class Sequence(nn.Module):
    """A recurrent layer read by `read`."""

    def __init__(self, read, outputs: int, **options) -> None:
        super().__init__()
        self.rnn, self.head, self.read = nn.LSTM(1, 24, **options), nn.Linear(24, outputs), read

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.read(self.rnn(x)[0]))


@faulty("layers")
def first_step_instead_of_last(mended: bool) -> Setup:
    """out[:, 0] where out[:, -1] was meant: the state after one number."""
    d = data.sums()
    model = Sequence(lambda out: out[:, -1 if mended else 0], 1, batch_first=True)
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=1e-2), r_squared(d), budget=15)


@faulty("layers")
def batch_taken_for_time(mended: bool) -> Setup:
    """batch_first was forgotten: the layer runs along the batch, and each example sees one number of its own."""
    d = data.sums()
    model = Sequence(lambda out: out[:, -1], 1, batch_first=mended)
    optimizer = Adam(model.parameters(), lr=1e-2)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d), eval_data=d.test, epochs=15)


@faulty("layers")
def norm_along_the_wrong_axis(mended: bool) -> Setup:
    """Layer normalisation along an axis of length one: every hidden value becomes zero."""
    d = data.digits()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.fc1(x)).unsqueeze(2)
            x = functional.layer_norm(x, x.shape[1:] if mended else x.shape[2:])
            return self.fc3(functional.relu(self.fc2(x.squeeze(2))))

    model = Net()
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d))


@faulty("capacity", "layers")
def bottleneck_of_one(mended: bool) -> Setup:
    """One unit between 64 inputs and ten classes."""
    d = data.digits()
    model = perceptron(64, 64, 32 if mended else 1, 10)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))


@faulty("capacity")
def two_units_on_spirals(mended: bool) -> Setup:
    """Two tanh units for three arms of a spiral."""
    d = data.spirals()
    width = 64 if mended else 2
    model = perceptron(2, width, width, 3, activation=nn.Tanh)
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=1e-2), accuracy(d), epochs=40
    )


@faulty("capacity")
def code_of_one(mended: bool) -> Setup:
    """An autoencoder of digits with a code of one number, where the pictures are to be legible."""
    d = own_targets(data.digits(), 0.80)
    model = Autoencoder(64, 64, 16 if mended else 1, nn.Sigmoid())
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d), budget=20)


@faulty("missing-nonlinearity", "capacity")
def linear_circles(mended: bool) -> Setup:
    """Four linear layers with nothing between, for a circle in a ring."""
    d = column(data.circles())
    layers: list[nn.Module] = []
    for before in (2, 32, 32):
        layers += [nn.Linear(before, 32), nn.ReLU() if mended else nn.Identity()]
    model = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)), nn.Linear(32, 1))
    return Setup(
        model, batches(d, 32), nn.BCEWithLogitsLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d), budget=25
    )


@faulty("missing-nonlinearity", "capacity")
def linear_regression_in_disguise(mended: bool) -> Setup:
    """A module whose forward forgot its activations."""
    d = data.sine()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(1, 48), nn.Linear(48, 48), nn.Linear(48, 1)

        def forward(self, x: Tensor) -> Tensor:
            if mended:
                return self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))
            return self.fc3(self.fc2(self.fc1(x)))

    model = Net()
    return Setup(model, batches(d, 20), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d), budget=50)


@faulty("missing-nonlinearity", "capacity")
def linear_convolutions(mended: bool) -> Setup:
    """Convolutions and the mean over all places, with nothing between: the mean colour is all that is left."""
    d = data.stripes()
    between = nn.ReLU if mended else nn.Dropout2d
    options = {} if mended else {"p": 0.0}
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3),
        between(**options),
        nn.Conv2d(12, 16, 3),
        between(**options),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d), budget=15
    )


@faulty("missing-nonlinearity", "capacity")
def linear_friedman(mended: bool) -> Setup:
    """Three linear layers on Friedman's function, SGD."""
    d = column(standard_targets(standardised(data.friedman())))
    model = (
        perceptron(10, 64, 32, 1) if mended else nn.Sequential(nn.Linear(10, 64), nn.Linear(64, 32), nn.Linear(32, 1))
    )
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
    judge = r_squared(d, reference=0.9)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, judge, eval_data=d.test, budget=30)
