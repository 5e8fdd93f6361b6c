"""What the data are: statistics of inputs and targets over a sample, and the task that they pose."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fanin.errors import DataError
from fanin.training import Batch
from fanin.training.losses import targets_of

MOST = 1024  # examples that are looked at


@dataclass(frozen=True)
class Inputs:
    """Numbers of the first input over a sample (N, ...); tokens: integers, whose sizes mean nothing.

    broken: share of numbers that are not finite, left out of the others. feature_stds: standard deviations by feature,
    for rows; None else. constant: whether all examples are equal.
    """

    tensor: Tensor
    tokens: bool
    mean: float
    std: float
    low: float
    high: float
    broken: float
    feature_stds: Tensor | None
    constant: bool


@dataclass(frozen=True)
class Targets:
    """Numbers of the targets over a sample.

    kind: "classes" (indices), "binary" (two numbers such as 0 and 1), "real", or "other" (no tensor, or none at all).
    whole: integers, of any dtype. broken: share of numbers that are not finite, left out of the others. like_inputs:
    whether they are the inputs, as an autoencoder's.
    """

    kind: str
    tensor: Tensor | None
    low: float
    high: float
    mean: float
    std: float
    distinct: int
    whole: bool
    broken: float
    like_inputs: bool = False


@dataclass(frozen=True)
class Sample:
    """A part of the data, put together: what one batch after the other would show."""

    batch: Batch
    inputs: Inputs
    targets: Targets
    scale_free: bool = False  # whether outputs speak of real targets in another unit: logits, logarithms of rates
    paired: bool = True  # whether one tensor of outputs stands against one of targets, so that a score can be taken

    @property
    def size(self) -> int:
        """Examples."""
        return self.batch.size


def sample_of(batches: Iterable[Batch], most: int = MOST) -> Sample:
    """The first batches of an epoch until there are `most` examples; DataError where there are none."""
    parts: list[Batch] = []
    for batch in batches:
        parts.append(batch)
        if sum(p.size for p in parts) >= most:
            break
    if not parts or not parts[0].first.numel():
        raise DataError("data: expected at least one example; got none (an empty data set, or drop_last)")
    whole = parts[0] if len(parts) == 1 else _joined(parts)
    return Sample(whole, inputs_of(whole.first), targets_in(targets_of(whole), whole.first))


def _joined(parts: list[Batch]) -> Batch:
    """Several batches as one; the first alone where they do not fit together (padded sequences, nested targets)."""
    try:
        inputs = tuple(_cat([p.inputs[i] for p in parts]) for i in range(len(parts[0].inputs)))
        named = {k: _cat([p.named[k] for p in parts]) for k in parts[0].named}
        targets = None if parts[0].targets is None else _cat([p.targets for p in parts])
    except (RuntimeError, TypeError, KeyError, IndexError):
        return parts[0]
    return Batch(inputs, targets, named)


def _cat(values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    if isinstance(values[0], list | tuple):
        return type(values[0])(_cat([v[i] for v in values]) for i in range(len(values[0])))
    raise TypeError(type(values[0]).__name__)


def inputs_of(x: Tensor) -> Inputs:
    """Statistics of inputs, in float64."""
    x = x.detach().cpu()
    x = x if x.layout == torch.strided else x.to_dense()
    tokens = not x.is_floating_point() and not x.is_complex()
    y = x.double() if not x.is_complex() else x.abs().double()
    finite = torch.isfinite(y)
    good = y[finite] if not bool(finite.all()) else y.flatten()
    rows = y.flatten(1) if y.dim() > 1 else y[:, None]
    by_feature = rows if y.dim() == 2 and bool(finite.all()) and len(rows) > 1 else None
    return Inputs(
        tensor=x,
        tokens=tokens,
        **_moments(good),
        broken=1 - float(finite.double().mean()),
        feature_stds=None if by_feature is None else by_feature.std(0, correction=0),
        constant=len(rows) > 1 and bool((rows == rows[0]).all()),
    )


def targets_in(y: Any, inputs: Tensor) -> Targets:
    """Statistics of targets, and what kind they are."""
    if not isinstance(y, Tensor) or not y.numel() or y.is_complex():
        return Targets("other", None, math.nan, math.nan, math.nan, math.nan, 0, False, 0.0)
    y = y.detach().cpu()
    values = y.double()
    finite = torch.isfinite(values)
    good = values[finite]
    whole = bool((good == good.round()).all())
    distinct = good.unique()
    same = y.shape == inputs.shape and y.is_floating_point() and torch.equal(y, inputs.detach().cpu().to(y))
    kind = _kind(y, distinct, whole=whole) if not same else "real"
    return Targets(
        kind=kind,
        tensor=y,
        **_moments(good),
        distinct=len(distinct),
        whole=whole,
        broken=1 - float(finite.double().mean()),
        like_inputs=same,
    )


def _kind(y: Tensor, distinct: Tensor, *, whole: bool) -> str:
    if whole and len(distinct) <= 2 and bool(((distinct == 0) | (distinct == 1)).all()):
        return "binary" if y.is_floating_point() or y.dtype == torch.bool else "classes"
    if not y.is_floating_point():
        return "classes"
    return "binary" if whole and len(distinct) == 2 and y.numel() > 8 else "real"  # such as -1 and 1


def _moments(numbers: Tensor) -> dict[str, float]:
    """Mean, standard deviation, least and largest; NaN of no numbers."""
    if not len(numbers):
        return dict.fromkeys(("mean", "std", "low", "high"), math.nan)
    return {
        "mean": float(numbers.mean()),
        "std": float(numbers.std(correction=0)),
        "low": float(numbers.min()),
        "high": float(numbers.max()),
    }
