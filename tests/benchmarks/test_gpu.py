"""benchmarks/gpu.py where there is no card: it runs, says that its times mean nothing, and fails if a check does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUICK = ["--device", "cpu", "--quick", "--data", "digits", "--only"]
POISONED = """
import sys
import card.checks
import gpu

card.checks.same = lambda ours, theirs: False
sys.exit(gpu.main(sys.argv[1:]))
"""
BROKEN = """
import sys
import card.jax_peer
import card.peers
import gpu

def broken(*_, **__):
    raise RuntimeError("out of order")

card.peers._ensemble = broken
card.jax_peer.left_out = lambda device: "JAX is left out"
sys.exit(gpu.main(sys.argv[1:]))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_it_measures_and_checks_without_a_card(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    done = run(str(BENCHMARKS / "gpu.py"), *QUICK, "fanin,checks", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No card" in done.stdout
    report = json.loads(file.read_text())
    assert report["measured"] is False
    assert report["card"] is None
    assert {"torch", "triton", "cuda", "jax"} <= report["versions"].keys()
    assert {row["precision"] for row in report["fanin"]} == {"fp32", "tf32", "bf16"}
    for row in report["fanin"]:
        assert row["error"] is None
        assert row["us"] > 0
        assert row["loss"] < 1.6  # it trains
    assert len(report["checks"]) > 20
    assert all(check["passed"] for check in report["checks"])
    assert not {"peers", "bound", "study"} & report.keys()
    assert {target["verdict"] for target in report["targets"]} == {"not measured"}


def test_a_failed_check_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    done = run("-c", POISONED, *QUICK, "checks", "--json", str(file))
    assert done.returncode == 1, done.stdout + done.stderr
    failed = [check for check in json.loads(file.read_text())["checks"] if not check["passed"]]
    assert failed
    assert all("other bits" in check["wrong"] for check in failed)
    assert "FAILED" in done.stdout


def test_without_a_card_it_is_not_measured_by_mistake() -> None:
    done = run("-c", "import sys, torch; torch.cuda.is_available = lambda: False; import gpu; sys.exit(gpu.main([]))")
    assert done.returncode == 2
    assert "no CUDA card" in done.stdout


def test_a_peer_that_fails_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    done = run("-c", BROKEN, *QUICK, "peers", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch.func.vmap, captured, M = 4, fp32 failed: RuntimeError: out of order" in done.stdout
    report = json.loads(file.read_text())
    failed = {row["way"] for row in report["peers"] if row["error"]}
    assert failed == {"torch.func.vmap", "torch.func.vmap, captured", "torch.func.vmap, torch.compile"}
    assert all(row["us"] > 0 for row in report["peers"] if row["way"] not in failed)
    assert report["left_out"] == "JAX is left out"
