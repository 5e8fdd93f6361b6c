"""watch: look at a real training at every k-th step of its optimiser, without touching it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from fanin.diagnosis.watch.account import as_dict, as_text
from fanin.diagnosis.watch.hooks import Ear, Hooks, blind_spots, first_not_finite
from fanin.diagnosis.watch.judge import at_the_end, not_finite, on_the_way, without_parameters
from fanin.diagnosis.watch.streams import Seen
from fanin.diagnosis.watch.weights import Weights
from fanin.errors import FaninError
from fanin.finding import Finding
from fanin.training import untouched
from fanin.training.callers import users_level
from fanin.training.wrappers import bare, needs_others, unparallel, unwrapped_optimizer

_PENDING = 256  # losses on a card that wait for the next look


class DiagnosisWarning(UserWarning):
    """What fanin.watch found while a network trains; the message is the finding's evidence and remedy."""


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    every: int = 50,
    loss: nn.Module | None = None,
    scaler: Any = None,
    on_finding: Callable[[Finding], None] | None = None,
) -> Watch:
    """A context manager around any training loop: every k-th optimiser step is looked at, findings come as they arise.

        with fanin.watch(model, optimizer, loss=criterion) as w:
            for x, y in loader: ...
        print(w)

    Kept of each layer: E[h^2] of what it puts out, E[g^2] of the loss's gradient by it, units that are zero throughout,
    the share of saturated entries, and |update| / |weights|; all means over looks, in memory that does not grow.
    every: steps from look to look; the others cost three calls of short hooks. loss: the criterion's module, whose
    results are then seen; or tell the loss by w.loss(value); a closure's result and an output's `.loss` are seen too.
    Without the loss, symptoms stay unjudged. scaler: a GradScaler, whose scale is divided out. on_finding: called with
    each finding once, in place of a DiagnosisWarning.

    A step is one of the optimiser's, however many passes it gathers; passes without gradients are left out. What is
    not finite is told at that step (on a card at the next look, for asking it would halt it). Afterwards no hook is
    left, also after an error; numbers, random states and results of the training are those without it.
    ValueError for every < 1, FaninError for what is no module or optimiser.
    Use it on runs too long for fanin.diagnose, and where the loop is not yours (Lightning, Accelerate).
    """
    return Watch(model, optimizer, every=every, loss=loss, scaler=scaler, on_finding=on_finding)


class Watch:
    """A training that is watched; see fanin.watch. findings: so far, in the order in which they arose."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        every: int = 50,
        loss: nn.Module | None = None,
        scaler: Any = None,
        on_finding: Callable[[Finding], None] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise FaninError(f"watch, model: expected an nn.Module; got {type(model).__name__}")
        if every < 1:
            raise ValueError(f"watch, every: expected at least 1; got {every}")
        self._model, self._optimizer = model, _plain(optimizer)
        self._criterion, self._scaler, self._tell = loss, scaler, on_finding
        self.findings: list[Finding] = []
        self._seen = Seen(every=every, order_matters=_has_modes(model))
        self._notes: dict[str, None] = dict.fromkeys(blind_spots(model))
        self._hooks = Hooks(unparallel(model), self._seen, self._scale, self._complain)
        self._weights = Weights(bare(model), self._seen)
        self._handles: list[Any] = []
        self._losses: list[Any] = []  # of the step that is under way
        self._waiting: list[Tensor] = []  # of steps that are done, on a card
        self._last: tuple[Any, Any, tuple[bool, torch.dtype]] | None = None
        self._looking = self._entered = False

    def __enter__(self) -> Self:
        if self._entered:
            raise FaninError("watch: expected to be entered once; make another one for another run")
        self._entered = True
        if self._weights.names and not self._weights.held_by(self._optimizer):
            self._found(without_parameters())
        self._handles = [
            self._optimizer.register_step_pre_hook(self._before),
            self._optimizer.register_step_post_hook(self._after),
        ]
        if getattr(self._model, "_compiled_call_impl", None) is None:  # else the hook would be compiled with the rest
            self._handles.append(self._model.register_forward_hook(Ear(self._called), with_kwargs=True))
        if self._criterion is not None:
            self._handles.append(self._criterion.register_forward_hook(Ear(self._judged)))
        self._look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.detach()
        for handle in self._handles:
            handle.remove()
        self._handles, self._last = [], None
        self._settle()
        if kind is None and not any(f.cause == "non-finite" for f in self.findings):
            for finding in (*on_the_way(self._seen), *at_the_end(self._seen)):
                self._found(finding)

    def loss(self, value: Tensor | float) -> None:
        """Tell the loss of a pass; of several in one step the mean counts."""
        self._losses.append(value.detach() if isinstance(value, Tensor) else float(value))

    @property
    def steps(self) -> int:
        """Steps of the optimiser so far."""
        return self._seen.steps

    @property
    def unseen(self) -> tuple[str, ...]:
        """What could not be looked at, in words."""
        notes = dict(self._notes)
        if self._seen.steps and not self._seen.losses.steps:
            notes["the loss: pass loss=criterion, or call w.loss(value); without it symptoms are not judged"] = None
        if self._seen.looks:
            for name in self._hooks.weighted:
                if name not in self._hooks.called:
                    notes[f"{name or 'the network'}: has weights, but was not called as a module"] = None
        return tuple(notes)

    def to_dict(self) -> dict[str, Any]:
        """As plain data: findings, what was looked at, a thinned loss curve, a row for every layer and parameter."""
        return as_dict(self._seen, self.findings, self.unseen)

    def __str__(self) -> str:
        return as_text(self._seen, self.findings, self.unseen)

    def _repr_html_(self) -> str:
        from fanin.report.diagnosis import table

        return table(self.to_dict())

    def _scale(self) -> float:
        """What gradients are multiplied by on their way back."""
        return float(self._scaler.get_scale()) if self._scaler is not None else 1.0

    def _complain(self, words: str) -> None:
        if len(self._notes) < 100:
            self._notes[words] = None

    def _called(self, _: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A pass of the whole network: keep what it was given until the next, to ask again where it breaks."""
        if not torch.is_grad_enabled():
            return
        device = next((t.device.type for t in args if isinstance(t, Tensor)), "cpu")
        self._last = (args, kwargs, (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)))
        if not isinstance(output, Tensor):
            found = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
            if isinstance(found, Tensor) and found.numel() == 1 and self._criterion is None:
                self.loss(found)

    def _judged(self, _: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled() and isinstance(output, Tensor) and output.numel() == 1:
            self.loss(output)

    def _before(self, _: Any, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Before the step; one with a closure computes its gradients only now, so that is where to look."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(closure):
            self._graded()
            return None
        told, told_before = False, bool(self._losses)

        def watched() -> Any:
            nonlocal told
            value = closure()
            if not told:  # LBFGS asks many times in a step
                told = True
                if not told_before and not self._losses and isinstance(value, Tensor | float):
                    self.loss(value)
                self._graded()
            return value

        return ((args[0], watched, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": watched})

    def _graded(self) -> None:
        """Gradients are there, weights have not moved."""
        if (self._looking or self._weights.on_cpu) and self._weights.broken():
            self._broken()
        if self._looking:
            with self._forgiven("gradients"):
                fused = getattr(self._optimizer, "grad_scale", None)  # a fused optimiser unscales in its own step
                self._weights.graded(float(fused) if isinstance(fused, Tensor) else 1.0)

    def _after(self, *_: Any) -> None:
        """The step is done."""
        seen = self._seen
        seen.steps += 1
        self._settle()
        if self._looking:
            with self._forgiven("updates"):
                self._weights.moved()
            self._hooks.detach()
            self._looking = False
            seen.looks += 1
            seen.evaluation_mode += not self._model.training
            rates = (float(g["lr"]) for g in self._optimizer.param_groups if "lr" in g)
            seen.lrs = [*seen.lrs[-1:], max(rates, default=math.nan)]
            for finding in on_the_way(seen):
                self._found(finding)
        if seen.steps % seen.every == 0:
            self._look()

    def _look(self) -> None:
        self._looking = True
        self._hooks.attach()

    def _settle(self) -> None:
        """The losses of the step that has ended; on a card they wait for a look, for asking one would halt it."""
        if self._losses:
            values, self._losses = self._losses, []
            told = values[0] if len(values) == 1 else sum(values) / len(values)
            if isinstance(told, Tensor) and told.device.type != "cpu":
                self._waiting.append(told)
            else:
                self._add(float(told))
        if self._waiting and (self._looking or not self._handles or len(self._waiting) >= _PENDING):
            waiting, self._waiting = self._waiting, []
            for value in torch.stack([t.reshape(()).float() for t in waiting]).tolist():
                self._add(value)

    def _add(self, value: float) -> None:
        self._seen.losses.add(value)
        if not math.isfinite(value):
            self._broken(value)

    def _broken(self, loss: float | None = None) -> None:
        """Something is not finite: say at which step, and in which layer if that can be told; once."""
        if any(f.cause == "non-finite" for f in self.findings):
            return
        weight, gradient = self._weights.not_finite()
        asked, layer = (False, None) if weight else self._asked_again()
        step = self._seen.losses.steps if loss is not None else self._seen.steps + 1
        self._found(not_finite(step, loss, weight, layer, gradient, asked=asked))

    def _asked_again(self) -> tuple[bool, str | None]:
        """The first layer whose output is not finite, by passing the last batch once more; and whether that was done.

        No trace of it is left.
        """
        if self._last is None:
            return False, None
        args, kwargs, (cast, dtype) = self._last
        model = bare(self._model)
        if needs_others(model):  # who may have no such batch, and would be waited for
            self._complain("the batch that broke: passing it once more would need all processes")
            return False, None
        device = next((t.device.type for t in args if isinstance(t, Tensor)), "cpu")
        try:
            with untouched(model, parameters=False), torch.autocast(device, dtype=dtype, enabled=cast):
                return True, first_not_finite(model, lambda: model(*args, **kwargs))
        except Exception as error:  # watching must never end a training
            self._complain(f"the batch that broke could not be passed once more: {type(error).__name__}: {error}")
            return False, None

    @contextmanager
    def _forgiven(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # watching must never end a training
            self._complain(f"{what}: {type(error).__name__} while they were looked at: {error}")

    def _found(self, finding: Finding) -> None:
        """Tell a finding, each cause once (the first layer in which it arose)."""
        if any(known.cause == finding.cause for known in self.findings):
            return
        self.findings.append(finding)
        if self._tell is not None:
            self._tell(finding)
        else:
            where = f" in {finding.layer}" if finding.layer else ""
            words = f"{finding.cause}{where}: {finding.evidence}. Remedy: {finding.remedy}"
            warnings.warn(words, DiagnosisWarning, stacklevel=users_level())


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """The optimiser of torch's that Accelerate's and Lightning's wrappers hold."""
    optimizer = unwrapped_optimizer(optimizer)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise FaninError(f"watch, optimizer: expected one of torch.optim's; got {type(optimizer).__name__}")
    return optimizer


def _has_modes(model: nn.Module) -> bool:
    norm, drop = nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd
    return any(isinstance(m, norm | drop) for m in model.modules())
