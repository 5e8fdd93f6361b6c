"""Healthy convolutional networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, healthy
from tests.diagnosis.bed.data import batches, own_targets, pictures
from tests.diagnosis.bed.judges import accuracy, labels_right, r_squared
from tests.diagnosis.bed.models import SmallCNN


@healthy
def cnn_functional() -> Setup:
    """Two convolutions, functional ReLU and pooling."""
    d = pictures(data.digits())
    model = SmallCNN()
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d), budget=10
    )


@healthy
def cnn_sgd() -> Setup:
    """The same by SGD with momentum, with planned epochs and evaluation data."""
    d = pictures(data.digits())
    model = SmallCNN()
    optimizer = SGD(model.parameters(), lr=0.03, momentum=0.9)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test, epochs=12)


@healthy
def cnn_batch_norm_pooled() -> Setup:
    """Batch normalisation and the mean over all places at the end."""
    d = data.stripes()
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 4),
    )
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=12)


@healthy
def cnn_group_norm() -> Setup:
    """Group normalisation, SiLU, batches of 8."""
    d = data.stripes()
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 25, 4)
    )
    return Setup(model, batches(d, 8), nn.CrossEntropyLoss(), AdamW(model.parameters(), lr=2e-3), accuracy(d), budget=8)


@healthy
def cnn_residual() -> Setup:
    """Three residual blocks with batch normalisation."""
    d = pictures(data.digits())

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
            self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return functional.relu(x + self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)), inplace=True))))

    body = [nn.Conv2d(1, 8, 3, padding=1), *(Block() for _ in range(3)), nn.MaxPool2d(2), nn.Flatten()]
    model = nn.Sequential(*body, nn.Linear(8 * 16, 10))
    return Setup(model, batches(d, 64), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d), budget=8)


@healthy
def cnn_depthwise() -> Setup:
    """Depthwise and pointwise convolutions; between the two no nonlinearity, as in MobileNetV1's cousins."""
    d = pictures(data.digits())
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Conv2d(16, 32, 1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d), budget=8)


@healthy
def cnn_tanh_average() -> Setup:
    """In LeNet's manner: tanh and average pooling."""
    d = pictures(data.digits())
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 48),
        nn.Tanh(),
        nn.Linear(48, 10),
    )
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=3e-3), accuracy(d), budget=10
    )


@healthy
def cnn_dropout() -> Setup:
    """Dropout of channels and of units."""
    d = pictures(data.digits())
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Dropout2d(0.2),
        nn.Flatten(),
        nn.Linear(16 * 36, 64),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(64, 10),
    )
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d), budget=10
    )


@healthy
def cnn_one_dimension() -> Setup:
    """Waves by a one-dimensional convolution, functional max over time."""
    d = data.waves()
    d = d.inputs(d.x.transpose(1, 2), d.x_test.transpose(1, 2))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv1d(1, 24, 7), nn.Linear(24, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(functional.relu(self.conv(x)).amax(-1))

    model = Net()
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d))


@healthy
def mask_of_discs() -> Setup:
    """Segmentation: a raw output for each pixel, BCEWithLogitsLoss."""
    d = data.discs()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 1, 3, padding=1),
    )
    return Setup(
        model, batches(d, 16), nn.BCEWithLogitsLoss(), Adam(model.parameters(), lr=3e-3), labels_right(d), budget=8
    )


@healthy
def convolutional_autoencoder() -> Setup:
    """A strided convolution and its transpose; sigmoid at the end, pixels in [0, 1]."""
    d = own_targets(pictures(data.digits()), 0.85)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
        nn.Sigmoid(),
    )
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=5e-3), r_squared(d), budget=15)


@healthy
def two_branches() -> Setup:
    """Two convolutions of different widths side by side, joined by cat."""
    d = data.stripes()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 5, padding=2)
            self.act, self.pool, self.head = nn.LeakyReLU(), nn.AdaptiveMaxPool2d(3), nn.Linear(16 * 9, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.act(self.small(x)), self.act(self.large(x))], 1)
            return self.head(self.pool(x).flatten(1))

    model = Net()
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d), budget=10
    )
