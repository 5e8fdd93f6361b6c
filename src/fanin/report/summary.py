"""One study's results, computed once: what the table, the charts, the page and the JSON all show."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from fanin.record import Record
from fanin.report.answers import Asked, answer, asked_of
from fanin.report.measures import Measure, metrics, signal_bands
from fanin.report.reproduction import compare
from fanin.report.results import CURVES, ArmSummary, StudySummary, TrialOutcome
from fanin.report.trials import BySeed, SeedCurves, Trials
from fanin.report.words import outcome
from fanin.statistics import Difference, paired_difference, success_rate
from fanin.store import Store, StoredStudy
from fanin.study import Arm, Study


def summarize(stored: StoredStudy, store: Store) -> StudySummary:
    """Everything that is reported of one study, from its definition and its trials in the store.

    Arms are read one after the other, and of each only what is reported is kept: at 3 epochs 0.3 kB a trial.
    """
    study = stored.study
    arms: list[ArmSummary] = []
    asked: dict[str, Asked] = {}
    seconds: list[np.ndarray] = []
    environments: dict[str, Mapping[str, object]] = {}
    for arm in study.arms:
        trials = Trials.of(store.columns(study, arm.name))
        arms.append(_arm(arm, study, trials, stored.data, arms[0] if arms else None))
        asked[arm.name] = asked_of(arm.name, study.questions, trials, arms[-1].comparison)
        seconds.append(np.array([head.seconds for head in trials.heads]))
        environments |= _environments(trials.heads)
    return StudySummary(
        study=study,
        data=stored.data,
        arms=tuple(arms),
        answers=tuple(answer(q, study, asked, {arm.name: arm.comparison for arm in arms}) for q in study.questions),
        seconds=sum(itertools.chain.from_iterable(part.tolist() for part in seconds)),
        environments=tuple(environments.values()),
    )


def _arm(arm: Arm, study: Study, trials: Trials, data: Mapping[str, object], first: ArmSummary | None) -> ArmSummary:
    results = np.flatnonzero(~trials.failed)
    accuracy = metrics(trials, "accuracy")
    successes = int((accuracy.numbers >= study.success_accuracy).sum())
    return ArmSummary(
        arm=arm,
        planned=study.seeds,
        n=len(results),
        statuses=Counter(head.status for head in trials.heads),
        troubles=tuple(_outcome(head) for head in trials.heads if head.status != "done"),
        seconds=sum(head.seconds for head in trials.heads),
        success=success_rate(successes, len(results)) if len(results) else None,
        accuracy=Measure.of(accuracy),
        accuracy_on_raw_pixels=Measure.of(metrics(trials, "accuracy_on_raw_pixels")),
        test_loss=Measure.of(metrics(trials, "test_loss")),
        train_cost=Measure.of(metrics(trials, "train_cost")),
        seeds=tuple(trials.seeds[results].tolist()),
        curves={name: _curves(trials, name, results) for name in CURVES},
        signal=signal_bands(trials),
        comparison=compare(arm, trials, data),
        difference=_against(accuracy, first.accuracy.values, len(study.arms) - 1) if first else None,
        trainable_depth=next((h.trainable_depth for h in trials.heads if h.trainable_depth is not None), None),
    )


def _curves(trials: Trials, name: str, results: np.ndarray) -> SeedCurves:
    values = trials.curves[name]
    whole = len(results) == len(values)  # the usual case, without a copy
    return SeedCurves(values if whole else values[results], trials.lengths[results])


def _outcome(head: Record) -> TrialOutcome:
    return TrialOutcome(seed=head.seed, status=head.status, words=outcome(head))


def _environments(heads: Iterable[Record]) -> dict[str, Mapping[str, object]]:
    """The distinct environments by their texts; trials that ran alike share one object."""
    found = {id(head.environment): head.environment for head in heads if head.environment}
    return {repr(environment): environment for environment in found.values()}


def _against(mine: BySeed, first: BySeed, comparisons: int) -> Difference | None:
    ours, theirs = mine.paired(first)
    return paired_difference(ours, theirs, comparisons=comparisons) if ours else None
