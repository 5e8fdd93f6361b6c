"""run: studies to trials to cohorts to workers to the store; what has a result is not run again."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fanin.code import source_of
from fanin.datasets import Dataset, check_values, load
from fanin.driver.accounts import Accounts, Run
from fanin.driver.deadline import Deadline
from fanin.driver.dispatch import dispatch
from fanin.driver.executors import CLUSTERS, Executor, check_executor, make_executor
from fanin.driver.executors.local import cores as cores  # noqa: PLC0414 - found here as well
from fanin.driver.plan import plan
from fanin.driver.watcher import Watcher
from fanin.errors import FaninError, RecipeError
from fanin.execution import check_against
from fanin.store import Store
from fanin.study import Study, refuse_code


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
    executor: str = "local",
    address: str | None = None,
    time_limit: float | None = None,
    allow_code: bool = True,
) -> Run:
    """Run what is missing of `studies` and leave records in `out`/fanin.sqlite.

    data: a Dataset, or what `fanin.datasets.load` takes; data_spec: what `load` took to make a given Dataset.
    jobs: worker processes, by default one per core this process may use, or all that a cluster has room for; 0 trains
    in this process. seeds: instead of the studies' own number. keep_weights: "first" keeps the trained parameters of
    each arm's first seed in `out`/weights, "all" or "none".
    executor: "local", "inline", "ray" or "dask" (see docs/cluster.md); records are the same bits on machines of one
    kind. address: the cluster's; without one it is found in the environment, or started on this machine.
    time_limit: seconds after which TimeUp, a FaninError, is raised; what is finished by then is in the store.
    allow_code: False refuses studies that name networks of one's own, and data sets as module:attr: for files that come
    from somebody else. Raises FaninError for what the user can mend, before anything is trained.
    """
    watcher = watcher or Watcher()
    deadline = Deadline(time_limit)
    check_executor(executor, jobs, address)
    if not allow_code:
        refuse_code(studies)
    if seeds is not None:
        studies = [study.changed(seeds=seeds) for study in studies]
    if isinstance(data, Dataset):
        dataset = check_values(data)
    else:
        dataset, data_spec = load(data, data_dir=data_dir, allow_code=allow_code), data
    if not (executor in CLUSTERS and device == "cuda"):  # the cards are the cluster's
        device = resolve_device(device)
    check(studies, dataset, device)
    keep = _kept(studies, dataset.fingerprint, keep_weights)
    with Store.create(Path(out).absolute()) as store:  # whatever a watcher or a user's network makes the current folder
        if store.notice:
            watcher.noticed(store.notice)
        for study in studies:
            store.put_study(study, describe(dataset, data_spec))
        _tell_of_changed_code(studies, store, watcher)
        accounts = Accounts(studies, dataset, store, watcher, keep)
        if accounts.missing():
            crew = make_executor(executor, dataset, device=device, jobs=jobs, address=address)
            _train(crew, dataset, device, accounts, deadline)
        else:
            accounts.begin([])
        return accounts.result()


def _tell_of_changed_code(studies: Sequence[Study], store: Store, watcher: Watcher) -> None:
    """Results are found again by the name of a user's network: that its code has changed since is worth a word."""
    models = {arm.recipe.model.name for study in studies for arm in study.arms if arm.recipe.model is not None}
    earlier = {(e["model"], e["model_source"]) for e in store.environments() if e.get("model_source")} if models else ()
    for name in sorted({name for name, _ in earlier} & models):
        now = source_of(name)
        if now is not None and any(source != now for model, source in earlier if model == name):
            watcher.noticed(
                f"warning: the file of {name} has changed since earlier trials in {store.folder}, whose results stay "
                "as they are: to train them again, run into a new folder with --out"
            )


def _train(crew: Executor, dataset: Dataset, device: str, accounts: Accounts, deadline: Deadline) -> None:
    """Train what is missing. What the watcher does when it is told of it, it does while the workers start."""
    with crew:
        cohorts = plan(
            accounts.missing(),
            features=dataset.features,
            classes=dataset.n_classes,
            workers=crew.workers,
            device=device,
            begun=accounts.begun() if device == "cpu" else (),
        )
        crew.start(len(cohorts))
        accounts.begin(cohorts)
        dispatch(crew, cohorts, accounts, deadline)
        accounts.close()


def check(studies: Sequence[Study], dataset: Dataset, device: str) -> None:
    """RecipeError naming every arm that the data set or the device cannot serve, and studies that share a name."""
    found = []
    names = [study.name for study in studies]
    found += [f"the study name {n!r} is used more than once" for n in sorted({n for n in names if names.count(n) > 1})]
    for study in studies:
        for arm in study.arms:
            try:
                check_against(arm.recipe, examples=len(dataset.train.labels), classes=dataset.n_classes)
            except RecipeError as error:
                found.append(f"{study.name}, arm {arm.name!r}: {error} (data set {dataset.name})")
            if arm.recipe.precision == "tf32" and device != "cuda":
                found.append(
                    f"{study.name}, arm {arm.name!r}: precision: tf32 needs a CUDA card, and this runs on {device}; "
                    "use fp32 or bf16"
                )
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
    if name in ("mps", "xpu", "hip"):
        raise FaninError(
            f"device: {name} is not supported: fanin measures in float64, and makes promises about bits, neither of "
            "which has been tested there; use --device cpu"
        )
    if name not in ("auto", "cpu", "cuda"):
        raise FaninError(f"device: expected auto, cpu or cuda; got {name!r}")
    if name == "cpu" or (name == "auto" and version("torch").endswith("+cpu")):
        return "cpu"
    import torch  # only a build with CUDA need be asked

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise FaninError(
            f"device: torch {torch.__version__} finds no CUDA card here; use --device cpu (see `fanin doctor`)"
        )
    return "cpu"


def _kept(studies: Sequence[Study], fingerprint: str, which: str) -> frozenset[str]:
    if which not in ("first", "all", "none"):
        raise FaninError(f"keep_weights: expected first, all or none; got {which!r}")
    count = {"first": 1, "all": None, "none": 0}[which]
    return frozenset(t.id(fingerprint) for study in studies for arm in study.arms for t in study.trials(arm)[:count])
