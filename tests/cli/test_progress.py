"""Progress: what takes long to load is loaded while the workers start, and only if there is something to run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

import fanin
from fanin.cli.progress import make_watcher
from fanin.driver.pool import Pool


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(("trials", "wanted"), [(0, []), (4, ["prepared"])])
def test_prepared_only_if_there_is_something_to_run(terminal, trials, wanted):
    said = []
    console = Console(file=io.StringIO(), force_terminal=terminal)
    with make_watcher(console, lambda _: None, lambda: said.append("prepared")) as watcher:
        watcher.planned(1.0, trials, 0)
    assert said == wanted


def test_the_workers_start_first(tmp_path, monkeypatch):
    said = []
    start = Pool._start

    class Watcher(fanin.driver.Watcher):
        def planned(self, work, trials, known):
            said.append("planned")

    monkeypatch.setattr(Pool, "_start", lambda self: said.append("worker") or start(self))
    arms = [{"name": "softmax", "hidden": [], "epochs": 1}]
    study = fanin.Study.from_dict({"name": "one", "seeds": 1, "arms": arms})
    for _ in range(2):
        fanin.run([study], out=tmp_path, data="digits", device="cpu", jobs=1, watcher=Watcher())
    assert said == ["worker", "planned", "planned"]
