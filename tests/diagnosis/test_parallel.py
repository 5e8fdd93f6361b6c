"""Two processes that train one network, by DistributedDataParallel and by fully_shard: watched, diagnosed, unharmed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two has found."""
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this PyTorch was built without gloo, by which the two processes talk")
    store = tmp_path_factory.mktemp("parallel") / "store"
    commands = [
        [sys.executable, "-W", "error", "-m", "tests.diagnosis.parallel_worker", str(k), str(store)] for k in (0, 1)
    ]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    try:
        ended = [process.communicate(timeout=200) for process in started]
    finally:
        for process in started:
            process.kill()  # one that waits for the other, which has failed
    assert all(process.returncode == 0 for process in started), "\n".join(errors for _, errors in ended)
    return [json.loads(out.splitlines()[-1]) for out, _ in ended]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_watched_training_is_bit_for_bit_the_unwatched_one(found, kind: str, rank: int) -> None:
    seen = found[rank][kind]
    assert seen["same"]
    assert seen["lone"]  # watched in process 0 alone
    assert not seen["other"]  # another learning rate would be seen
    assert seen["hooks"][0] == seen["hooks"][1]
    assert seen["findings"] == []


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("rank", [0, 1])
def test_layers_and_weights_have_the_names_that_users_know(found, kind: str, rank: int) -> None:
    assert found[rank][kind]["layers"] == ["0", "2", "3"]
    assert set(found[rank][kind]["weights"]) >= {"0.weight", "1.weight", "3.weight", "3.bias"}


@pytest.mark.parametrize(("kind", "words"), [("ddp", "this process's part of each batch"), ("fsdp", "shards")])
def test_it_says_that_others_have_the_rest(found, kind: str, words: str) -> None:
    for one in found:
        assert [note for note in one[kind]["unseen"] if words in note]


def test_what_is_not_finite_in_one_process_is_told_in_both_and_neither_waits(found) -> None:
    (first, second), (third, fourth) = ([one[kind]["broken"] for one in found] for kind in ("ddp", "fsdp"))
    assert first == [["non-finite", "0", "at step 4 the output of 0 is not finite, the first to be so"]]
    assert second[0][:2] == ["non-finite", "3.bias"]
    assert second[0][2].endswith("the gradient of 3.bias is not finite, though all outputs are")
    assert third == fourth
    assert third[0][2] == "at step 4 the gradient of 3.bias is not finite"  # outputs cannot be asked again


def test_one_process_diagnoses_the_network_within_by_itself(found) -> None:
    assert found[0]["diagnose"].startswith("Nothing found"), found[0]["diagnose"]
    assert "optimiser: SGD" in found[0]["diagnose"]
    assert found[0]["by heart"].startswith("It learns one batch of 32"), found[0]["by heart"]
    assert found[0]["untouched"]


def test_weights_that_are_spread_are_refused_in_words(found) -> None:
    assert len(found[0]["refused"]) == 3
    for words in found[0]["refused"]:
        assert words.startswith("FaninError: model: expected a network that one process can run by itself")
        assert "before fully_shard" in words
