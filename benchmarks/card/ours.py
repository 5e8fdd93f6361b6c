"""fanin on a card: microseconds per trial-step of full buckets, by their size and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

import torch

from card.clock import Row, Run, Scale, measured
from fanin.engine import matmul
from fanin.engine.card.resident import Bucket
from fanin.engine.data import Data
from fanin.recipe import Recipe, Trial
from way import NN

PRECISIONS = ("fp32", "tf32", "bf16")


def rows(data: Data, sizes: Sequence[int], *, scale: Scale, device: torch.device) -> Iterator[Row]:
    """Every size in every precision."""
    for precision in PRECISIONS:
        recipe = replace(NN, precision=precision)
        # a graph keeps the setting under which it was captured: it is made before the bucket
        matmul.use("tf32" if precision == "tf32" else "blas")
        try:
            for size in sizes:
                prepare = partial(_prepare, recipe, data, size, device)
                yield measured("fanin", size, precision, prepare, scale=scale, device=device)
        finally:
            matmul.use("blas")


def full_bucket(recipe: Recipe, data: Data, size: int, device: torch.device) -> Bucket:
    """A bucket with a trial in every slot."""
    bucket = Bucket(recipe, data, size, dtype=torch.float32, device=device)
    for m in range(size):
        bucket.admit(m, Trial(recipe, m))
    return bucket


def _prepare(recipe: Recipe, data: Data, size: int, device: torch.device) -> tuple[Run, Callable[[], float]]:
    """The warm-up is an epoch, which also draws the orders and makes the tables that later steps read."""
    bucket = full_bucket(recipe, data, size, device)
    bucket.run_epoch(dict.fromkeys(range(size), 1))
    # the loss of a further epoch, for those of single runs are overwritten by the next
    return bucket.run_steps, lambda: fmean(map(fmean, bucket.run_epoch(dict.fromkeys(range(size), 2))))
