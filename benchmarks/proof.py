"""What prove and explain claim: how often a remedy without effect "helps", and what the notes' open question comes to.

python benchmarks/proof.py null                 200 repetitions of 8 pairs of real trainings; a claim is a fault
python benchmarks/proof.py quirks               functional against class style on MNIST, two factors, 8 seeds
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

import fanin
from fanin.statistics import success_rate
from fanin.training import Training

REPETITIONS, SEEDS, STEPS = 200, 8, 10


def null(repetitions: int = REPETITIONS) -> dict[str, object]:
    """How often prove says what of a variant that draws the same network from other noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 6, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    words: Counter[str] = Counter()
    for i in range(repetitions):
        seeds = range(SEEDS * i, SEEDS * (i + 1))
        proof = fanin.prove(_network, _other_noise, (x, y), seeds=seeds, steps=STEPS, optimizer=_sgd)
        words[proof.verdict] += 1
    claims = success_rate(words["helps"], repetitions)
    return {"repetitions": repetitions, "verdicts": dict(words), "helps": [claims.rate, claims.low, claims.high]}


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def _other_noise(training: Training) -> Training:
    """The same distribution of initial weights: a number is drawn away first."""

    def make() -> nn.Module:
        torch.rand(1)
        return _network()

    return training.changed(make=make)


def _sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


class Functional(nn.Module):
    """Softmax regression as a function of two tensors: X @ W + b."""

    def __init__(self, init: str) -> None:
        super().__init__()
        bound = 1 / math.sqrt(784)
        weight = torch.randn(784, 10) if init == "normal" else torch.empty(784, 10).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(10).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return x @ self.weight + self.bias


class AsClass(nn.Module):
    """The same with nn.Linear, whose weights are overwritten or left at PyTorch's default."""

    def __init__(self, init: str) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)
        if init == "normal":
            nn.init.normal_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.linear(x)


def style(style: str, init: str) -> dict[str, object]:
    """The notes' softmax regression: its network and its optimiser."""
    model = Functional(init) if style == "functional" else AsClass(init)
    return {"model": model, "optimizer": torch.optim.Adam(model.parameters(), lr=0.001), "batch_size": 100}


def quirks(data: str = "mnist", seeds: int = SEEDS) -> dict[str, object]:
    """The open question of Lab 9: why the loss falls differently when the network is written as a class."""
    train = fanin.load(data).train
    x = torch.from_numpy(train.inputs).float() / 255
    factors = {"style": ("functional", "class"), "init": ("normal", "default")}
    found = fanin.explain(style, factors=factors, data=(x, torch.from_numpy(train.labels).long()), seeds=seeds)
    print(found)
    return found.to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["null", "quirks"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    found = {"null": null, "quirks": quirks}[arguments.what]() | {"seconds": round(time.perf_counter() - start, 1)}
    if arguments.what == "null":
        print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
