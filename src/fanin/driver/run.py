"""run: studies to trials to cohorts to workers to the store; what has a result is not run again."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fanin.datasets import Dataset, check_values, load, save_shared
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
    """What a run did.

    ran: trials it trained. failed, diverged: of all trials of its studies. unsaved: trials whose trained parameters
    should have been kept and could not be written; their records are there.
    """

    folder: Path
    ran: int
    failed: int
    diverged: int
    unsaved: int


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
        studies = [study.changed(seeds=seeds) for study in studies]
    if isinstance(data, Dataset):
        dataset = check_values(data)
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
    """Cores that this process may use, by affinity and by a container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return count


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
        known = store.finished(trial_id for _, trial_id in self._all)
        self._known = known - {trial_id for trial_id in known & keep if not self._weights(trial_id).is_file()}
        self._ran, self._unsaved, self._stillborn = 0, 0, 0

    def _weights(self, trial_id: str) -> Path:
        return self._store.folder / "weights" / f"{trial_id}.safetensors"

    def run(self, device: str, jobs: int) -> None:
        """Train everything that has no record yet, or no weights although they are to be kept."""
        missing = [(trial, trial_id) for trial, trial_id in self._all if trial_id not in self._known]
        cohorts = plan(missing, features=self._dataset.features, classes=self._dataset.n_classes, workers=max(1, jobs))
        work = sum(len(c.trials) * c.recipe.epochs * self._work(c) for c in cohorts)
        self._watcher.planned(work, len(missing), len(self._known))
        self._close(self._known)
        if not cohorts:
            return
        with tempfile.TemporaryDirectory(prefix="fanin-") as folder:
            save_shared(self._dataset, Path(folder))
            setup, queue = Setup(Path(folder), device), deque(cohorts)
            if jobs == 0:
                self._run_here(setup, queue)
            else:
                require_workers()
                with Pool(setup, min(jobs, len(cohorts))) as pool:
                    self._run_on(pool, queue)

    def _run_here(self, setup: Setup, queue: deque[Cohort]) -> None:
        import torch  # noqa: PLC0415 - the workers' part, in this process

        from fanin.driver.worker import Worker, explain, preferred_path  # noqa: PLC0415
        from fanin.engine.environment import environment  # noqa: PLC0415

        with _same_numerics_as_a_worker():
            device = torch.device(setup.device)
            worker = Worker(setup)
            path = self._path(environment(device, members=1) | {"matmul": preferred_path(device)})
            while queue:
                cohort = queue.popleft()
                try:
                    answer: Finished | Failed = worker.train(
                        self._task(cohort, path), lambda done, c=cohort: self._advance(c, done)
                    )
                except Exception as error:
                    answer = Failed(explain(error))
                self._settle(cohort, answer, queue)

    def _run_on(self, pool: Pool, queue: deque[Cohort]) -> None:
        running: dict[Handle, Cohort] = {}
        idle: set[Handle] = set()
        path = ""

        def give() -> None:
            while queue and idle:
                handle = idle.pop()
                running[handle] = queue.popleft()
                handle.give(self._task(running[handle], path))

        try:
            for handle, answer in pool.answers():
                match answer:
                    case Ready():
                        path = path or self._path(answer.environment)
                        idle.add(handle)
                    case EpochDone():
                        self._advance(running[handle], answer)
                    case Finished() | Failed():
                        cohort = running.pop(handle)
                        idle.add(handle)
                        give()  # before the records are written and shown: the worker need not wait for that
                        self._settle(cohort, answer, queue)
                    case Died() if handle in idle:  # it had nothing to do, and there is nothing more
                        idle.remove(handle)
                        pool.drop(handle)
                    case Died():
                        pool.replace(handle)
                        self._lost(running.pop(handle, None), answer.reason, queue)
                give()
                if not queue and not running:
                    return
        except KeyboardInterrupt:
            for handle, answer in pool.said():
                if isinstance(answer, Finished) and handle in running:
                    self._settle(running.pop(handle), answer, queue)
            raise

    def _path(self, now: dict[str, Any]) -> str:
        """The matmul path of this study's earlier trials on such a machine, else the one it would take now."""
        for earlier in self._store.environments():
            if all(earlier.get(key) == now[key] for key in ("cpu", "isa", "torch", "device")):
                return earlier["matmul"]
        return now["matmul"]

    def _lost(self, cohort: Cohort | None, reason: str, queue: deque[Cohort]) -> None:
        """Queue a dead worker's cohort again, or fail it if that has happened too often; None: it never started."""
        if cohort is None:
            self._stillborn += 1
            if self._stillborn == MAX_ATTEMPTS:
                raise FaninError(f"workers cannot start: {reason}; `fanin doctor` tries what they need")
            return
        cohort.attempts += 1
        if cohort.attempts == MAX_ATTEMPTS:
            self._settle(cohort, Failed(f"{reason}, {MAX_ATTEMPTS} times"), queue)
            return
        self._watcher.noticed(f"{_named(cohort)}: {reason}; trying again")
        self._take_back(cohort)
        queue.appendleft(cohort)

    def _take_back(self, cohort: Cohort) -> None:
        self._watcher.advanced(-cohort.work_done)
        cohort.work_done = 0.0

    def _advance(self, cohort: Cohort, done: EpochDone) -> None:
        work = done.members * self._work(cohort)
        cohort.work_done += work
        self._watcher.advanced(work)

    def _settle(self, cohort: Cohort, answer: Finished | Failed, queue: deque[Cohort]) -> None:
        """Record a cohort's results, or that it failed; a stack that failed is tried again, each member alone."""
        if isinstance(answer, Failed) and len(cohort.trials) > 1:
            self._watcher.noticed(f"{_named(cohort)}: {answer.reason}; trying each alone")
            self._take_back(cohort)
            queue.extendleft(Cohort([t], [i]) for t, i in zip(cohort.trials[::-1], cohort.ids[::-1], strict=True))
            return
        self._watcher.advanced(len(cohort.trials) * cohort.recipe.epochs * self._work(cohort) - cohort.work_done)
        if isinstance(answer, Failed):
            self._fail(cohort, answer.reason)
            return
        if answer.unsaved:
            self._unsaved += len(self._keep & set(cohort.ids))
            self._watcher.noticed(answer.unsaved)
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
        return Run(self._store.folder, self._ran, statuses.count("failed"), statuses.count("diverged"), self._unsaved)


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
