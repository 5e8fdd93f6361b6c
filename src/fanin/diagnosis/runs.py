"""Short runs: the user's own training, and the same with one thing changed; how well each has learnt the task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fanin.diagnosis.sample import Sample, Targets
from fanin.errors import FaninError
from fanin.training import Batch, Training, train
from fanin.training.losses import call, main_output, targets_of, value_of
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
    y, z = targets.tensor, outputs.double()
    if y is None or not outputs.is_floating_point():
        return None
    if not bool(torch.isfinite(z).all()):
        return 0.0
    if targets.kind == "real":
        return (_correlated if scale_free else _explained)(z, y.double())
    if z.dim() > y.dim() and len(z) == len(y) and z.shape[1] > 1:
        axes = {axis for axis in (1, z.dim() - 1) if z.argmax(axis).shape == y.shape}
        found = [_balanced(z.argmax(axis).flatten(), y.flatten()) for axis in axes]
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


def _balanced(guess: Tensor, y: Tensor) -> float | None:
    classes = y.unique()
    if len(classes) < 2:
        return None
    right = torch.stack([(guess[y == c] == c).double().mean() for c in classes]).mean()
    return max(0.0, (float(right) - 1 / len(classes)) / (1 - 1 / len(classes)))


class evaluating:  # noqa: N801 - a context manager, used as a function
    """Evaluation mode; afterwards every module's own mode is back."""

    def __init__(self, model: nn.Module) -> None:
        self._modes = [(m, m.training) for m in model.modules()]
        self._model = model

    def __enter__(self) -> None:
        self._model.eval()

    def __exit__(self, *_: Any) -> None:
        for module, mode in self._modes:
            module.training = mode


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def constant_loss(training: Training, outputs: Tensor, sample: Sample, *, steps: int = 60) -> float | None:
    """The least loss of outputs that are the same for every example: what a network reaches that has learnt nothing.

    Found by LBFGS over the one output row; None where the loss cannot be asked (it wants more than one tensor).
    """
    batch = sample.batch
    y = targets_of(batch)
    row = outputs.detach()[:1].double().mean(0, keepdim=True) if outputs.dim() > 1 else outputs.detach()[:1].double()
    best = math.inf
    for begin in (row, torch.zeros_like(row)):
        point = begin.clone().to(outputs.dtype).requires_grad_()
        optimizer = torch.optim.LBFGS([point], max_iter=steps, line_search_fn="strong_wolfe")

        def closure(point: Tensor = point, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            shape = (batch.size, *outputs.shape[1:])
            value = training.loss(point.expand(shape), y)
            value.backward()
            return value

        try:
            optimizer.step(closure)
            with torch.no_grad():
                value = float(training.loss(point.expand(batch.size, *outputs.shape[1:]), y))
        except Exception:  # the loss wants what the network gives, such as a tuple: there is no such number
            return None
        if math.isfinite(value):
            best = min(best, value)
    return best if math.isfinite(best) else None
