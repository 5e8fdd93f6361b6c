"""Evidence: all that the checks may look at, and experiments that are made when one of them first asks.

A threshold on a symptom flags healthy networks; so a cause is held against an experiment wherever there can be one: the
same training, from the same weights on the same batches, with that one thing changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from fanin.diagnosis import passes
from fanin.diagnosis.experiments import adam, rate, references, standardized_targets
from fanin.diagnosis.runs import RunResult, constant_loss, mean_loss, run
from fanin.diagnosis.sample import Sample, targets_in
from fanin.diagnosis.start import Start, Units, first_pass
from fanin.errors import FaninError
from fanin.training import Batch, Training
from fanin.training.losses import targets_of

GOOD = 0.8  # a score from which nobody would ask why it does not train
SHARE = 0.6  # of what is attainable, that a training which is well set reaches at least
CLEAR = 0.15  # a difference of scores that is not one of batches


@dataclass
class Evidence:
    """What is known of a training.

    model: as it was given; sample, evaluation: parts of the data; start: its first batch; steps: of a short run, 0 for
    none; epochs: how many are planned, if that is known.
    """

    model: nn.Module
    training: Training
    sample: Sample
    evaluation: Sample | None
    start: Start
    steps: int
    seed: int
    epochs: int | None = None
    batches: list[Batch] | None = None
    _runs: dict[str, RunResult] = field(default_factory=dict)

    def experiment(
        self,
        name: str,
        change: Callable[[Training], Training],
        *,
        steps: int | None = None,
        mode: bool | None = True,
        evaluated: bool = False,
    ) -> RunResult:
        """The training with one thing changed, once for each name; evaluated: on evaluation data too, as it goes."""
        if name not in self._runs:
            evaluation = self._evaluation if evaluated else None
            self._runs[name] = self._changed(change, steps or self.steps, mode, evaluation)
        return self._runs[name]

    def _changed(
        self, change: Callable[[Training], Training], steps: int, mode: bool | None, evaluation: Batch | None
    ) -> RunResult:
        try:
            changed = change(self.training)
        except (FaninError, ValueError, TypeError, RuntimeError) as error:  # what does not apply here tells nothing
            return RunResult(error=error)
        same = changed.batches is self.training.batches and changed.change is None and steps <= self.steps
        batches = self.batches if same else None
        return run(changed, steps, self.seed, self.sample, mode=mode, batches=batches, evaluation=evaluation)

    @property
    def experiments(self) -> dict[str, RunResult]:
        """Those that were made, by name."""
        return dict(self._runs)

    @cached_property
    def run(self) -> RunResult:
        """The user's own training for `steps` steps, in the mode in which the network was given."""
        return run(
            self.training,
            self.steps,
            self.seed,
            self.sample,
            evaluation=self._evaluation,
            keep=True,
            batches=self.batches,
        )

    @property
    def _evaluation(self) -> Batch | None:
        """Evaluation data that the network and the loss accept."""
        return self.evaluation.batch if self.evaluation is not None and self.evaluation_error is None else None

    @cached_property
    def evaluation_error(self) -> Exception | None:
        """What the network or the loss raises on some evaluation data, of which as many are tried as a batch has."""
        if self.evaluation is None or self.start.error is not None:
            return None
        batch = passes.examples(self.evaluation.batch, 0, self.start.batch.size).to(self.device)
        return passes.error_in_evaluation(self.model, self.training.loss, batch)

    @cached_property
    def evaluation_mode_error(self) -> Exception | None:
        """What the network in evaluation mode, or the loss, raises on the first batch of training data."""
        return passes.error_in_evaluation(self.model, self.training.loss, self.start.batch)

    @cached_property
    def baseline(self) -> float | None:
        """The least loss of outputs that do not depend on the inputs."""
        if self.start.output is None:
            return None
        return constant_loss(self.training, self.start.outputs, self.sample)

    def quality(self, result: RunResult) -> float:
        """0: as a constant; 1: the whole task. By the score where there is one, else by the loss below the baseline."""
        if result.failed:
            return 0.0
        if result.score is not None and self.scored:
            return result.score
        return self._below_baseline(result.first, result.final)

    def _below_baseline(self, first: float, now: float) -> float:
        """(b - now) / |b| within [0, 1]; b: a constant's loss, the first where that is as good as can be."""
        base = self.baseline
        base = first if base is None or abs(base) < 1e-9 * max(abs(first), 1.0) else base
        return min(1.0, max(0.0, (base - now) / abs(base))) if base and math.isfinite(now) else 0.0

    @cached_property
    def scored(self) -> bool:
        """Whether the score measures what the loss asks for.

        It does not where outputs score next to nothing though, on the same examples in the same mode, their loss is
        less than half of what any constant has: outputs then speak of the targets in a way that only the loss knows
        (thresholds of ordinal classes, logarithms, alignments).
        """
        run = self.run
        if run.score is None or run.score >= CLEAR or run.failed or run.model is None:
            return True
        try:
            now = mean_loss(run.model, self.training, self.sample.batch)
        except Exception:  # it wants batches of one size
            return True
        return self._below_baseline(run.first, now) < 0.5

    @cached_property
    def learnt(self) -> float:
        """The quality of the user's own run."""
        return self.quality(self.run)

    @cached_property
    def attainable(self) -> float:
        """The best quality of some usual ways to train the same network on the same data for as many steps."""
        if self.learnt >= GOOD and not self.run.failed:
            return self.learnt
        made = [self.experiment(name, change) for name, change in references(self.sample).items()]
        made += [self.standard_targets] if self.standard_targets else []
        return max([self.learnt, *map(self.quality, made)])

    @cached_property
    def standard_targets(self) -> RunResult | None:
        """The same with standardised targets, where they are real numbers other than the inputs."""
        y = self.sample.targets
        if y.kind != "real" or y.like_inputs or not y.std:
            return None
        return self.experiment("targets standardised", standardized_targets)

    @cached_property
    def prospect(self) -> float:
        """The quality to be expected after all planned steps.

        n steps at f times the rate do about what f n steps do at the rate itself; so a run that is stable is given the
        best quality of rates up to planned / n times its own; if that is little, it goes on at its own rate.
        """
        if self.epochs is not None and self.planned < self.steps:
            return self.quality(self.experiment("as planned", lambda t: t, steps=self.planned, mode=None))
        if self.run.failed or self.learnt >= GOOD:
            return self.learnt
        within = [f for f in (10, 100) if f * self.steps <= self.planned]
        found = max([self.learnt, *(self.quality(self.experiment(f"lr x {f}", rate(f))) for f in within)])
        if self._falls_short(found) and self.planned > self.steps:  # where a larger rate does not do, more steps may
            longer = min(self.planned, 10 * self.steps)
            found = max(found, self.quality(self.experiment("longer", lambda t: t, steps=longer, mode=None)))
        return found

    @cached_property
    def struggles(self) -> bool:
        """Whether the user's run will have learnt clearly less than it could have: the gate of all mere symptoms."""
        if not self.steps:
            return False
        if self.run.failed:
            return True
        return self._falls_short(self.prospect)

    def _falls_short(self, quality: float) -> bool:
        return quality < SHARE * self.attainable and self.attainable - quality > CLEAR

    @cached_property
    def lags(self) -> bool:
        """Whether its short run alone has learnt clearly less: enough where a cause is plain to see already."""
        if not self.steps:
            return False
        return self.run.failed or self._falls_short(self.learnt)

    @cached_property
    def hopeless(self) -> bool:
        """Whether it has learnt next to nothing, and no usual way to train does either."""
        return bool(self.steps) and self.prospect < CLEAR and self.attainable < 2 * CLEAR

    @property
    def troubled(self) -> bool:
        """Struggles, or hopeless: something is wrong with it."""
        return self.struggles or self.hopeless

    @property
    def paired(self) -> bool:
        """Whether one tensor of outputs stands against one tensor of targets: what wiring is judged by."""
        return self.sample.paired

    @cached_property
    def outputs(self) -> int:
        """Numbers that the network gives for an example."""
        z = self.start.output
        return max(1, z.numel() // max(1, len(z))) if z is not None and z.dim() else 1

    @property
    def planned(self) -> int:
        """Steps that the user will take: of the planned epochs, or else of twenty, a thousand at least."""
        per_epoch = self.training.batches.steps or self.steps
        return per_epoch * self.epochs if self.epochs else max(1000, 20 * per_epoch)

    @cached_property
    def device(self) -> torch.device:
        """The model's."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @cached_property
    def _calls(self) -> list[tuple[str, nn.Module]]:
        """The modules that ran on the first batch, by their paths, in their order."""
        return passes.modules_called(self.model, self.start.batch)

    @cached_property
    def called(self) -> frozenset[str]:
        """Paths of all modules that ran."""
        return frozenset(name for name, _ in self._calls)

    @cached_property
    def last_called(self) -> tuple[str, nn.Module] | None:
        """The module without children that ran last."""
        leaves = [(name, part) for name, part in self._calls if not any(True for _ in part.children())]
        return leaves[-1] if leaves else None

    @cached_property
    def drops_in_evaluation(self) -> bool:
        """Whether a function of dropout is called with training=True while every module is in evaluation mode."""
        return passes.drops_in_evaluation(self.model, self.start.batch)

    @cached_property
    def mixes_examples(self) -> bool:
        """Whether, in evaluation mode, an example's outputs depend on the other examples of its batch."""
        return passes.mixes_examples(self.model, self.start.batch)

    @cached_property
    def one_batch(self) -> float | None:
        """How well Adam, at 1e-3 or 1e-2, learns the first batch alone by heart; None without a score."""
        if not self.steps or not self.scored:
            return None
        batch, steps = self.start.batch, 2 * self.steps
        only = Sample(batch, self.sample.inputs, targets_in(targets_of(batch), batch.first))
        changed = [adam(self.training, lr) for lr in (1e-3, 1e-2)]
        found = [run(t, steps, self.seed, only, mode=True, batches=[batch] * steps).score for t in changed]
        known = [score for score in found if score is not None]
        return max(known) if known else None

    @cached_property
    def units_after(self) -> list[Units]:
        """What nonlinear operations do on the first batch after the user's run."""
        if not self.steps or self.run.model is None:
            return []
        return first_pass(self.run.model, self.start.batch, self.training.loss).units


def percent(quality: float) -> str:
    """`87 %`."""
    return f"{100 * quality:.0f} %"
