"""How many slots a card's bucket has: one of a few fixed sizes, by the trials there are, memory, and a short probe."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch

from fanin.engine.card.resident import Bucket
from fanin.engine.data import Data
from fanin.engine.network import widths
from fanin.recipe import Recipe, Trial

SIZES = (8, 32, 128)  # few, so that shapes, algorithms and bits stay fixed
_USABLE = 0.8  # of the free memory
_PROBED_STEPS = 40
_GAIN = 1.05  # what a larger bucket must gain for a trial: it also waits for more of them

_chosen: dict[tuple[object, ...], int] = {}


def bucket_size(recipe: Recipe, data: Data, trials: int, *, device: torch.device) -> int:
    """The size for so many trials of a recipe: no larger than needed, none that does not fit, the fastest by trial.

    Measured once for each shape in a process.
    """
    key = (recipe.hidden, recipe.batch_size, recipe.normalization, recipe.dropout > 0, recipe.precision, str(device))
    needed = next((size for size in SIZES if size >= trials), SIZES[-1])
    key = (*key, recipe.optimizer.name, data.features, needed)
    if key not in _chosen:
        fitting = [s for s in SIZES if s <= needed and s * slot_bytes(recipe, data) <= _free(device) * _USABLE]
        _chosen[key] = fastest(fitting or [SIZES[0]], partial(_seconds_per_step, recipe, data, device))
    return _chosen[key]


def fastest(sizes: list[int], seconds_per_step: Callable[[int], float]) -> int:
    """The size with the least time for one slot's step; a larger one must be worth it, and may run out of memory."""
    if len(sizes) == 1:
        return sizes[0]
    best, least = sizes[0], seconds_per_step(sizes[0]) / sizes[0]
    for size in sizes[1:]:
        try:
            mine = seconds_per_step(size) / size
        except torch.cuda.OutOfMemoryError:
            break
        if mine * _GAIN < least:
            best, least = size, mine
    return best


def slot_bytes(recipe: Recipe, data: Data) -> int:
    """About the memory of one slot: parameters and optimiser, activations, the epoch's order and its sort."""
    sizes = widths(recipe, data.features, data.classes)
    parameters = sum(a * b + 3 * b for a, b in pairwise(sizes))
    units = sum(sizes)
    measured = 5 * 1000 * max(sizes)  # evaluation and probe, see engine.evaluate
    return 4 * (6 * parameters + 5 * recipe.batch_size * units + measured) + 6 * 8 * len(data.train_labels)


def _free(device: torch.device) -> int:
    """Free bytes of the card, with what this process only keeps in store given back."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def _seconds_per_step(recipe: Recipe, data: Data, device: torch.device, size: int) -> float:
    """Wall seconds of one step of a bucket full of trials."""
    bucket = Bucket(recipe, data, size, dtype=torch.float32, device=device)
    for m in range(size):
        bucket.admit(m, Trial(recipe, m))
    steps = min(_PROBED_STEPS, bucket.steps)
    bucket.run_steps(steps)
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    bucket.run_steps(steps)
    torch.cuda.synchronize(device)
    return (time.perf_counter() - begun) / steps
