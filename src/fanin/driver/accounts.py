"""The accounts of a run: which trials are wanted, how much work is done, what is recorded, what is complete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fanin.datasets import Dataset
from fanin.driver import checkpoints, weights
from fanin.driver.fingerprint import differences, fingerprint
from fanin.driver.messages import Failed, Finished, Place, Task
from fanin.driver.plan import Cohort, distinct, epoch_seconds
from fanin.driver.watcher import Watcher
from fanin.errors import DataError
from fanin.recipe import Trial
from fanin.record import Record
from fanin.store import Store
from fanin.study import Study


@dataclass(frozen=True)
class Run:
    """What a run did.

    ran: trials it trained. failed, diverged: of all trials of its studies. unsaved: trials whose trained parameters
    should have been kept and could not be written; their records are there.
    """

    folder: Path
    ran: int
    failed: int
    diverged: int
    unsaved: int


class Accounts:
    """Knows every trial of a run's studies; the only one that writes records."""

    def __init__(
        self, studies: Sequence[Study], dataset: Dataset, store: Store, watcher: Watcher, keep: frozenset[str]
    ) -> None:
        self._studies, self._dataset, self._store, self._watcher = studies, dataset, store, watcher
        self._keep = keep
        of_study = {study.name: _trials(study, dataset.fingerprint) for study in studies}
        self._open = {name: {trial_id for _, trial_id in trials} for name, trials in of_study.items()}
        self._all = distinct(pair for trials in of_study.values() for pair in trials)
        known = store.finished(trial_id for _, trial_id in self._all)
        weights.sweep(store.folder)
        self._known = {i for i in known if i not in keep or weights.path_of(store.folder, i).is_file()}
        self._fingerprints = {fingerprint(environment) for environment in store.environments()}
        self._code = Path.cwd() if any(arm.recipe.model for study in studies for arm in study.arms) else None
        self._ran, self._unsaved = 0, 0
        self._place: Place | None = None

    def missing(self) -> list[tuple[Trial, str]]:
        """Trials without a result, or without the weights that are to be kept."""
        return [(trial, trial_id) for trial, trial_id in self._all if trial_id not in self._known]

    def begun(self) -> list[list[str]]:
        """Stacks of missing trials that have a check-point; those that can be of no more use are removed first."""
        try:
            self._place = checkpoints.prepare(self._store.folder)
            missing = {trial_id for _, trial_id in self.missing()}
            stacks = checkpoints.sweep(
                self._place, lambda ids: self._store.finished(ids) - missing, self._watcher.noticed
            )
            return [stack for stack in stacks if missing.issuperset(stack)]
        except (DataError, OSError) as error:
            self._place = None
            self._watcher.noticed(f"trials that train for long have no check-points: {error}")
            return []

    def has_checkpoint(self, cohort: Cohort) -> bool:
        """Whether the cohort, tried again as it is, would go on from somewhere."""
        return self._place is not None and checkpoints.exists(self._place, cohort.ids)

    def close(self) -> None:
        """All cohorts have had their end: what check-points still help nobody are removed."""
        if self._place is not None:
            with suppress(OSError):  # the next run does it
                checkpoints.sweep(self._place, self._store.finished, self._watcher.noticed)
                checkpoints.close(self._place)

    def begin(self, cohorts: Sequence[Cohort]) -> None:
        """Tell the watcher what is to come; studies that need nothing are complete at once."""
        trials = sum(len(cohort.trials) for cohort in cohorts)
        self._watcher.planned(sum(map(self._whole, cohorts)), trials, len(self._known))
        self._close(self._known)

    def task(self, cohort: Cohort, path: str) -> Task:
        """What a worker is told about a cohort."""
        keep = self._keep & frozenset(cohort.ids)
        return Task(cohort.trials, cohort.ids, path, keep, self._place, self._code)

    def path(self, now: dict[str, object]) -> str:
        """The matmul path of this folder's earlier trials on such a machine, else the one it would take now."""
        for earlier in self._store.environments():
            if all(earlier.get(key) == now[key] for key in ("cpu", "isa", "torch", "device")):
                return earlier["matmul"]
        return str(now["matmul"])

    def compare(self, now: dict[str, object]) -> None:
        """Tell the watcher, once, if results on such a machine may differ in bits from those that the folder has."""
        found = fingerprint(now)
        if found in self._fingerprints:
            return
        if self._fingerprints:
            how = differences(self._fingerprints, found)
            self._watcher.noticed(
                f"warning: earlier trials in {self._store.folder} ran on something else ({how}); new results may "
                "differ from theirs in the last bits: where that matters, run into a new folder with --out"
            )
        self._fingerprints.add(found)

    def advance(self, cohort: Cohort, members: int) -> None:
        """So many members have finished one more epoch."""
        work = members * self._epoch(cohort)
        cohort.work_done += work
        self._watcher.advanced(work)

    def notice(self, text: str) -> None:
        """Something that the user should know of a cohort that goes on."""
        self._watcher.noticed(text)

    def take_back(self, cohort: Cohort, why: str) -> None:
        """A cohort's work is lost and will be done again."""
        self._watcher.noticed(f"{_named(cohort)}: {why}")
        self._watcher.advanced(-cohort.work_done)
        cohort.work_done = 0.0

    def settle(self, cohort: Cohort, answer: Finished | Failed) -> list[Cohort]:
        """Record a cohort's results, or that it failed; what is to be tried again: a failed stack's members, alone."""
        if isinstance(answer, Finished) and [record.trial_id for record in answer.records] != cohort.ids:
            answer = Failed("its worker answered with other trials than it was given")
        if isinstance(answer, Failed) and len(cohort.trials) > 1:
            self.take_back(cohort, f"{answer.reason}; trying each alone")
            return [Cohort([trial], [i]) for trial, i in zip(cohort.trials, cohort.ids, strict=True)]
        self._watcher.advanced(self._whole(cohort) - cohort.work_done)
        if isinstance(answer, Failed):
            self._watcher.noticed(f"{_named(cohort)}: failed: {answer.reason}")
            self._record(cohort, [_failure(cohort, answer.reason)])
            return []
        self._keep_weights(answer.weights)
        for record in answer.records:
            if record.environment:
                self.compare(record.environment)
        self._record(cohort, answer.records)
        return []

    def _keep_weights(self, found: dict[str, bytes]) -> None:
        """Before the records: a trial whose parameters are missing is trained again, one without a record too."""
        for trial_id, content in found.items():
            try:
                weights.write(self._store.folder, trial_id, content)
            except DataError as error:  # the records are worth more than the parameters
                self._unsaved += 1
                self._watcher.noticed(f"trained weights cannot be written: {error}")

    def _epoch(self, cohort: Cohort) -> float:
        """The work of one epoch of one of the cohort's trials."""
        dataset = self._dataset
        return epoch_seconds(
            cohort.recipe,
            examples=len(dataset.train.labels),
            tests=len(dataset.test.labels),
            features=dataset.features,
            classes=dataset.n_classes,
        )

    def _whole(self, cohort: Cohort) -> float:
        return len(cohort.trials) * cohort.recipe.epochs * self._epoch(cohort)

    def _record(self, cohort: Cohort, records: Sequence[Record]) -> None:
        for trial, record in zip(cohort.trials, records, strict=True):
            self._store.add(trial, self._dataset.fingerprint, record)
            self._ran += 1
            self._watcher.recorded(trial, record)
        if self._place is not None and all(record.status != "failed" for record in records):
            checkpoints.forget(self._place, cohort.ids)
        self._close(cohort.ids)

    def _close(self, ids: Iterable[str]) -> None:
        """Strike finished trials off every study's list; a study whose list is empty is complete."""
        ids = set(ids)
        for study in self._studies:
            left = self._open.get(study.name)
            if left is not None:
                left -= ids
                if not left:
                    del self._open[study.name]
                    self._watcher.completed(study)

    def result(self) -> Run:
        """Counted over the run's studies."""
        found = {i: status for study in self._studies for i, status in self._store.statuses(study).items()}
        statuses = list(found.values())
        return Run(
            folder=self._store.folder,
            ran=self._ran,
            failed=statuses.count("failed"),
            diverged=statuses.count("diverged"),
            unsaved=self._unsaved,
        )


def _trials(study: Study, fingerprint: str) -> list[tuple[Trial, str]]:
    return [(trial, trial.id(fingerprint)) for arm in study.arms for trial in study.trials(arm)]


def _failure(cohort: Cohort, reason: str) -> Record:
    return Record(trial_id=cohort.ids[0], seed=cohort.trials[0].seed, status="failed", error=reason)


def _named(cohort: Cohort) -> str:
    seeds = ", ".join(str(trial.seed) for trial in cohort.trials)
    return (
        f"trial {cohort.ids[0]} and its stack (seeds {seeds})" if len(cohort.trials) > 1 else f"trial {cohort.ids[0]}"
    )
