"""lr_find: the learning-rate range test, over several seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fanin.errors import FaninError
from fanin.report.words import count
from fanin.training import Batch, Training, alone, train, untouched
from fanin.training.optimizers import learning_rate
from fanin.training.randomness import seed_all

_MEMORY = 0.8  # of the smoothed loss
_DIVERGED = 4.0  # times as far above the least smoothed loss as the first one is
_LEARNT = 0.02  # share of the first loss by which it must fall for a rate to be suggested
_FRACTION = 0.1  # of the rate at the least loss


@dataclass(frozen=True)
class RangeTest:
    """One seed's test. losses: smoothed, after a step at each rate, until it diverged; suggestion: a rate, or None."""

    seed: int
    losses: tuple[float, ...]
    suggestion: float | None
    diverged: bool


@dataclass(frozen=True)
class LearningRates:
    """What fanin.lr_find found; print it, or read its fields.

    rates: those that were tried. tests: one for each seed. suggestion: the median over seeds, None where the loss fell
    for fewer than half of them; low, high: the least and the largest of any seed. lr: the optimiser's own. loss,
    optimizer: what was used.
    """

    rates: tuple[float, ...]
    tests: tuple[RangeTest, ...]
    suggestion: float | None
    low: float | None
    high: float | None
    lr: float | None
    loss: str
    optimizer: str

    @classmethod
    def of(cls, rates: Sequence[float], tests: Sequence[RangeTest], lr: float, words: tuple[str, str]) -> LearningRates:
        """The suggestions put together."""
        found = [test.suggestion for test in tests if test.suggestion is not None]
        enough = 2 * len(found) >= len(tests)
        middle = math.exp(statistics.fmean(sorted(map(math.log, found))[(len(found) - 1) // 2 : len(found) // 2 + 1])) \
            if enough else None  # fmt: skip
        ends = (min(found), max(found)) if enough else (None, None)
        return cls(tuple(rates), tuple(tests), middle, *ends, lr if math.isfinite(lr) else None, *words)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [self.words, f"loss: {self.loss}", f"optimiser: {self.optimizer}"]
        if self.lr is not None and self.suggestion is not None:
            lines[2] += f", lr = {self.lr:g}{self._against()}"
        return "\n".join(lines)

    @property
    def words(self) -> str:
        """The suggestion in a sentence."""
        diverged = [test for test in self.tests if test.diverged]
        where = f"from {self.rates[0]:.1e} to {self.rates[-1]:.1e}, {count(len(self.tests), 'seed')}"
        if self.suggestion is None:
            return f"lr: no suggestion ({where}): the loss fell at no rate; see fanin.diagnose"
        spread = f" (from {self.low:.1e} to {self.high:.1e} over seeds)" if len(self.tests) > 1 else ""
        broke = f"; {len(diverged)} diverged, the first at {self._first(diverged):.1e}" if diverged else ""
        return f"lr = {self.suggestion:.1e}{spread}: a tenth of the rate at which the loss is least, {where}{broke}"

    def _first(self, diverged: Sequence[RangeTest]) -> float:
        """The least rate at which one diverged."""
        return min(self.rates[max(len(test.losses), 1) - 1] for test in diverged)

    def _against(self) -> str:
        """How the optimiser's own rate stands to the suggestion."""
        assert self.lr is not None
        assert self.suggestion is not None
        factor = self.lr / self.suggestion if self.suggestion else math.inf
        if 1 / 10 <= factor <= 10:
            return ": within a factor of ten of the suggestion"
        return f": {factor:.0f} times the suggestion" if factor > 1 else f": {1 / max(factor, 1e-30):.0f} times less"

    def _repr_html_(self) -> str:
        from fanin.report.diagnosis import rates_figure

        return rates_figure(self.to_dict() | {"words": str(self)})


def lr_find(
    model: nn.Module,
    data: Any,
    *,
    loss: Any = None,
    optimizer: Any = None,
    batch_size: int | None = None,
    seeds: int = 5,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
) -> LearningRates:
    """The learning rate at which the loss is least in a test whose rate rises from `low` to `high`, over ten.

    Range test: rate_t = low (high / low)^(t / (steps - 1)), one step of the optimiser at each; the loss is smoothed by
    a mean that forgets a fifth at each step. A seed's suggestion is a tenth of the rate with the least smoothed loss;
    suggested is their median, and `low`, `high` of the result say how far seeds (orders of the data) differ. A test
    ends where the loss has risen four times as far over its least value as it began, or is not finite.

    model, data, loss, optimizer: as fanin.diagnose's; copies are trained, and nothing is left behind. Groups of the
    optimiser keep their rates' ratios. FaninError for LBFGS, which has no such rate, and for rates or steps that make
    no range.
    Use it before tuning, on the loss, data and optimiser that will train. Smith (2017), Cyclical learning rates for
    training neural networks, section 3.3; the tenth is Gugger's (2018), and measured in docs/diagnosis.md.
    """
    if not isinstance(model, nn.Module):
        raise FaninError(f"lr_find, model: expected an nn.Module; got {type(model).__name__}")
    if not (0 < low < high < math.inf):
        raise FaninError(f"lr_find, low and high: expected 0 < low < high; got {low:g} and {high:g}")
    if steps < 10 or seeds < 1:
        raise FaninError(f"lr_find: expected at least 10 steps and 1 seed; got {steps} and {seeds}")
    rates = [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]
    model = alone(model)
    with untouched(model):
        training = Training.of(model, data, loss=loss, optimizer=optimizer, batch_size=batch_size)
        built = training.optimizer.build(training.new(0))
        if isinstance(built, torch.optim.LBFGS) or not math.isfinite(learning_rate(built)):
            raise FaninError(
                "lr_find, optimizer: expected one that takes a step along its learning rate; got "
                f"{type(built).__name__}"
            )
        tests = [_range_test(training, seed, rates) for seed in range(seeds)]
    words = (training.loss_words, training.optimizer.words)
    return LearningRates.of(rates, tests, learning_rate(built), words)


def _range_test(training: Training, seed: int, rates: Sequence[float]) -> RangeTest:
    model = training.new(seed)
    optimizer = training.optimizer.build(model)
    seed_all(seed)  # of dropout
    largest = learning_rate(optimizer)
    shares = [float(group["lr"]) / largest if largest else 1.0 for group in optimizer.param_groups]
    curve = _Smoothed()

    def loss(outputs: Any, targets: Any) -> Tensor:
        value = training.loss(outputs, targets)
        if isinstance(value, Tensor) and value.numel() == 1:
            curve.add(float(value.detach()))
        return value

    def until_diverged() -> Iterator[Batch]:
        for batch in training.stream(seed):
            if curve.diverged:
                return
            yield batch

    def set_rate(step: int, _: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = share * rates[min(step, len(rates)) - 1]

    # one step more than there are rates: the loss after a step at a rate is that of the next batch
    train(model, until_diverged(), loss, optimizer, steps=len(rates) + 1, before_update=set_rate)
    losses = curve.values[1:]
    return RangeTest(seed, tuple(losses), _suggested(rates, curve), curve.diverged)


class _Smoothed:
    """A loss's exponential mean, unbiased: m_t = (0.8 m_(t-1) + 0.2 x_t) / (1 - 0.8^t); and whether it has diverged."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.diverged = False
        self._sum = 0.0

    def add(self, value: float) -> None:
        if not math.isfinite(value):
            self.diverged = True
            return
        self._sum = _MEMORY * self._sum + (1 - _MEMORY) * value
        self.values.append(self._sum / (1 - _MEMORY ** (len(self.values) + 1)))
        first, least = self.values[0], min(self.values)
        self.diverged = self.values[-1] - least > _DIVERGED * max(abs(first), abs(least), 1e-12)


def _suggested(rates: Sequence[float], curve: _Smoothed) -> float | None:
    losses = curve.values[1:]
    if not losses:
        return None
    least = min(range(len(losses)), key=losses.__getitem__)
    if curve.values[0] - losses[least] < _LEARNT * abs(curve.values[0]):
        return None
    return _FRACTION * rates[least]
