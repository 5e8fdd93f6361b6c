"""run: studies to trials to cohorts to workers to the store; what has a result is not run again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fanin.datasets import Dataset, load, save_shared
from fanin.driver.messages import EpochDone, Failed, Finished, Ready, Setup, Task
from fanin.driver.plan import Cohort, distinct, epoch_seconds, plan
from fanin.driver.pool import Died, Handle, Pool, require_workers
from fanin.errors import FaninError, RecipeError
from fanin.recipe import Trial, check_against
from fanin.record import Record
from fanin.store import Store
from fanin.study import Study

MAX_ATTEMPTS = 3  # a cohort whose worker dies so often is reported as failed


class Watcher:
    """Told what happens during a run; every method may be overridden, none need be."""

    def planned(self, work: float, trials: int, known: int) -> None:
        """`trials` are to be run, `known` have their result already; `work` is the sum of what `advanced` will say."""

    def advanced(self, work: float) -> None:
        """So much of the work is done."""

    def recorded(self, trial: Trial, record: Record) -> None:
        """A trial's record is in the store."""

    def completed(self, study: Study) -> None:
        """All of a study's trials have a record."""

    def noticed(self, message: str) -> None:
        """Something the user should know, such as a worker that was lost and replaced."""


@dataclass(frozen=True)
class Run:
    """What a run did: the folder, how many trials it ran, and those of all its studies that failed or diverged."""

    folder: Path
    ran: int
    failed: int
    diverged: int


def run(
    studies: Sequence[Study],
    *,
    out: Path | str,
    data: str | Dataset = "auto",
    data_dir: Path | str | None = None,
    data_spec: str | None = None,
    device: str = "auto",
    jobs: int | None = None,
    seeds: int | None = None,
    keep_weights: str = "first",
    watcher: Watcher | None = None,
) -> Run:
    """Run what is missing of `studies` and leave records in `out`/fanin.sqlite.

    data: a Dataset, or what `fanin.datasets.load` takes; data_spec: what `load` took to make a given Dataset.
    jobs: worker processes, by default one per core this process may use; 0 trains in this process. seeds: instead of
    the studies' own number. keep_weights: "first" keeps the trained parameters of each arm's first seed in
    `out`/weights, "all" or "none".
    Raises FaninError for what the user can mend, before anything is trained.
    """
    watcher = watcher or Watcher()
    if seeds is not None:
        studies = [dataclasses.replace(study, seeds=seeds) for study in studies]
    if isinstance(data, Dataset):
        dataset = data
    else:
        dataset, data_spec = load(data, data_dir=data_dir), data
    check(studies, dataset)
    device = resolve_device(device)
    jobs = _jobs(jobs, device)
    keep = _kept(studies, dataset.fingerprint, keep_weights)
    with Store.create(Path(out)) as store:
        for study in studies:
            store.put_study(study, describe(dataset, data_spec))
        driver = _Driver(studies, dataset, store, watcher, keep)
        driver.run(device, jobs)
        return driver.result()


def check(studies: Sequence[Study], dataset: Dataset) -> None:
    """RecipeError naming every arm whose recipe the data set cannot serve, and studies that share a name."""
    found = []
    names = [study.name for study in studies]
    found += [f"the study name {n!r} is used more than once" for n in sorted({n for n in names if names.count(n) > 1})]
    for study in studies:
        for arm in study.arms:
            try:
                check_against(arm.recipe, examples=len(dataset.train.labels), classes=dataset.n_classes)
            except RecipeError as error:
                found.append(f"{study.name}, arm {arm.name!r}: {error} (data set {dataset.name})")
    if found:
        raise RecipeError("\n".join(found))


def describe(dataset: Dataset, spec: str | None) -> dict[str, Any]:
    """What the store keeps of a data set, as plain data; `spec` is what `load` would find it again by, if known."""
    return {
        "name": dataset.name,
        "spec": spec,
        "fingerprint": dataset.fingerprint,
        "source": dataset.source,
        "train": len(dataset.train.labels),
        "test": len(dataset.test.labels),
        "features": dataset.features,
        "classes": list(dataset.classes),
        "scale": dataset.scale,
        "image_shape": list(dataset.image_shape) if dataset.image_shape else None,
    }


def resolve_device(name: str) -> str:
    """ "auto" as "cuda" where there is a card and else "cpu"; FaninError for a device that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise FaninError(f"device: expected auto, cpu or cuda; got {name!r}")
    if name == "cpu" or (name == "auto" and version("torch").endswith("+cpu")):
        return "cpu"
    import torch  # noqa: PLC0415 - only a build with CUDA need be asked

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise FaninError(
            f"device: torch {torch.__version__} finds no CUDA card here; use --device cpu (see `fanin doctor`)"
        )
    return "cpu"


def _jobs(jobs: int | None, device: str) -> int:
    if jobs is not None and jobs < 0:
        raise FaninError(f"jobs: expected 0 (in this process) or a number of worker processes; got {jobs}")
    if jobs is not None:
        return jobs
    return 1 if device == "cuda" else cores()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Driver:
    """The state of one run: what is queued, what is running where, which studies are complete."""

    def __init__(
        self, studies: Sequence[Study], dataset: Dataset, store: Store, watcher: Watcher, keep: frozenset[str]
    ) -> None:
        self._studies, self._dataset, self._store, self._watcher = studies, dataset, store, watcher
        self._keep = keep
        self._open = {
            study.name: {t.id(dataset.fingerprint) for arm in study.arms for t in study.trials(arm)}
            for study in studies
        }
        wanted = [(t, t.id(dataset.fingerprint)) for study in studies for arm in study.arms for t in study.trials(arm)]
        self._all = distinct(wanted)
        self._known = store.finished(trial_id for _, trial_id in self._all)
        self._ran = 0

    def run(self, device: str, jobs: int) -> None:
        """Train everything that has no record yet."""
        missing = [(trial, trial_id) for trial, trial_id in self._all if trial_id not in self._known]
        cohorts = plan(missing, features=self._dataset.features, classes=self._dataset.n_classes, workers=max(1, jobs))
        work = sum(len(c.trials) * c.recipe.epochs * self._work(c) for c in cohorts)
        self._watcher.planned(work, len(missing), len(self._known))
        self._close(self._known)
        if not cohorts:
            return
        with tempfile.TemporaryDirectory(prefix="fanin-") as folder:
            save_shared(self._dataset, Path(folder))
            setup = Setup(Path(folder), device)
            if jobs == 0:
                self._run_here(setup, cohorts)
            else:
                require_workers()
                with Pool(setup, min(jobs, len(cohorts))) as pool:
                    self._run_on(pool, deque(cohorts))

    def _run_here(self, setup: Setup, cohorts: Sequence[Cohort]) -> None:
        from fanin.driver.worker import Worker, explain  # noqa: PLC0415 - loads torch into this process
        from fanin.engine import matmul  # noqa: PLC0415

        path = matmul.choose().path
        with _same_numerics_as_a_worker():
            worker = Worker(setup)
            for cohort in cohorts:
                try:
                    answer: Finished | Failed = worker.train(
                        self._task(cohort, path), lambda done, c=cohort: self._advance(c, done)
                    )
                except Exception as error:
                    answer = Failed(explain(error))
                self._settle(cohort, answer)

    def _run_on(self, pool: Pool, queue: deque[Cohort]) -> None:
        running: dict[Handle, Cohort] = {}
        path = ""

        def give(handle: Handle) -> None:
            if queue:
                running[handle] = queue.popleft()
                handle.give(self._task(running[handle], path))

        for handle, answer in pool.answers():
            match answer:
                case Ready():
                    path = path or answer.path
                    give(handle)
                case EpochDone():
                    self._advance(running[handle], answer)
                case Finished() | Failed():
                    cohort = running.pop(handle)
                    give(handle)  # before the records are written and shown: the worker need not wait for that
                    self._settle(cohort, answer)
                case Died():
                    pool.replace(handle)
                    self._lost(running.pop(handle, None), answer.reason, queue)
            if not queue and not running:
                return

    def _lost(self, cohort: Cohort | None, reason: str, queue: deque[Cohort]) -> None:
        """Queue the cohort of a dead worker again, or fail it if that has happened too often."""
        if cohort is None:
            raise FaninError(f"a worker could not start: {reason}; `fanin doctor` tries what it needs")
        cohort.attempts += 1
        if cohort.attempts == MAX_ATTEMPTS:
            self._settle(cohort, Failed(f"{reason}, {MAX_ATTEMPTS} times"))
            return
        self._watcher.noticed(f"{_named(cohort)}: {reason}; trying again")
        self._watcher.advanced(-cohort.work_done)
        cohort.work_done = 0.0
        queue.appendleft(cohort)

    def _advance(self, cohort: Cohort, done: EpochDone) -> None:
        work = done.members * self._work(cohort)
        cohort.work_done += work
        self._watcher.advanced(work)

    def _settle(self, cohort: Cohort, answer: Finished | Failed) -> None:
        """Record a cohort's results, or that it failed; whatever of its work is left will not be done."""
        left = len(cohort.trials) * cohort.recipe.epochs * self._work(cohort) - cohort.work_done
        self._watcher.advanced(left)
        if isinstance(answer, Failed):
            self._fail(cohort, answer.reason)
        else:
            self._record(cohort, answer.records)

    def _task(self, cohort: Cohort, path: str) -> Task:
        keep = self._keep & set(cohort.ids)
        return Task(cohort.trials, cohort.ids, path, frozenset(keep), self._store.folder / "weights")

    def _work(self, cohort: Cohort) -> float:
        """The work of one epoch of one of the cohort's trials."""
        dataset = self._dataset
        return epoch_seconds(
            cohort.recipe,
            examples=len(dataset.train.labels),
            tests=len(dataset.test.labels),
            features=dataset.features,
            classes=dataset.n_classes,
        )

    def _record(self, cohort: Cohort, records: Sequence[Record]) -> None:
        for trial, record in zip(cohort.trials, records, strict=True):
            self._store.add(trial, self._dataset.fingerprint, record)
            self._ran += 1
            self._watcher.recorded(trial, record)
        self._close(cohort.ids)

    def _fail(self, cohort: Cohort, reason: str) -> None:
        self._watcher.noticed(f"{_named(cohort)}: failed: {reason}")
        failed = [
            Record(trial_id=trial_id, seed=trial.seed, status="failed", error=reason)
            for trial, trial_id in zip(cohort.trials, cohort.ids, strict=True)
        ]
        self._record(cohort, failed)

    def _close(self, ids: Iterator[str] | Sequence[str] | set[str]) -> None:
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
        records = {r.trial_id: r for study in self._studies for arm in self._store.records(study).values() for r in arm}
        statuses = [record.status for record in records.values()]
        return Run(self._store.folder, self._ran, statuses.count("failed"), statuses.count("diverged"))


def _kept(studies: Sequence[Study], fingerprint: str, which: str) -> frozenset[str]:
    if which not in ("first", "all", "none"):
        raise FaninError(f"keep_weights: expected first, all or none; got {which!r}")
    count = {"first": 1, "all": None, "none": 0}[which]
    return frozenset(t.id(fingerprint) for study in studies for arm in study.arms for t in study.trials(arm)[:count])


def _named(cohort: Cohort) -> str:
    seeds = ", ".join(str(trial.seed) for trial in cohort.trials)
    return (
        f"trial {cohort.ids[0]} and its stack (seeds {seeds})" if len(cohort.trials) > 1 else f"trial {cohort.ids[0]}"
    )


@contextlib.contextmanager
def _same_numerics_as_a_worker() -> Iterator[None]:
    """A Worker sets threads, denormals and the matmul path of its process: put the caller's back afterwards."""
    import torch  # noqa: PLC0415

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_flush_denormal(False)
