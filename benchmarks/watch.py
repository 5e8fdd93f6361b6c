"""What watching costs: the time of a plain training loop, with fanin.watch at its default over without it.

Run: python benchmarks/watch.py [--rounds 15] [--steps 200] [--every 50]

Watched and unwatched loops alternate, so that whatever else the machine does meets both; a pair's ratio is that of its
two times (of the processor, in one thread: waiting for other processes is none of it), and the median over pairs
counts, with the interval between the order statistics that hold 95 %.
Weights after both must be equal bit for bit, else the comparison is off.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from fanin.diagnosis.watch import watch

TARGET = 1.05


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {"MLP 784-256-256-10": perceptron, "CNN 16-32, 28 x 28": convolutional}


def trained(make: Callable[[], nn.Module], steps: int, every: int | None) -> tuple[float, list[torch.Tensor]]:
    """Processor seconds of the loop alone, and the weights that it left."""
    torch.manual_seed(0)
    model, criterion = make(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    g = torch.Generator().manual_seed(1)
    batches = [(torch.randn(128, 784, generator=g), torch.randint(10, (128,), generator=g)) for _ in range(8)]
    looking = nullcontext() if every is None else watch(model, optimizer, every=every, loss=criterion, on_finding=str)
    begun = time.process_time()
    with looking:
        for step in range(steps):
            x, y = batches[step % len(batches)]
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
    return time.process_time() - begun, [p.detach().clone() for p in model.parameters()]


def compared(make: Callable[[], nn.Module], rounds: int, steps: int, every: int) -> tuple[list[float], float]:
    """Ratios of the pairs, and milliseconds of an unwatched step."""
    ratios, plain = [], []
    for i in range(rounds + 1):
        ways = [None, every] if i % 2 else [every, None]
        found = {way: trained(make, steps, way) for way in ways}
        for a, b in zip(found[None][1], found[every][1], strict=True):
            assert torch.equal(a, b), "watching has changed the training"
        if i:  # the first pair warms up
            ratios.append(found[every][0] / found[None][0])
            plain.append(found[None][0])
    return sorted(ratios), 1000 * min(plain) / steps


def interval(ordered: list[float]) -> tuple[float, float]:
    """Order statistics that hold the median with at least 95 %, where there are enough of them (a sign test's)."""
    n, k, mass = len(ordered), 0, 0.0
    while k < n // 2 and mass + math.comb(n, k) / 2**n <= 0.025:
        mass += math.comb(n, k) / 2**n
        k += 1
    return ordered[max(k - 1, 0)], ordered[n - max(k, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=50)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, make in NETWORKS.items():
        ratios, milliseconds = compared(make, given.rounds, given.steps, given.every)
        low, high = interval(ratios)
        middle = statistics.median(ratios)
        print(
            f"{name}, batch 128: {milliseconds:.2f} ms a step; watched / plain = {middle:.3f} [{low:.3f}, {high:.3f}], "
            f"{len(ratios)} pairs of {given.steps} steps, every = {given.every}: "
            f"{'within' if middle <= TARGET else 'OVER'} {TARGET}"
        )


if __name__ == "__main__":
    main()
