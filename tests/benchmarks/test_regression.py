"""benchmarks/regression.py: fails for a slower fanin and for nothing else, and refuses what cannot be compared."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "regression.py"
SECONDS = {"PyTorch": 0.7, "scikit-learn": 0.8, "JAX": 0.42}
OWN = {("fanin", "256-256"): 0.5, ("fanin, deep", "512-512"): 2.4}
BOUND = {"256-256": 0.38, "512-512": 2.0}


def row(way: str, role: str, network: str, seconds: float) -> dict:
    return {
        "way": way,
        "role": role,
        "network": network,
        "layout": "2 x 1",
        "seconds": seconds,
        "share_of_bound": BOUND[network] / seconds,
    }


def made_up() -> dict:
    """A small result of cpu.py."""
    figures = [row(way, "fanin", network, seconds) for (way, network), seconds in OWN.items()]
    figures += [row(way, "peer", "256-256", seconds) for way, seconds in SECONDS.items()]
    figures += [row(f"bound {network}", "bound", network, seconds) for network, seconds in BOUND.items()]
    arms = [row("fanin", "fanin", "256-256", 15.0), row("JAX", "peer", "256-256", 16.0)]
    return {
        "hardware": {"cpu": "a processor", "capability": "AVX512", "cores": 2},
        "matmul": {"path": "blas"},
        "settings": {"data": "mnist", "steps": 600, "batch": 100, "arm_epochs": 15, "quick": False},
        "versions": {"torch": "2.13.0", "jax": "0.10.2"},
        "figures": figures,
        "arms": arms,
    }


def slowed(result: dict, factor: float, *ways: str, section: str = "figures") -> dict:
    """The result with these ways slower by a factor; all of them if none is named."""
    result = copy.deepcopy(result)
    for found in result[section]:
        if not ways or found["way"] in ways:
            found["seconds"] *= factor
    bound = {r["network"]: r["seconds"] for r in result["figures"] if r["role"] == "bound"}
    for found in result["figures"]:
        found["share_of_bound"] = bound[found["network"]] / found["seconds"]
    return result


@pytest.fixture
def compare(tmp_path):
    def run(was: dict | str, now: dict | str, *options: str) -> tuple[int, str]:
        for name, result in (("was", was), ("now", now)):
            text = result if isinstance(result, str) else json.dumps(result)
            (tmp_path / f"{name}.json").write_text(text)
        done = subprocess.run(
            [sys.executable, PROGRAM, tmp_path / "was.json", tmp_path / "now.json", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    return run


def test_equal_results_pass(compare):
    code, text = compare(made_up(), made_up())
    assert code == 0
    assert text.count("ok ") == 4  # two shares of a bound, one median of peers, one of arms


def test_a_slower_machine_passes(compare):
    slow = slowed(slowed(made_up(), 3.0), 3.0, section="arms")
    assert compare(made_up(), slow)[0] == 0


def test_a_slower_fanin_fails_and_is_named(compare):
    code, text = compare(made_up(), slowed(made_up(), 1.25, "fanin"))
    failed = [line for line in text.splitlines() if line.startswith("SLOWER")]
    assert code == 1
    assert len(failed) == 2
    assert "fanin (2 x 1): share of bound: was 0.760, is 0.608, allowed 0.691" in failed[0]
    assert "median change of 3 peers" in failed[1]


@pytest.mark.parametrize(("factor", "expected"), [(1.09, 0), (1.11, 1)])
def test_the_tolerance_is_where_it_says(compare, factor, expected):
    assert compare(made_up(), slowed(made_up(), factor, "fanin"))[0] == expected
    assert compare(made_up(), slowed(made_up(), factor, "fanin"), "--tolerance", "0.2")[0] == 0


def test_a_faster_fanin_passes(compare):
    assert compare(made_up(), slowed(made_up(), 0.5, "fanin"))[0] == 0


def test_one_faster_peer_is_not_fanins_fault(compare):
    assert compare(made_up(), slowed(made_up(), 0.4, "JAX"))[0] == 0


def test_most_peers_faster_fails_though_the_bound_says_nothing(compare):
    code, text = compare(made_up(), slowed(made_up(), 0.7, "JAX", "PyTorch"))
    assert code == 1
    assert [line for line in text.splitlines() if line.startswith("SLOWER") and "share of bound" in line] == []


def test_the_deep_network_is_held_to_its_bound(compare):
    code, text = compare(made_up(), slowed(made_up(), 1.2, "fanin, deep"))
    assert code == 1
    assert text.count("SLOWER") == 1


def test_a_slower_arm_fails(compare):
    code, text = compare(made_up(), slowed(made_up(), 1.2, "fanin", section="arms"))
    assert code == 1
    assert "SLOWER arm, fanin" in text


def test_results_without_arms_are_compared_without_them(compare):
    now = made_up()
    now["arms"] = []
    assert compare(made_up(), now)[0] == 0


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("hardware", "cpu", "another"),
        ("hardware", "cores", 4),
        ("matmul", "path", "onednn"),
        ("settings", "steps", 100),
        ("settings", "data", "digits"),
    ],
)
def test_what_differs_is_refused_and_named(compare, section, name, value):
    now = slowed(made_up(), 2.0, "fanin")
    now[section][name] = value
    code, text = compare(made_up(), now)
    assert code == 2
    assert f"{section}.{name}" in text


def test_another_layout_is_refused(compare):
    now = made_up()
    for found in now["figures"]:
        found["layout"] = "4 x 1"
    code, text = compare(made_up(), now)
    assert code == 2
    assert "no fanin (2 x 1)" in text


def test_no_common_peer_is_refused(compare):
    now = made_up()
    now["figures"] = [r for r in now["figures"] if r["role"] != "peer"]
    now["arms"] = []
    code, text = compare(made_up(), now)
    assert code == 2
    assert "no peer in common" in text


def test_a_quick_result_is_refused(compare):
    now = made_up()
    now["settings"]["quick"] = True
    assert compare(made_up(), now)[0] == 2


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_what_is_no_result_is_refused(compare, text):
    assert compare(made_up(), text)[0] == 2


def test_a_peer_of_one_result_only_and_a_new_version_are_mentioned(compare):
    now = made_up()
    now["figures"] = [r for r in now["figures"] if r["way"] != "JAX"]
    now["versions"]["torch"] = "2.14.0"
    code, text = compare(made_up(), now)
    assert code == 0
    assert "one result only: JAX (2 x 1)" in text
    assert "torch: was 2.13.0, is 2.14.0" in text
