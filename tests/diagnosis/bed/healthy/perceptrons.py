"""Healthy multilayer perceptrons on tables and digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, RMSprop

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, healthy
from tests.diagnosis.bed.data import batches, standardised
from tests.diagnosis.bed.judges import accuracy
from tests.diagnosis.bed.models import perceptron


@healthy
def digits_relu_adam() -> Setup:
    """Digits in [0, 1], one ReLU layer, Adam as it comes."""
    d = data.digits()
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d))


@healthy
def digits_deep_relu_sgd() -> Setup:
    """Three ReLU layers, plain SGD at rate .1."""
    d = data.digits()
    model = perceptron(64, 64, 64, 64, 10)
    return Setup(model, batches(d, 16), nn.CrossEntropyLoss(), SGD(model.parameters(), lr=0.1), accuracy(d))


@healthy
def digits_tanh_momentum() -> Setup:
    """Tanh layers, SGD with momentum, evaluation data beside it."""
    d = data.digits()
    model = perceptron(64, 64, 32, 10, activation=nn.Tanh)
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test, epochs=20)


@healthy
def digits_sigmoid_one_layer() -> Setup:
    """One sigmoid layer, which is not too deep for it."""
    d = data.digits()
    model = nn.Sequential(nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 10))
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d))


@healthy
def digits_gelu_adamw() -> Setup:
    """GELU, AdamW with its own weight decay, an optimiser factory."""
    d = data.digits()
    model = perceptron(64, 96, 96, 10, activation=nn.GELU)
    return Setup(model, batches(d, 64), nn.CrossEntropyLoss(), lambda p: AdamW(p, lr=2e-3), accuracy(d))


@healthy
def digits_silu_rmsprop() -> Setup:
    """SiLU and RMSprop."""
    d = data.digits()
    model = perceptron(64, 64, 64, 10, activation=nn.SiLU)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), RMSprop(model.parameters(), lr=1e-3), accuracy(d))


@healthy
def digits_leaky_small_batches() -> Setup:
    """Leaky ReLU in batches of 4, with a rate that fits them."""
    d = data.digits()
    model = perceptron(64, 48, 10, activation=lambda: nn.LeakyReLU(0.1))
    return Setup(model, batches(d, 4), nn.CrossEntropyLoss(), SGD(model.parameters(), lr=0.02), accuracy(d), budget=5)


@healthy
def digits_large_batches() -> Setup:
    """ELU in batches of 256, with a rate and epochs that fit them."""
    d = data.digits()
    model = perceptron(64, 64, 10, activation=nn.ELU)
    optimizer = Adam(model.parameters(), lr=1e-2)
    return Setup(model, batches(d, 256), nn.CrossEntropyLoss(), optimizer, accuracy(d), epochs=40)


@healthy
def digits_batch_norm() -> Setup:
    """Batch normalisation before every ReLU."""
    d = data.digits()
    model = nn.Sequential(
        nn.Linear(64, 64, bias=False),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 64, bias=False),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Setup(model, batches(d, 32, drop_last=True), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=10)


@healthy
def digits_layer_norm() -> Setup:
    """Layer normalisation and softsign."""
    d = data.digits()
    model = nn.Sequential(
        nn.Linear(64, 64),
        nn.LayerNorm(64),
        nn.Softsign(),
        nn.Linear(64, 64),
        nn.LayerNorm(64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d))


@healthy
def digits_dropout_half() -> Setup:
    """Dropout of a half after a wide layer."""
    d = data.digits()
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10))
    loss = nn.CrossEntropyLoss()
    return Setup(model, batches(d, 32), loss, Adam(model.parameters()), accuracy(d), eval_data=d.test)


@healthy
def digits_dropout_and_norm() -> Setup:
    """Dropout on the inputs and behind batch normalisation, in place ReLU."""
    d = data.digits()
    model = nn.Sequential(
        nn.Dropout(0.1),
        nn.Linear(64, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Linear(128, 10),
    )
    return Setup(model, batches(d, 64), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=3e-3), accuracy(d))


@healthy
def digits_standardised() -> Setup:
    """Pixels standardised one by one, of which some are constant."""
    d = standardised(data.digits())
    model = perceptron(64, 100, 10)
    return Setup(model, batches(d, 50), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d), budget=15)


@healthy
def digits_log_softmax_nll() -> Setup:
    """log_softmax in forward and the negative log-likelihood: they belong together."""
    d = data.digits()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(64, 80), nn.Linear(80, 10)

        def forward(self, x: Tensor) -> Tensor:
            return functional.log_softmax(self.fc2(functional.relu(self.fc1(x))), dim=1)

    model = Net()
    return Setup(model, batches(d, 32), functional.nll_loss, Adam(model.parameters()), accuracy(d))


@healthy
def digits_softmax_regression() -> Setup:
    """One linear layer: logistic regression, which is enough here."""
    d = data.digits()
    model = nn.Linear(64, 10)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), SGD(model.parameters(), lr=0.5), accuracy(d))


@healthy
def digits_smoothed_labels() -> Setup:
    """Label smoothing: the loss has a floor well over 0."""
    d = data.digits()
    model = perceptron(64, 100, 10)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    return Setup(model, batches(d, 32), loss, Adam(model.parameters(), lr=2e-3), accuracy(d), epochs=15)


@healthy
def digits_margin() -> Setup:
    """The multi-class hinge loss on raw scores."""
    d = data.digits()
    model = perceptron(64, 64, 10)
    return Setup(model, batches(d, 32), nn.MultiMarginLoss(), Adam(model.parameters(), lr=3e-3), accuracy(d))


@healthy
def digits_selu_lecun() -> Setup:
    """Six SELU layers with LeCun's initialisation and zero biases."""
    d = standardised(data.digits())
    model = perceptron(64, 64, 64, 64, 64, 64, 10, activation=nn.SELU)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), SGD(model.parameters(), lr=0.01), accuracy(d))


@healthy
def digits_zero_head() -> Setup:
    """The last layer starts at zero, as some recommend; the hidden units differ, so that it breaks no symmetry."""
    d = data.digits()
    model = perceptron(64, 96, 48, 10)
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters()), accuracy(d))


@healthy
def digits_one_hot_mse() -> Setup:
    """Squared error against one-hot targets: unusual, and it works."""
    d = data.digits()
    hot = d.targets(functional.one_hot(d.y, 10).float(), functional.one_hot(d.y_test, 10).float())
    model = perceptron(64, 100, 10)
    return Setup(model, batches(hot, 32), nn.MSELoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))


@healthy
def iris_default() -> Setup:
    """Iris in centimetres as it comes: tensors (X, y), a small ReLU network."""
    d = data.iris()
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    return Setup(model, (d.x, d.y), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=0.01), accuracy(d), budget=60)


@healthy
def wine_standardised() -> Setup:
    """Wine, standardised; a dozen and a half rows to a batch."""
    d = standardised(data.wine())
    model = perceptron(13, 32, 16, 3)
    return Setup(model, batches(d, 16), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=3e-3), accuracy(d))


@healthy
def wine_batch_norm_first() -> Setup:
    """Wine's raw features into a batch normalisation, which does the scaling."""
    d = data.wine()
    model = nn.Sequential(nn.BatchNorm1d(13), nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = Adam(model.parameters(), lr=1e-2)
    return Setup(model, batches(d, 16, drop_last=True), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=30)


@healthy
def blobs_few_rows() -> Setup:
    """Forty examples of four well separated clouds."""
    d = data.blobs().first(40)
    model = perceptron(5, 16, 4)
    loss = nn.CrossEntropyLoss()
    return Setup(
        model, batches(d, 10), loss, Adam(model.parameters(), lr=0.01), accuracy(d), eval_data=d.test, budget=60
    )


@healthy
def spirals_tanh() -> Setup:
    """Three arms of a spiral, two wide tanh layers."""
    d = data.spirals()
    model = perceptron(2, 64, 64, 3, activation=nn.Tanh)
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d), epochs=40
    )


@healthy
def levels_one_hot() -> Setup:
    """Categories as one-hot inputs."""
    d = data.levels()
    model = perceptron(20, 32, 2)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=3e-3), accuracy(d))


@healthy
def words_sparse_inputs() -> Setup:
    """Word counts, 97 % of them zero."""
    d = data.words_bagged()
    model = perceptron(300, 32, 2)
    optimizer = Adam(model.parameters(), lr=2e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=10)


@healthy
def rare_class_weighted() -> Setup:
    """One class in seventeen, weighted in the loss."""
    d = standardised(data.rare())
    model = perceptron(12, 32, 2)
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 10.0]))
    return Setup(model, batches(d, 32), loss, Adam(model.parameters(), lr=3e-3), accuracy(d))


@healthy
def wrong_labels() -> Setup:
    """One label in five is wrong: the loss cannot go under .5 on new data."""
    d = data.flipped()
    model = perceptron(8, 16, 2)
    optimizer = Adam(model.parameters(), lr=2e-3, weight_decay=1e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test, budget=6)


@healthy
def shared_layer() -> Setup:
    """One linear layer used three times in forward."""
    d = data.digits()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.again, self.leave = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.enter(x))
            for _ in range(3):
                x = self.act(self.again(x))
            return self.leave(x)

    model = Net()
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))


@healthy
def low_rank_layers() -> Setup:
    """A wide layer factored into two linear ones on purpose; ReLU behind."""
    d = data.digits()
    model = nn.Sequential(nn.Linear(64, 16, bias=False), nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 10))
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d))
