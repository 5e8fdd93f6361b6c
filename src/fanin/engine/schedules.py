"""Learning-rate schedules: a factor on the optimiser's lr, from epoch to epoch. A function for each catalogue name."""

from __future__ import annotations

import math
import sys

from fanin.choice import Choice


def factor(schedule: Choice, epoch: int, epochs: int) -> float:
    """The factor on lr in epoch e, counted from 1, of so many: e / (w + 1) in w epochs of warm-up, then the schedule's.

    The schedule sees the epochs after the warm-up as if they were all there are. All steps of an epoch have one rate.
    """
    options = schedule.keywords()
    warmup = options.pop("warmup")
    if epoch <= warmup:
        return epoch / (warmup + 1)
    return getattr(sys.modules[__name__], schedule.name)(epoch - warmup - 1, epochs - warmup, **options)


def constant(passed: int, epochs: int) -> float:
    """1."""
    return 1.0


def step(passed: int, epochs: int, *, every: int, gamma: float) -> float:
    """gamma^floor(passed / every), as torch's StepLR."""
    return gamma ** (passed // every)


def exponential(passed: int, epochs: int, *, gamma: float) -> float:
    """gamma^passed, as torch's ExponentialLR."""
    return gamma**passed


def linear(passed: int, epochs: int, *, final: float) -> float:
    """1 - (1 - final) passed / epochs, as torch's LinearLR: the factor after the last epoch would be `final`."""
    return 1 - (1 - final) * passed / epochs


def cosine(passed: int, epochs: int, *, final: float) -> float:
    """final + (1 - final) (1 + cos(pi passed / epochs)) / 2 (Loshchilov and Hutter, 2017, equation 5)."""
    return final + (1 - final) * (1 + math.cos(math.pi * passed / epochs)) / 2
