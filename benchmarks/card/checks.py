"""Correctness on a card: the same bits beside any neighbours, agreement with the CPU and with plain operations."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from card.clock import told
from card.ours import PRECISIONS
from fanin.choice import choose
from fanin.engine import matmul
from fanin.engine.card import philox, resident
from fanin.engine.card.device_masks import DeviceMasks
from fanin.engine.card.updates import Update
from fanin.engine.data import Data
from fanin.engine.ledger import Outcome
from fanin.engine.masks import draw_masks
from fanin.engine.network import Network
from fanin.engine.train import train
from fanin.recipe import Recipe, Trial
from fanin.streams import Stream
from way import BATCH, HIDDEN, cut

# The steps and the tests of a check; more would only take longer, and let rounding grow.
_STEPS, _TESTS = 100, 1000
_AGREE = 1e-9  # of losses in double precision
_CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # kernels fuse a product and a sum into one rounding, plain operations do not
_KEPT = 3  # trials that are looked at among their neighbours
_NORMALIZED = {"normalization": "batch", "dropout": 0.2}
_OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "adam", "weight_decay": 0.1},
    {"name": "adam", "amsgrad": True},
    {"name": "adamw"},
    {"name": "sgd", "momentum": 0.9, "nesterov": True},
    {"name": "rmsprop", "centered": True, "momentum": 0.5},
]


@dataclass(frozen=True)
class Check:
    """What was checked; `wrong` says what was found instead, and is None if nothing was."""

    name: str
    wrong: str | None

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        return self.wrong is None


@dataclass(frozen=True)
class Place:
    """What the checks work on: the data on the device and on the CPU, cut short, and the sizes of buckets."""

    here: Data
    cpu: Data
    sizes: tuple[int, ...]
    device: torch.device

    @classmethod
    def of(cls, here: Data, cpu: Data, sizes: Sequence[int], device: torch.device, *, steps: int = _STEPS) -> Place:
        """The first steps of an epoch, and the first tests."""
        return cls(*(cut(data, steps, _TESTS) for data in (here, cpu)), tuple(sizes), device)


def checks(place: Place) -> Iterator[Check]:
    """All of them; one that cannot be done has failed."""
    for precision in PRECISIONS:
        for fields in ({}, _NORMALIZED):
            for slots in place.sizes:
                name = f"{precision}{', normalised, dropout' if fields else ''}, {slots} slots"
                recipe = recipe_of(precision=precision, **fields)
                yield from _neighbours(name, recipe, slots, place)
    yield check("losses of an epoch in double precision as on the CPU", lambda: _as_on_the_cpu({}, place))
    yield check("the same, normalised, dropout", lambda: _as_on_the_cpu(_NORMALIZED, place))
    yield check("random words and masks as on the CPU", lambda: _same_noise(place))
    if kernels_can_run(place.device):
        for options in _OPTIMIZERS:
            told_ = ", ".join(f"{k}={v}" for k, v in options.items() if k != "name")
            name = f"kernel of {options['name']}{told_ and f' ({told_})'} as plain operations"
            yield check(name, lambda options=options: _as_plainly(options, place.device))


def kernels_can_run(device: torch.device) -> bool:
    """Whether Triton is there: for a card, or as an interpreter."""
    there = find_spec("triton") is not None
    return there and (device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")


def check(name: str, find: Callable[[], str | None]) -> Check:
    """One check: `find` says what is wrong, or None."""
    try:
        return Check(name, find())
    except Exception as error:  # whatever it is, it is no success
        return Check(name, told(error))


def recipe_of(**fields: Any) -> Recipe:
    """The network of the benchmark, for one epoch."""
    options = {"init": "xavier_uniform", "optimizer": "adam", "batch_size": BATCH, "epochs": 1}
    return Recipe.from_dict({"hidden": list(HIDDEN)} | options | fields)


def same(a: Outcome, b: Outcome) -> bool:
    """Whether two outcomes have the same bits: parameters, losses, metrics."""
    equal = all(torch.equal(tensor, b.state[name]) for name, tensor in a.state.items())
    return equal and [replace(e, seconds=0.0) for e in a.record.epochs] == [
        replace(e, seconds=0.0) for e in b.record.epochs
    ]


# --- bits


def _neighbours(name: str, recipe: Recipe, slots: int, place: Place) -> Iterator[Check]:
    """A trial in a bucket of its own, in a full one, in one filled backwards, and beside one that turns to NaN."""
    kept = [Trial(recipe, seed) for seed in range(_KEPT)]
    rest = [Trial(recipe, seed) for seed in range(_KEPT, slots)]
    poison = Trial(replace(recipe, init=choose("init", {"name": "constant", "value": 3e38})), slots)
    alone: list[Outcome] = []

    def differing(trials: list[Trial]) -> str | None:
        if not alone:
            alone.extend(_trained([trial], slots, place)[0] for trial in kept)
        found = dict(zip(trials, _trained(trials, slots, place), strict=True))
        if poison in found and found[poison].record.status != "diverged":
            return "the poisoned trial did not diverge, so that nothing was checked"
        bad = [trial.seed for trial, one in zip(kept, alone, strict=True) if not same(found[trial], one)]
        return f"other bits than alone: seeds {bad}" if bad else None

    matmul.use("tf32" if recipe.precision == "tf32" else "blas")
    try:
        yield check(f"beside others ({name})", lambda: differing(kept + rest))
        yield check(f"in other slots ({name})", lambda: differing([*rest[::-1], *kept[::-1]]))
        yield check(f"beside NaN ({name})", lambda: differing([kept[0], poison, *kept[1:], *rest[1:]]))
    finally:
        matmul.use("blas")


def _trained(trials: list[Trial], slots: int, place: Place, dtype: torch.dtype = torch.float32) -> list[Outcome]:
    ids = [str(m) for m in range(len(trials))]
    return resident.train(trials, ids, place.here, slots=slots, device=place.device, dtype=dtype)


# --- numbers


def _as_on_the_cpu(fields: dict[str, Any], place: Place) -> str | None:
    """The bucket in double precision against the loop that looks at every step."""
    trials = [Trial(recipe_of(**fields), seed) for seed in (0, 1)]
    ours = _trained(trials, place.sizes[0], place, torch.float64)
    theirs = train(trials, ["0", "1"], place.cpu, dtype=torch.float64)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(_losses(a), _losses(b), strict=True):
            if not math.isclose(x, y, rel_tol=_AGREE):
                return f"{x!r} here, {y!r} on the CPU"
    return None


def _losses(outcome: Outcome) -> list[float]:
    """The training loss of each epoch and the loss on the test set."""
    return [loss for epoch in outcome.record.epochs for loss in (epoch.train_cost, epoch.test_loss)]


def _same_noise(place: Place) -> str | None:
    """Words of Philox and masks on the device against those that the host draws: every bit."""
    count, device, seeds = 4 * BATCH, place.device, (0, 2**40)
    where = {"step": torch.tensor([7], device=device), "epoch": torch.tensor([1, 3], device=device)}
    found = philox.words(philox.keys(seeds, "order", device=device), count, layer=2, **where)
    for row, seed, epoch in zip(found.cpu(), seeds, (1, 3), strict=True):
        wanted = Stream(seed, "order", epoch=epoch, step=7, layer=2).words(count).view("int64")
        if not torch.equal(row, torch.from_numpy(wanted)):
            return f"words of seed {seed} differ"
    trials = [Trial(recipe_of(dropout=0.3), seed) for seed in seeds]
    masks = [torch.zeros(2, BATCH, width, device=device) for width in HIDDEN]
    drawn = DeviceMasks(masks)
    for m, trial in enumerate(trials):
        drawn.admit(m, trial)
    drawn.draw(torch.tensor([4, 4], device=device), where["step"])
    wanted = [torch.zeros(2, BATCH, width) for width in HIDDEN]
    draw_masks(trials, wanted, 4, 7)
    equal = all(torch.equal(a.cpu(), b) for a, b in zip(masks, wanted, strict=True))
    return None if equal else "masks differ"


# --- kernels


def _as_plainly(options: dict[str, Any], device: torch.device, *, members: int = 3, steps: int = 5) -> str | None:
    """Several steps of one optimiser by its kernel and by plain operations; the last member is dead, and NaN."""
    ends = [_moved(options, device, members, steps, kernels=use) for use in (False, True)]
    if not ends[1].isfinite().all():
        return "a member that is not alive was touched"
    return None if torch.allclose(*ends, **_CLOSE) else f"differ by up to {float((ends[0] - ends[1]).abs().max()):.3g}"


def _moved(options: dict[str, Any], device: torch.device, members: int, steps: int, *, kernels: bool) -> Tensor:
    recipe, generator = recipe_of(optimizer=options), torch.Generator().manual_seed(0)
    network = Network(recipe, [64, 33, 10], members, dtype=torch.float32, device=device)
    network.parameters.copy_(torch.randn(network.parameters.shape, generator=generator))
    update = Update(recipe.optimizer, network, kernels=kernels)
    for m in range(members - 1):
        update.admit(m, recipe.optimizer)
    update.begin_epoch(steps)
    for step in range(steps):
        network.gradients.copy_(torch.randn(network.gradients.shape, generator=generator))
        network.gradients[-1] = math.nan
        alive = torch.tensor([m < members - 1 for m in range(members)], device=device)
        update.step(torch.tensor([step], device=device), alive)
    return network.parameters
