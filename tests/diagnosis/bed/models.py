"""Networks that more than one set-up trains, as a user would write them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def perceptron(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these widths with the activation between them, as PyTorch initialises them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


class SmallCNN(nn.Module):
    """Two convolutions with pooling, for 8 x 8 pictures, functions called in forward."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc = nn.Linear(16 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1))


class ResidualBlock(nn.Module):
    """x + W2 relu(W1 norm(x))."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm(width)
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(functional.relu(self.fc1(self.norm(x))))


class Recurrent(nn.Module):
    """A recurrent layer, read at its last step by a linear head."""

    def __init__(self, cell: Callable[..., nn.Module], inputs: int, width: int, outputs: int, **options: bool) -> None:
        super().__init__()
        self.rnn = cell(inputs, width, batch_first=True, **options)
        self.head = nn.Linear(width * (2 if options.get("bidirectional") else 1), outputs)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        return self.head(out[:, -1])


class TokenRecurrent(Recurrent):
    """The same on embedded tokens."""

    def __init__(self, cell: Callable[..., nn.Module], tokens: int, width: int, outputs: int, **options: bool) -> None:
        super().__init__(cell, width, width, outputs, **options)
        self.embedding = nn.Embedding(tokens, width)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.embedding(x))


class Transformer(nn.Module):
    """Tokens and places embedded, torch's encoder layers, the mean over places to a head."""

    def __init__(self, tokens: int, places: int, outputs: int, *, width: int = 32, depth: int = 2, **options) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(places, width)
        options = {"dropout": 0.0, "batch_first": True} | options
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 4, 2 * width, **options) for _ in range(depth))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Autoencoder(nn.Module):
    """inputs -> hidden -> code -> hidden -> inputs, ReLU between, with an output activation."""

    def __init__(self, inputs: int, hidden: int, code: int, output: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, code))
        self.decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, inputs), output)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))
