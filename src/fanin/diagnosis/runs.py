"""Short runs: the user's own training, and the same with one thing changed; how well each has learnt the task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from fanin.diagnosis.sample import Sample, Targets
from fanin.diagnosis.start import like
from fanin.errors import FaninError
from fanin.training import Batch, Training, train
from fanin.training.losses import call, main_output, value_of
from fanin.training.optimizers import learning_rate


@dataclass
class RunResult:
    """What one short run left.

    losses: of every step's batch; stopped: the step whose loss was not finite. score: how much of the task it has
    learnt, 0 as a constant and 1 all of it (None where targets do not tell): balanced accuracy above chance for
    classes, the explained share of the variance for numbers; on `sample`, in evaluation mode. evaluations: (step,
    train loss, eval loss), if there are evaluation data. update: median over steps of |update| / |weights|.
    error: what it raised.
    """

    losses: list[float] = field(default_factory=list)
    stopped: int | None = None
    score: float | None = None
    final: float = math.nan
    first: float = math.nan
    evaluations: list[tuple[int, float, float]] = field(default_factory=list)
    update: float | None = None
    lr: float = math.nan
    error: Exception | None = None
    model: nn.Module | None = None

    @property
    def failed(self) -> bool:
        """Whether it broke off."""
        return self.stopped is not None or self.error is not None


def run(
    training: Training,
    steps: int,
    seed: int,
    sample: Sample,
    *,
    evaluation: Batch | None = None,
    mode: bool | None = None,
    keep: bool = False,
    batches: Sequence[Batch] | None = None,
) -> RunResult:
    """Train a new copy for so many steps. mode: training mode or not; None leaves it as the network is."""
    found = RunResult()
    try:
        model = training.new(seed)
        if mode is not None:
            model.train(mode)
        optimizer = training.optimizer.build(model)
        found.lr = learning_rate(optimizer)
        stream = iter(batches) if batches is not None else training.stream(seed)
        look = _Observer(training, sample.batch, evaluation, steps)
        curve = train(
            model, stream, training.loss, optimizer, steps=steps, before_update=look.before, after_update=look.after
        )
        found.losses, found.stopped = curve.losses, curve.stopped
        found.update = statistics.median(look.moved) if look.moved else None
        found.evaluations = look.evaluations
        found.first, found.final = _ends(curve.losses)
        if found.stopped is None:
            found.score = score_of(model, training, sample)
        if keep:
            found.model = model
    except Exception as error:  # a user's code may raise anything
        found.error = error
    return found


class _Observer:
    """Looks at a run from within: how far some steps move the weights, and the losses in evaluation mode."""

    def __init__(self, training: Training, sample: Batch, evaluation: Batch | None, steps: int) -> None:
        self._training, self._sample, self._evaluation, self._steps = training, sample, evaluation, steps
        self._every = max(1, steps // 10)
        self._before: list[Tensor] = []
        self.moved: list[float] = []
        self.evaluations: list[tuple[int, float, float]] = []

    def before(self, step: int, model: nn.Module, _: torch.optim.Optimizer) -> None:
        """Keep the weights at a few steps."""
        if step in (2, 5, 10, 20, 40, 80):
            self._before = [p.detach().clone() for p in model.parameters() if p.requires_grad]

    def after(self, step: int, model: nn.Module, _: torch.optim.Optimizer) -> None:
        """|update| / |weights| over all parameters; losses ten times in a run."""
        if self._before:
            now = [p.detach() for p in model.parameters() if p.requires_grad]
            change = math.fsum(float((a - b).double().square().sum()) for a, b in zip(now, self._before, strict=True))
            size = math.fsum(float(b.double().square().sum()) for b in self._before)
            self.moved.append(math.sqrt(change / size) if size else math.inf)
            self._before = []
        if self._evaluation is not None and (step % self._every == 0 or step == self._steps):
            train, test = (mean_loss(model, self._training, batch) for batch in (self._sample, self._evaluation))
            self.evaluations.append((step, train, test))


def _ends(losses: Sequence[float]) -> tuple[float, float]:
    """The mean loss of the first and the last tenth of the steps, of five at least where there are as many."""
    if not losses:
        return math.nan, math.nan
    n = min(len(losses), max(5, len(losses) // 10))
    return statistics.fmean(losses[: max(1, n // 5)]), statistics.fmean(losses[-n:])


def mean_loss(model: nn.Module, training: Training, batch: Batch) -> float:
    """The loss on a batch in evaluation mode; the mode comes back."""
    with evaluating(model), torch.no_grad():
        here = batch.to(_device(model))
        return float(value_of(training.loss, call(model, here), here))


def score_of(model: nn.Module, training: Training, sample: Sample) -> float | None:
    """See RunResult.score."""
    if not sample.paired:
        return None
    batch = training.change(sample.batch) if training.change else sample.batch
    with evaluating(model), torch.no_grad():
        here = batch.to(_device(model))
        try:
            outputs = main_output(call(model, here))
        except FaninError:
            return None
    return score(outputs.detach().cpu(), sample.targets, scale_free=sample.scale_free)


def score(outputs: Tensor, targets: Targets, *, scale_free: bool = False) -> float | None:
    """How much of the targets these outputs tell, whatever loss they were trained by; None where that is not known."""
    y = targets.tensor
    if y is None or not outputs.is_floating_point():
        return None
    z = outputs.double()
    # minus infinity is the logarithm of an impossible class
    if bool(z.isnan().any()) or (targets.kind == "real" and bool(z.isinf().any())):
        return 0.0
    if targets.kind == "real":
        return (_correlated if scale_free else _explained)(z, y.double())
    if z.dim() > y.dim() and len(z) == len(y) and z.shape[1] > 1:
        axes = {axis for axis in (1, z.dim() - 1) if z.argmax(axis).shape == y.shape}
        found = [_balanced(z.argmax(axis)[known], y[known]) for axis in axes if (known := _known(y, z, axis)).any()]
    elif z.numel() == y.numel() and targets.distinct <= 2:  # one logit, or one probability
        high = (y == y.max()).long().flatten()
        found = [_balanced((z.flatten() > cut).long(), high) for cut in (0.0, 0.5)]
    else:
        return None
    return max((f for f in found if f is not None), default=None)


def _explained(z: Tensor, y: Tensor) -> float | None:
    """The share of the targets' variance by column that outputs explain."""
    if z.numel() != y.numel():
        return None
    z, y = z.reshape(len(y), -1), y.reshape(len(y), -1)
    whole = (y - y.mean(0)).square().sum()
    return max(0.0, 1 - float((y - z).square().sum() / whole)) if float(whole) > 0 else None


def _correlated(z: Tensor, y: Tensor) -> float | None:
    """The same of the best affine function of each output: the squared correlation, weighted by the variance."""
    if z.numel() != y.numel():
        return None
    z, y = z.reshape(len(y), -1), y.reshape(len(y), -1)
    z, y = z - z.mean(0), y - y.mean(0)
    told = ((z * y).sum(0).square() / z.square().sum(0).clamp_min(1e-300)).sum()
    whole = float(y.square().sum())
    return float(told) / whole if whole > 0 else None


def _known(y: Tensor, z: Tensor, axis: int) -> Tensor:
    """Where targets are classes of these outputs, and not a mark of what the loss ignores, such as -100."""
    return (y >= 0) & (y < z.shape[axis])


def _balanced(guess: Tensor, y: Tensor) -> float | None:
    """(mean over classes of the share that is right - 1 / C) / (1 - 1 / C), 0 if that is negative; None for C = 1."""
    classes = y.unique()
    if len(classes) < 2:
        return None
    right = torch.stack([(guess[y == c] == c).double().mean() for c in classes]).mean()
    return max(0.0, (float(right) - 1 / len(classes)) / (1 - 1 / len(classes)))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module's own mode is back."""
    modes = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def constant_loss(training: Training, outputs: Any, sample: Sample, *, steps: int = 60) -> float | None:
    """min over c of loss(c for every example, targets): what a network reaches that has learnt nothing.

    outputs: of the network, for their structure and shape. Found by LBFGS over the one row c, begun at the first row
    of the outputs and at 0; a row that is a distribution, or the logarithm of one, stays one. None where there is no
    such number: the outputs are several tensors, or the loss cannot be asked.
    """
    z = main_output(outputs).detach()
    batch = sample.batch.to(z.device)
    if like(outputs, z) is None or not z.dim() or not len(z) or not z.is_floating_point():
        return None
    z = z.float() if z.dtype.itemsize < 4 else z  # LBFGS's differences vanish in half precision
    allowed = _distribution(z)

    def loss_of(point: Tensor) -> Tensor:
        same = allowed(point).expand(batch.size, *z.shape[1:])
        return value_of(training.loss, like(outputs, same), batch)

    try:
        found = [_least(loss_of, begin, steps) for begin in (z[:1].clone(), torch.zeros_like(z[:1]))]
    except Exception:  # the loss wants more than the one tensor
        return None
    return min((value for value in found if math.isfinite(value)), default=None)


def _least(loss_of: Callable[[Tensor], Tensor], begin: Tensor, steps: int) -> float:
    """What LBFGS reaches from there."""
    point = begin.nan_to_num(0.0, 0.0, 0.0).requires_grad_()
    optimizer = torch.optim.LBFGS([point], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss_of(point)
        value.backward()
        return value

    optimizer.step(cast(Any, closure))
    with torch.no_grad():
        return float(loss_of(point))


def _distribution(z: Tensor) -> Callable[[Tensor], Tensor]:
    """What keeps a row among those that a network ending in a softmax, or its logarithm, can give; else nothing."""
    for axis in {1, z.dim() - 1} - {0} if z.dim() > 1 else ():
        if bool(((z.double().exp().sum(axis) - 1).abs() < 1e-3).all()):
            return partial(torch.log_softmax, dim=axis)
        if z.shape[axis] > 1 and bool((z >= 0).all()) and bool(((z.double().sum(axis) - 1).abs() < 1e-3).all()):
            return partial(torch.softmax, dim=axis)
    return lambda row: row
