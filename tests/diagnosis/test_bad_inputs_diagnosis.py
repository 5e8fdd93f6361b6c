"""Bad input to fanin.diagnose: a message or a finding, no traceback from within; odd input that is healthy: silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fanin.diagnosis import diagnose
from fanin.errors import FaninError

pytestmark = pytest.mark.usefixtures("one_thread")


X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 2
TOKENS = torch.arange(32 * 5).view(32, 5) % 20
CE = nn.CrossEntropyLoss()


def net(outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs))


class Gives(nn.Module):
    """A network whose output is changed last."""

    def __init__(self, change: Callable[[Tensor], Any], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.change = inner or net(), change

    def forward(self, *inputs: Any) -> Any:
        return self.change(self.inner(*inputs))


class Ragged(Dataset):
    """Sequences of different lengths."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.ones(2 + i % 5, 4) * (i % 2), i % 2


class Unreadable(Ragged):
    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        raise OSError("no such file")


class Tires(nn.Module):
    """Raises at its fourth call."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.training and self.calls > 3:
            raise RuntimeError("tired")
        return self.inner(x)


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.out = nn.Embedding(20, 8, sparse=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.table(x).mean(1))


def holds_nan() -> nn.Module:
    model = net()
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    return model


def closed_over(model: nn.Module) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda _: torch.optim.SGD(model.parameters(), lr=0.1)


def holding_the_original() -> dict[str, Any]:
    model = net()
    return given(model=model, optimizer=closed_over(model), steps=10)


def padded(batch: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return nn.utils.rnn.pad_sequence([x for x, _ in batch], batch_first=True), torch.tensor([y for _, y in batch])


def listed(batch: list[tuple[Tensor, int]]) -> tuple[list[Tensor], Tensor]:
    return [x for x, _ in batch], torch.tensor([y for _, y in batch])


def given(**fields: Any) -> dict[str, Any]:
    return {"model": net(), "data": (X, Y), "loss": CE, "steps": 0} | fields


@dataclass(frozen=True)
class Bad:
    """raises: a pattern of the message; finds: the cause that is first; neither: it is all right."""

    what: str
    arguments: Callable[[], dict[str, Any]]
    raises: str | None = None
    finds: str | None = None


def regression(z: Tensor, _: Any) -> Tensor:
    return z.square().mean()


CASES = [
    Bad("plain", given),
    Bad("plain, with steps", lambda: given(steps=4, optimizer=torch.optim.Adam)),
    # outputs
    Bad("a tuple", lambda: given(model=Gives(lambda z: (z, z)), loss=lambda z, y: CE(z[0], y))),
    Bad("a tuple to torch's loss", lambda: given(model=Gives(lambda z: (z, z))), finds="loss"),
    Bad("a tuple and no loss", lambda: given(model=Gives(lambda z: (z, z)), loss=None)),
    Bad("a dict", lambda: given(model=Gives(lambda z: {"z": z}), loss=lambda z, y: CE(z["z"], y))),
    Bad(
        "a dict without that key",
        lambda: given(model=Gives(lambda z: {"z": z}), loss=lambda z, y: z["a"]),
        finds="loss",
    ),
    Bad("None", lambda: given(model=Gives(lambda z: None)), raises="model: expected outputs that are a tensor"),
    Bad("text", lambda: given(model=Gives(lambda z: "a"), loss=None), raises="got str"),
    Bad("integers", lambda: given(model=Gives(lambda z: z.argmax(1))), finds="label-range"),
    Bad("one number", lambda: given(model=Gives(lambda z: z.square().mean()), loss=lambda z, y: z)),
    Bad("no examples", lambda: given(model=Gives(lambda z: z[:0])), finds="output-shape"),
    Bad("a forward that raises", lambda: given(model=Gives(lambda z: z["a"])), raises="forward raised"),
    Bad("a forward that raises later", lambda: given(model=Tires(), steps=6), raises="training raised RuntimeError"),
    # models
    Bad("a class", lambda: given(model=nn.Linear), raises="model: expected an nn.Module; got type"),
    Bad("no parameters", lambda: given(model=nn.ReLU()), raises="ReLU has none"),
    Bad("lazy", lambda: given(model=nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2)))),
    Bad("lazy, with steps", lambda: given(model=nn.Sequential(nn.LazyLinear(2)), steps=4, loss=None)),
    Bad("meta", lambda: given(model=net().to("meta")), raises="meta device"),
    Bad("NaN", lambda: given(model=holds_nan()), finds="non-finite"),
    Bad("frozen", lambda: given(model=net().requires_grad_(False)), finds="frozen-parameters"),
    Bad("float64", lambda: given(model=net().double(), data=(X.double(), Y))),
    Bad(
        "float64, of arrays",
        lambda: given(model=net().double(), data=(X.double().numpy(), Y.numpy()), eval_data=(X.numpy(), Y.numpy())),
    ),
    Bad(
        "float64 on float32",
        lambda: given(data=(X.double(), Y)),
        raises=r"pass x\.to\(torch\.float32\), or model\.to\(torch\.float64\)",
    ),
    Bad("float16", lambda: given(model=net().half(), data=(X.half(), Y))),
    Bad("bfloat16", lambda: given(model=net().bfloat16(), data=(X.bfloat16(), Y), steps=3)),
    Bad("float16 on float32", lambda: given(model=net().half()), raises="same dtype"),
    Bad("sparse gradients", lambda: given(model=Sparse(), data=(TOKENS, Y), steps=3, optimizer=torch.optim.SGD)),
    Bad(
        "complex outputs",
        lambda: given(model=Gives(torch.fft.fft), data=(X, X[:, :2]), loss=lambda z, y: (z - y).abs().mean()),
    ),
    # data
    Bad(
        "a loader of nothing",
        lambda: given(data=DataLoader(TensorDataset(X[:0], Y[:0]), 4)),
        raises="at least one batch",
    ),
    Bad("tensors of nothing", lambda: given(data=(X[:0], Y[:0])), raises="at least one example"),
    Bad("a batch of nothing", lambda: given(data=[(X[:0], Y[:0])]), raises=r"inputs of shape \(0, 4\)"),
    Bad(
        "everything dropped",
        lambda: given(data=DataLoader(TensorDataset(X, Y), 64, drop_last=True)),
        raises="drop_last",
    ),
    Bad("an empty list", lambda: given(data=[]), raises="data: expected"),
    Bad("nothing", lambda: given(data=None), raises="data: expected arrays"),
    Bad("a number", lambda: given(data=5), raises="data: expected arrays"),
    Bad("text", lambda: given(data=DataLoader([("a", 1)] * 8, 4)), raises="whose inputs are tensors"),
    Bad("dicts of text", lambda: given(data=[{"text": "a", "label": 1}]), raises="whose inputs are tensors"),
    Bad("text in arrays", lambda: given(data=(np.array([["a"] * 4] * 32), np.arange(32))), raises="of numbers"),
    Bad("three tensors", lambda: given(data=(X, Y, Y)), raises="tuple of 3"),
    Bad("fewer targets", lambda: given(data=(X, Y[:5])), raises="as many targets"),
    Bad("a generator", lambda: given(data=((X, Y) for _ in range(3))), raises="can be used once"),
    Bad("a data set that raises", lambda: given(data=Unreadable()), raises="going through it raised OSError"),
    Bad("unequal lengths", lambda: given(data=Ragged()), raises="going through it raised RuntimeError"),
    Bad("lists of sequences", lambda: given(data=DataLoader(Ragged(), 8, collate_fn=listed)), raises="got list"),
    Bad(
        "padded sequences",
        lambda: given(model=Gives(lambda z: z.mean(1)), data=DataLoader(Ragged(), 8, collate_fn=padded), steps=2),
    ),
    Bad("inputs on meta", lambda: given(data=(X.to("meta"), Y)), raises="data: .* meta device"),
    Bad("inputs on meta, no loss", lambda: given(data=(X.to("meta"), Y), loss=None), raises="data: .* meta device"),
    Bad("targets on meta", lambda: given(data=(X, Y.to("meta"))), raises="data: .* meta device"),
    Bad("integers into Linear", lambda: given(data=(X.long(), Y)), raises="torch.int64"),
    Bad("floats into Embedding", lambda: given(model=Sparse(), data=(TOKENS.float(), Y)), raises="torch.float32"),
    Bad("tokens out of range", lambda: given(model=Sparse(), data=(TOKENS + 10, Y)), raises="out of range"),
    Bad("complex into Linear", lambda: given(data=(X.to(torch.complex64), Y)), raises="torch.complex64"),
    Bad("inputs too wide", lambda: given(data=(X.repeat(1, 2), Y)), raises=r"inputs \(32, 8\)"),
    Bad("sparse inputs", lambda: given(data=[(X.to_sparse(), Y)])),
    Bad("one example", lambda: given(data=(X[:1], Y[:1]), steps=3)),
    Bad("all NaN", lambda: given(data=(X * torch.nan, Y)), finds="non-finite"),
    Bad("equal inputs", lambda: given(data=(torch.ones(32, 4), Y)), finds="no-signal"),
    Bad("no targets", lambda: given(model=net(4), data=X, loss=None)),
    Bad("targets None in a pair", lambda: given(data=(X, None), loss=regression), raises="pass X alone"),
    Bad("lists of lists", lambda: given(data=[X.tolist(), Y.tolist()]), raises=r"pass np\.array\(rows\)"),
    Bad("targets None", lambda: given(data=[(X, None)], loss=regression)),
    Bad("no targets for classes", lambda: given(data=X), finds="output-shape"),
    Bad("text as targets", lambda: given(data=[(X, ["a"] * 32)]), finds="loss"),
    Bad("dicts as targets, no loss", lambda: given(data=[(X, {"a": Y})], loss=None), raises="pass loss="),
    # evaluation data
    Bad(
        "none to evaluate",
        lambda: given(eval_data=DataLoader(TensorDataset(X[:0], Y[:0]))),
        raises="eval_data: expected",
    ),
    Bad(
        "tokens to evaluate, of arrays",
        lambda: given(model=Sparse(), data=(TOKENS.numpy(), Y.numpy()), eval_data=(TOKENS.numpy(), Y.numpy())),
    ),
    Bad("a number to evaluate", lambda: given(eval_data=5), raises="eval_data: expected"),
    Bad("evaluated too wide", lambda: given(eval_data=(X.repeat(1, 2), Y)), finds="eval-mismatch"),
    # losses
    Bad("not reduced", lambda: given(loss=nn.CrossEntropyLoss(reduction="none")), finds="loss"),
    Bad("of shape (1,)", lambda: given(loss=lambda z, y: CE(z, y)[None])),
    Bad("a float", lambda: given(loss=lambda z, y: CE(z, y).item()), finds="loss"),
    Bad("no loss", lambda: given(loss=lambda z, y: None), finds="loss"),
    Bad("a complex loss", lambda: given(loss=lambda z, y: CE(z, y) * 1j), finds="loss"),
    Bad("an accuracy", lambda: given(loss=lambda z, y: (z.argmax(1) == y).float().mean()), finds="loss"),
    Bad("three arguments", lambda: given(loss=lambda z, y, w: CE(z, y)), finds="loss"),
    Bad("three tensors for a loss", lambda: given(loss=nn.TripletMarginLoss()), finds="loss"),
    Bad("a class of losses", lambda: given(loss=nn.CrossEntropyLoss), raises="the class CrossEntropyLoss"),
    Bad("a name of a loss", lambda: given(loss="cross_entropy"), raises="loss: expected .* got 'cross_entropy'"),
    Bad("an infinite loss", lambda: given(loss=lambda z, y: CE(z, y) * torch.inf), finds="non-finite"),
    Bad("a NaN loss", lambda: given(loss=lambda z, y: CE(z, y) * torch.nan), finds="non-finite"),
    Bad("a huge loss", lambda: given(loss=lambda z, y: CE(z, y) * 1e30)),
    # optimisers
    Bad("a function of parameters", lambda: given(optimizer=lambda ps: torch.optim.SGD(ps, lr=0.1), steps=2)),
    Bad("a function of the model", lambda: given(optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.1), steps=2)),
    Bad("a function of nothing", lambda: given(optimizer=lambda: None), raises="optimizer: expected"),
    Bad("a function that makes nothing", lambda: given(optimizer=lambda ps: None), raises="got NoneType"),
    Bad("a function that raises", lambda: given(optimizer=lambda ps: 1 / 0), raises="raised ZeroDivisionError"),
    Bad(
        "a negative rate",
        lambda: given(optimizer=lambda ps: torch.optim.SGD(ps, lr=-1)),
        raises="Invalid learning rate",
    ),
    Bad("a name of an optimiser", lambda: given(optimizer="adam"), raises="got str"),
    Bad("another's", lambda: given(optimizer=torch.optim.SGD(net().parameters(), lr=0.1)), finds="optimizer"),
    Bad(
        "a function that holds the given network's own",
        holding_the_original,
        finds="optimizer",
    ),
    # numbers
    Bad("steps below 0", lambda: given(steps=-1), raises="steps: expected a whole number of 0 or more; got -1"),
    Bad("half a step", lambda: given(steps=1.5), raises="steps: expected"),
    Bad("steps in words", lambda: given(steps="10"), raises="steps: expected"),
    Bad("steps of numpy", lambda: given(steps=np.int64(0))),
    Bad("no epochs", lambda: given(epochs=0), raises="epochs: expected"),
    Bad("a seed below 0", lambda: given(seed=-1), raises="seed: expected"),
]


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.what)
def test_bad_input_is_told_of_in_words(bad: Bad) -> None:
    arguments = bad.arguments()
    if bad.raises is not None:
        with pytest.raises(FaninError, match=bad.raises):
            diagnose(**arguments)
        return
    found = diagnose(**arguments)
    causes = [finding.cause for finding in found.findings]
    assert causes[:1] == ([bad.finds] if bad.finds else []), str(found)
    assert found.to_json()


def test_a_lazy_network_stays_lazy() -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2))
    diagnose(model, (X, Y), loss=CE, steps=0)
    assert isinstance(model[0], nn.LazyLinear)
    assert model[0].has_uninitialized_params()
    with torch.no_grad():
        assert model(X[:3]).shape == (3, 2)


class Residual(nn.Module):
    """u' + u of a network u with u(0) = 1, to be 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.u = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            u = 1 + x * self.u(x)
            (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return slope + u


class Masked(nn.Module):
    """Classes that the second input forbids have the logit minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net(3)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        return self.inner(x).masked_fill(~allowed, -torch.inf)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into, self.attend, self.out = (
            nn.Linear(4, 8),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        return self.out(self.attend(h, h, h, need_weights=False)[0].mean(1))


class Noisy(nn.Module):
    """Random in evaluation mode too, as a variational autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 0.1 * torch.randn_like(x)


class OwnLoss(nn.Module):
    """Gives its loss, as it has the targets."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return CE(self.inner(x), y)


def ordinal(z: Tensor, y: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(z, (y[:, None] > torch.arange(2)).to(z))


def of_known(z: Tensor, y: Tensor) -> Tensor:
    """The mean square over targets that are there."""
    return ((z - y.nan_to_num()).square() * y.isfinite()).sum() / y.isfinite().sum()


def of_positions(z: Tensor, y: Tensor) -> Tensor:
    return nn.functional.nll_loss(z.flatten(0, 1), y.flatten())


ALLOWED = torch.ones(32, 3, dtype=torch.bool)
ALLOWED[:, 2] = torch.arange(32) % 3 == 0
HOLES = torch.where(torch.arange(32)[:, None] % 5 == 0, torch.nan, X[:, :1])
IMAGES = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))

ODD: dict[str, Callable[[], dict[str, Any]]] = {
    "thresholds of ordinal classes": lambda: given(data=(X, torch.arange(32) % 3), loss=ordinal),
    "a differential equation": lambda: given(
        model=Residual(), data=(X[:, :1], torch.zeros(32, 1)), loss=nn.MSELoss(), steps=0
    ),
    "targets that the loss leaves alone": lambda: given(
        model=Noisy(), data=(X, torch.zeros(32)), loss=lambda z, _: z.square().mean()
    ),
    "impossible classes": lambda: given(model=Masked(), data=TensorDataset(X, ALLOWED, Y)),
    "missing targets": lambda: given(model=net(1), data=(X, HOLES), loss=of_known),
    "missing inputs": lambda: given(
        model=nn.Sequential(Gives(lambda x: x.nan_to_num(), nn.Identity()), *net()), data=(HOLES.expand(32, 4), Y)
    ),
    "log-probabilities of positions": lambda: given(
        model=nn.Sequential(net(3), nn.LogSoftmax(-1)),
        data=(X.view(8, 4, 4), torch.arange(32).view(8, 4) % 3),
        loss=of_positions,
    ),
    "an attention": lambda: given(model=Attention(), data=(X.view(8, 4, 4), Y[:8])),
    "a factorised convolution": lambda: given(
        model=nn.Sequential(
            nn.Conv2d(1, 4, (1, 3)), nn.Conv2d(4, 4, (3, 1)), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
        ),
        data=(IMAGES, Y[:8]),
    ),
    "noise in evaluation mode": lambda: given(model=Noisy(), data=(X, X), loss=nn.MSELoss()),
    "a loss from the network": lambda: given(model=OwnLoss(), data=TensorDataset(X, Y, Y), loss=lambda z, _: z),
    "targets in other units": lambda: given(
        model=net(1),
        data=(X, (3 * X[:, :1]).exp() * 100),
        loss=lambda z, y: (z - y.log() + 4.6).square().mean(),
        optimizer=lambda ps: torch.optim.Adam(ps, lr=0.03),
        steps=60,
    ),
}


@pytest.mark.parametrize("arguments", ODD.values(), ids=ODD.keys())
def test_what_is_odd_and_healthy_is_not_accused(arguments: Callable[[], dict[str, Any]]) -> None:
    found = diagnose(**arguments())
    assert not found.findings, str(found)


class Blended(nn.Module):
    """Each example's outputs hold the mean of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - x.mean(0))


FAULTY: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "classes beyond 1 in binary cross-entropy": (
        "label-range",
        lambda: given(model=net(1), data=(X, (torch.arange(32.0) % 3)[:, None]), loss=nn.BCEWithLogitsLoss()),
    ),
    "equal targets": ("no-signal", lambda: given(model=net(1), data=(X, torch.zeros(32, 1)), loss=nn.MSELoss())),
    "missing targets that nobody leaves out": (
        "non-finite",
        lambda: given(model=net(1), data=(X, HOLES), loss=nn.MSELoss()),
    ),
    "logits of positions for log-probabilities": (
        "output-activation",
        lambda: given(model=net(3), data=(X.view(8, 4, 4), torch.arange(32).view(8, 4) % 3), loss=of_positions),
    ),
    "two linear layers before an activation": (
        "missing-nonlinearity",
        lambda: given(model=nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))),
    ),
    "examples that are mixed": ("layers", lambda: given(model=Blended())),
}


@pytest.mark.parametrize(("cause", "arguments"), FAULTY.values(), ids=FAULTY.keys())
def test_the_faults_that_these_look_like_are_found(cause: str, arguments: Callable[[], dict[str, Any]]) -> None:
    assert cause in [finding.cause for finding in diagnose(**arguments()).findings]


def test_a_target_out_of_range_is_seen_in_later_batches_too() -> None:
    y = torch.zeros(320, 1)
    y[:160] = 1.0
    y[7] = 2.0
    found = diagnose(net(1), (X.repeat(10, 1), y), loss=nn.BCEWithLogitsLoss(), steps=0)
    assert ("label-range", 2.0) in [(finding.cause, finding.value) for finding in found.findings]


def test_the_page_of_a_diagnosis_is_written(tmp_path: Path) -> None:
    found = diagnose(holds_nan(), (X, Y), loss=CE, steps=0)
    assert "0.weight holds NaN or infinity" in found.save(tmp_path / "page.html").read_text()
