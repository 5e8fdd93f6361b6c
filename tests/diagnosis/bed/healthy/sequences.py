"""Healthy recurrent networks and transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, RMSprop

from tests.diagnosis.bed import data
from tests.diagnosis.bed.case import Setup, healthy
from tests.diagnosis.bed.data import batches
from tests.diagnosis.bed.judges import accuracy, r_squared
from tests.diagnosis.bed.models import Recurrent, TokenRecurrent, Transformer


def each_place(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of (N, T, C) against (N, T), place by place."""
    return functional.cross_entropy(outputs.flatten(0, 1), y.flatten())


@healthy
def sums_tanh_rnn() -> Setup:
    """A plain RNN adds ten numbers."""
    d = data.sums()
    model = Recurrent(nn.RNN, 1, 32, 1)
    return Setup(model, batches(d, 32), nn.MSELoss(), Adam(model.parameters(), lr=3e-3), r_squared(d), budget=15)


@healthy
def sums_lstm() -> Setup:
    """An LSTM adds ten numbers, with evaluation data."""
    d = data.sums()
    model = Recurrent(nn.LSTM, 1, 24, 1)
    optimizer = Adam(model.parameters(), lr=1e-2)
    return Setup(model, batches(d, 32), nn.MSELoss(), optimizer, r_squared(d), eval_data=d.test, epochs=15)


@healthy
def waves_gru() -> Setup:
    """A GRU tells rhythms."""
    d = data.waves()
    model = Recurrent(nn.GRU, 1, 24, 3)
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=1e-2), accuracy(d), budget=12
    )


@healthy
def waves_bidirectional() -> Setup:
    """A bidirectional GRU under RMSprop."""
    d = data.waves()
    model = Recurrent(nn.GRU, 1, 16, 3, bidirectional=True)
    optimizer = RMSprop(model.parameters(), lr=3e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), budget=20)


@healthy
def reviews_lstm() -> Setup:
    """Tokens embedded, an LSTM, one raw output."""
    d = data.reviews()
    model = TokenRecurrent(nn.LSTM, 40, 24, 2)
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=5e-3), accuracy(d), budget=15
    )


@healthy
def reviews_mean_of_embeddings() -> Setup:
    """The mean of the tokens' embeddings, then two layers."""
    d = data.column(data.reviews())
    model = nn.Sequential(nn.EmbeddingBag(40, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    return Setup(
        model, batches(d, 32), nn.BCEWithLogitsLoss(), Adam(model.parameters(), lr=1e-2), accuracy(d), budget=12
    )


@healthy
def tags_bidirectional() -> Setup:
    """A tag for every token: (N, T, C) flattened in the loss."""
    d = data.tags()

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(12, 16)
            self.rnn = nn.GRU(16, 24, batch_first=True, bidirectional=True)
            self.head = nn.Linear(48, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.embedding(x))[0])

    model = Tagger()
    return Setup(model, batches(d, 32), each_place, Adam(model.parameters(), lr=1e-2), accuracy(d), budget=10)


@healthy
def next_tokens() -> Setup:
    """A causal transformer with its own attention: each token's successor."""
    d = data.chain()

    class Attention(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
            return x + self.out(functional.scaled_dot_product_attention(q, k, v, is_causal=True))

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(10, 24), nn.Parameter(0.02 * torch.randn(10, 24))
            self.attention, self.head = nn.Sequential(Attention(24), Attention(24)), nn.Linear(24, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(self.tokens(x) + self.places))

    model = Language()
    return Setup(model, batches(d, 32), each_place, AdamW(model.parameters(), lr=3e-3), accuracy(d), budget=15)


@healthy
def next_tokens_transposed() -> Setup:
    """Outputs turned to (N, C, T), as cross-entropy wants them."""
    d = data.chain()
    model = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.transpose(1, 2), y)

    return Setup(model, batches(d, 16), loss, Adam(model.parameters(), lr=3e-3), accuracy(d), budget=10)


@healthy
def reviews_transformer() -> Setup:
    """One of torch's encoder layers, mean over places."""
    d = data.reviews()
    model = Transformer(40, 12, 2, depth=1)
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d), budget=12
    )


@healthy
def reviews_transformer_dropout() -> Setup:
    """Norm first, GELU, dropout, AdamW; told its epochs and its evaluation data."""
    d = data.reviews()
    model = Transformer(40, 12, 2, depth=1, norm_first=True, activation="gelu", dropout=0.1)
    optimizer = AdamW(model.parameters(), lr=2e-3)
    return Setup(model, batches(d, 32), nn.CrossEntropyLoss(), optimizer, accuracy(d), eval_data=d.test, epochs=12)


@healthy
def digits_in_patches() -> Setup:
    """A small vision transformer: four patches of a digit, a token of its own to read from."""
    d = data.pictures(data.digits())

    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, 32, 4, stride=4)
            self.reader, self.places = nn.Parameter(torch.zeros(1, 1, 32)), nn.Parameter(0.1 * torch.randn(1, 5, 32))
            self.block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
            self.head = nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.reader.expand(len(x), 1, 32), x], 1) + self.places
            return self.head(self.block(x)[:, 0])

    model = Vision()
    return Setup(
        model, batches(d, 32), nn.CrossEntropyLoss(), Adam(model.parameters(), lr=2e-3), accuracy(d), budget=20
    )


@healthy
def waves_forecast() -> Setup:
    """The next value of a wave by an RNN and SGD with momentum."""
    d = data.waves()
    ahead = data.Split(d.x[:, :-1], d.x[:, -1], d.x_test[:, :-1], d.x_test[:, -1], 0.85)
    model = Recurrent(nn.RNN, 1, 32, 1)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Setup(model, batches(ahead, 32), nn.MSELoss(), optimizer, r_squared(ahead), budget=25)
