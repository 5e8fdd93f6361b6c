"""Executors: where cohorts are trained. In this process, in worker processes, on a Ray or on a Dask cluster."""

from __future__ import annotations

from fanin.datasets import Dataset
from fanin.driver.executors.protocol import Executor as Executor
from fanin.errors import FaninError, nearest

EXECUTORS: dict[str, str] = {
    "inline": "this process, one cohort after another",
    "local": "worker processes on this machine, one per core",
    "ray": "a Ray cluster, or one that is started here (pip install 'fanin[ray]')",
    "dask": "a Dask cluster, or one that is started here (pip install 'fanin[dask]')",
}
CLUSTERS = frozenset({"ray", "dask"})


def make_executor(name: str, dataset: Dataset, *, device: str, jobs: int | None, address: str | None) -> Executor:
    """The executor of that name, not yet entered.

    jobs: worker processes ("local": None is one per core, and with 0 it is "inline"); of a cluster the most cohorts at
    a time, None for as many as it has room for. FaninError if the library that an executor needs is missing.
    """
    if name == "inline" or (name == "local" and jobs == 0):
        from fanin.driver.executors.inline import InlineExecutor

        return InlineExecutor(dataset, device)
    if name == "local":
        from fanin.driver.executors.local import LocalExecutor

        return LocalExecutor(dataset, device, jobs)
    if name == "ray":
        from fanin.driver.executors.ray import RayExecutor

        return RayExecutor(dataset, device, jobs, address)
    from fanin.driver.executors.dask import DaskExecutor

    return DaskExecutor(dataset, device, jobs, address)


def check_executor(name: str, jobs: int | None, address: str | None) -> None:
    """FaninError for an unknown executor, or one that such jobs or an address do not go with."""
    if name not in EXECUTORS:
        raise FaninError(f"executor: expected {', '.join(EXECUTORS)}; got {name!r}{nearest(name, EXECUTORS)}")
    if jobs is not None and jobs < (1 if name in CLUSTERS else 0):
        raise FaninError(f"jobs: expected 0 (in this process) or a number of worker processes; got {jobs} for {name}")
    if address is not None and name not in CLUSTERS:
        raise FaninError(f"address: only ray and dask have one; got {address!r} for the executor {name}")
