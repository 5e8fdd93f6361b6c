"""Parameters without gradients, and models in the wrong mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, faulty
from tests.diagnosis.bed.data import batches, column, pictures, standard_targets, standardised
from tests.diagnosis.bed.judges import accuracy, r_squared
from tests.diagnosis.bed.models import Recurrent, SmallCNN, perceptron


@faulty("frozen-parameters")
def features_under_no_grad(mended: bool) -> Setup:
    """Untrained features under torch.no_grad() in forward, left from an earlier experiment."""
    d = data.spirals()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = perceptron(2, 32, 32, activation=nn.Tanh), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(mended and torch.is_grad_enabled()):
                x = torch.tanh(self.features(x))
            return self.head(x)

    model = Net()
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d), budget=40
    )


@faulty("frozen-parameters")
def detached_between(mended: bool) -> Setup:
    """A .detach() between the recurrent layer and the head."""
    d = data.sums()

    class Adder(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            last = self.rnn(x)[0][:, -1]
            return self.head(last if mended else last.detach())

    model = Adder(nn.LSTM, 1, 24, 1)
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=1e-2), r_squared(d), budget=10)


@faulty("frozen-parameters")
def frozen_and_untrained(mended: bool) -> Setup:
    """requires_grad=False on a body that nobody had trained."""
    d = data.stripes()
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(8, 4))
    if not mended:
        for p in body.parameters():
            p.requires_grad = False
    optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d))


@faulty("frozen-parameters")
def round_trip_through_numpy(mended: bool) -> Setup:
    """Hidden values go through numpy for a quick change, and come back without their graph."""
    d = column(standard_targets(data.friedman()))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(10, 48), nn.Linear(48, 6), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc2(torch.relu(self.fc1(x)))
            x = x.clip(-10, 10) if mended else torch.from_numpy(x.detach().numpy().clip(-10, 10))
            return self.fc3(torch.relu(x))

    model = Net()
    optimizer = Adam(model.parameters(), lr=5e-3)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d, reference=0.9), budget=40)


@faulty("wrong-mode", "input-scale")
def eval_mode_left_on(mended: bool) -> Setup:
    """model.eval() before the loop: batch normalisation by statistics that nobody gathers."""
    d = data.wine()
    layers: list[nn.Module] = [nn.BatchNorm1d(13)]
    for before in (13, 32, 32):
        layers += [nn.Linear(before, 32), nn.BatchNorm1d(32), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(32, 3)).train(mended)
    optimizer = SGD(model.parameters(), lr=0.05)
    return Setup(model, batches(d, 16, drop_last=True), nn.CrossEntropyLoss(), optimizer, accuracy(d))


@faulty("wrong-mode", "vanishing-gradient", "init-scale")
def eval_mode_in_a_deep_net(mended: bool) -> Setup:
    """The same in eight layers, which train only while they normalise."""
    d = data.digits()
    layers: list[nn.Module] = []
    for before in (64, *[48] * 7):
        layers += [nn.Linear(before, 48), nn.BatchNorm1d(48), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(48, 10)).train(mended)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=12)


@faulty("wrong-mode", "layers")
def dropout_in_evaluation(mended: bool) -> Setup:
    """functional.dropout without training=self.training: it drops in evaluation too."""
    d = column(standard_targets(data.friedman()))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(10, 128), nn.Linear(128, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.fc1(x))
            return self.fc2(functional.dropout(x, 0.75, training=self.training if mended else True))

    model = Net()
    optimizer = Adam(model.parameters(), lr=5e-3)
    judge = r_squared(d, reference=0.75)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, judge, eval_data=d.test, budget=30)


@faulty("wrong-mode", "layers")
def dropout_in_evaluation_cnn(mended: bool) -> Setup:
    """The same in a convolutional network, with evaluation data."""
    d = pictures(data.digits())

    class Net(SmallCNN):
        def forward(self, x: Tensor) -> Tensor:
            x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
            x = functional.max_pool2d(functional.relu(self.conv2(x)), 2).flatten(1)
            return self.fc(functional.dropout(x, 0.7, training=self.training or not mended))

    model = Net()
    optimizer = Adam(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test, budget=12)


@faulty("wrong-mode")
def norm_frozen_by_accident(mended: bool) -> Setup:
    """track_running_stats with momentum 0: evaluation uses the statistics of birth."""
    d = standardised(data.digits())
    momentum = 0.1 if mended else 0.0
    model = nn.Sequential(
        nn.Linear(64, 64),
        nn.BatchNorm1d(64, momentum=momentum),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.BatchNorm1d(64, momentum=momentum),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    optimizer = Adam(model.parameters(), lr=5e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test, budget=10)
