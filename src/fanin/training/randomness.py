"""Global random states: kept, seeded for a while, and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclass
class RandomState:
    """States of torch's, numpy's and Python's global generators, and of some more torch generators.

    Cards' generators are among them where CUDA is in use already.
    """

    torch: Tensor
    cuda: list[Tensor]
    numpy: Any
    python: Any
    others: list[tuple[torch.Generator, Tensor]]

    @classmethod
    def now(cls, others: Sequence[torch.Generator] = ()) -> Self:
        """As they are."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        numpy = np.random.get_state()  # noqa: NPY002 - users' data sets draw from it
        return cls(torch.get_rng_state(), cuda, numpy, random.getstate(), [(g, g.get_state()) for g in others])

    @classmethod
    def seeded(cls, seed: int, others: Sequence[torch.Generator] = ()) -> Self:
        """As a seed leaves them; now they stay as they are."""
        outside = cls.now(others)
        try:
            seed_all(seed)
            for generator in others:
                generator.manual_seed(seed)
            return cls.now(others)
        finally:
            outside.restore()

    def restore(self) -> None:
        """Put them back."""
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        np.random.set_state(self.numpy)  # noqa: NPY002 - users' data sets draw from it
        random.setstate(self.python)
        for generator, state in self.others:
            generator.set_state(state)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Within, generators go on from this state, which follows them; outside nothing has moved."""
        generators = [generator for generator, _ in self.others]
        outside = RandomState.now(generators)
        self.restore()
        try:
            yield
        finally:
            now = RandomState.now(generators)
            self.torch, self.cuda, self.numpy = now.torch, now.cuda, now.numpy
            self.python, self.others = now.python, now.others
            outside.restore()


def seed_all(seed: int) -> None:
    """Seed torch's, numpy's and Python's global generators.

    Not by torch.manual_seed, which without CUDA in use keeps every call, with its stack, for the day that it is.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - users' data sets draw from it
    random.seed(seed)
