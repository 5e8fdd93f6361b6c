"""Check-points: a stack that is interrupted and goes on ends with the bits of one that was not; no file is torn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import oracle
import pytest
import torch
from safetensors.torch import load_file

from fanin.catalogue import OPTIMIZERS
from fanin.engine import checkpoint as checkpoints
from fanin.engine import matmul, sparse
from fanin.engine import train as training
from fanin.engine.checkpoint import FILE, Checkpoint, Kept, UnusableError, name_of, read, remove, trials_of, write
from fanin.engine.ledger import Outcome
from fanin.engine.train import train
from fanin.recipe import Recipe, Trial

DATA = oracle.problem(examples=64, features=16, classes=4, tests=11)
HERE = {"torch": "2", "isa": "AVX2"}
EPOCHS = 4


class StoppedError(Exception):
    """The interruption."""


@pytest.fixture(autouse=True)
def _one_path() -> None:
    matmul.use("blas")


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def place(tmp_path: Path, notices: list[str]) -> Callable[..., Checkpoint]:
    """Makes the check-point of a stack, written after every epoch."""

    def make(ids: Sequence[str] = ("a",), *, seconds: float = 0.0, runs_on: dict[str, str] = HERE) -> Checkpoint:
        return Checkpoint(tmp_path, ids, seconds=seconds, runs_on=runs_on, notice=notices.append)

    return make


def recipe_of(**fields: Any) -> Recipe:
    return Recipe(**{"hidden": (8, 8), "batch_size": 16, "epochs": EPOCHS} | fields)


def stopping(epoch: int) -> Callable[[int], None]:
    """An on_epoch that stops training when it hears of its `epoch`-th epoch, which leaves the one before it."""
    heard: list[int] = []

    def on_epoch(members: int) -> None:
        heard.append(members)
        if len(heard) == epoch:
            raise StoppedError

    return on_epoch


def ids_of(trials: Sequence[Trial]) -> list[str]:
    return [f"t{m}" for m in range(len(trials))]


def interrupted(trials: Sequence[Trial], checkpoint: Callable[..., Checkpoint], *, epoch: int = 3) -> None:
    ids = ids_of(trials)
    with pytest.raises(StoppedError):
        train(trials, ids, DATA, on_epoch=stopping(epoch), checkpoint=checkpoint(ids))


def resumed(trials: Sequence[Trial], checkpoint: Callable[..., Checkpoint], **fields: Any) -> list[Outcome]:
    ids = ids_of(trials)
    return train(trials, ids, DATA, checkpoint=checkpoint(ids), **fields)


def check(trials: Sequence[Trial], checkpoint: Callable[..., Checkpoint], *, epoch: int = 3) -> list[Outcome]:
    """Interrupt after `epoch` epochs, go on from the one before, compare with a training that nobody disturbed."""
    interrupted(trials, checkpoint, epoch=epoch)
    heard: list[int] = []
    heard_calm: list[int] = []
    found = resumed(trials, checkpoint, on_epoch=heard.append)
    undisturbed = train(trials, ids_of(trials), DATA, on_epoch=heard_calm.append)
    assert heard[0] == len(trials) * (epoch - 1)
    assert heard[1:] == heard_calm[epoch - 1 :]
    for ours, calm in zip(found, undisturbed, strict=True):
        oracle.same_bits(ours, calm)
    return found


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch": {"normalization": "batch", "train_metrics": True},
    "dropout": {"dropout": 0.5, "normalization": "batch", "loss": "mse"},
    "schedule": {"schedule": {"name": "cosine", "warmup": 1}, "normalization": "batch"},
    "bf16": {"precision": "bf16", "dropout": 0.25},
}


@pytest.mark.parametrize(
    ("optimizer", "variant"),
    [
        *((name, "dropout") for name in OPTIMIZERS),
        *((name, variant) for name in ("adam", "asgd") for variant in VARIANTS),
    ],
)
def test_every_optimizer(optimizer: str, variant: str, place: Callable[..., Checkpoint]) -> None:
    rates = [1e-2] if optimizer == "lbfgs" else [1e-2, 1e-3, 1e-2]
    less = {"max_iter": 4} if optimizer == "lbfgs" else {}
    recipes = [recipe_of(optimizer={"name": optimizer, "lr": lr} | less, **VARIANTS[variant]) for lr in rates]
    check([Trial(recipe, seed) for seed, recipe in enumerate(recipes)], place)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "momentum": 0.9, "dampening": 0.5},
        {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"name": "adam", "amsgrad": True},
        {"name": "adamw", "amsgrad": True, "weight_decay": 0.1},
        {"name": "rmsprop", "centered": True, "momentum": 0.5},
        {"name": "lbfgs", "history_size": 3, "max_iter": 4, "line_search_fn": "strong_wolfe"},
    ],
    ids=str,
)
@pytest.mark.parametrize("epoch", [2, EPOCHS])
def test_what_options_add_to_the_state(optimizer: dict[str, Any], epoch: int, place: Callable[..., Checkpoint]) -> None:
    check([Trial(recipe_of(optimizer=optimizer), 3)], place, epoch=epoch)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "lbfgs"])
def test_members_that_have_diverged_before(optimizer: str, place: Callable[..., Checkpoint]) -> None:
    """One at its first step, one later (where lr alone ruins it), in slots between those that go on."""
    good = {"optimizer": {"name": optimizer, "lr": 1e-2}, "normalization": "batch"}
    dead = good | {"init": {"name": "normal", "std": 1e30}, "normalization": "none"}
    good["normalization"] = "none"
    wild = good | {"optimizer": {"name": optimizer, "lr": 1e30}}
    trials = [Trial(recipe_of(**fields), seed) for seed, fields in enumerate((good, dead, good, wild))]
    found = check(trials, place)
    assert found[1].record.divergence is not None
    assert [found[m].record.status for m in (0, 2)] == ["done", "done"]
    if optimizer == "sgd":
        assert found[3].record.status == "diverged"


def test_a_diverged_member_keeps_the_running_statistics_it_had(place: Callable[..., Checkpoint]) -> None:
    good = {"optimizer": {"name": "sgd", "lr": 0.1}, "normalization": "batch"}
    trials = [Trial(recipe_of(**good), 1), Trial(recipe_of(**good | {"optimizer": {"name": "sgd", "lr": 1e30}}), 2)]
    assert check(trials, place)[1].record.status == "diverged"


def test_sparse_inputs(monkeypatch: pytest.MonkeyPatch, place: Callable[..., Checkpoint]) -> None:
    monkeypatch.setattr(sparse, "_MAKING", -1.0)
    filled = (torch.arange(64 * 16).view(64, 16) % 7 == 0) * DATA.train_inputs
    monkeypatch.setattr(f"{__name__}.DATA", oracle.replace(DATA, train_inputs=filled))
    assert DATA.sparse(recipe_of()) is not None
    check([Trial(recipe_of(), seed) for seed in range(2)], place)


@pytest.mark.parametrize("part", ["network", "optimizer", "steps", "running statistics", "signal"])
def test_the_comparison_can_fail(part: str, place: Callable[..., Checkpoint], tmp_path: Path) -> None:
    """Whatever is left out of a check-point, by being put back to zero, shows."""
    trials = [Trial(recipe_of(normalization="batch"), seed) for seed in range(2)]
    interrupted(trials, place)
    folder = tmp_path / name_of(ids_of(trials))
    kept = read(folder)
    assert kept is not None
    state = kept.state
    if part == "signal":
        state["ledger"][1]["signal"][0][2] *= 1 + 1e-15
    for tensor in {
        "network": state["network"][:1],
        "running statistics": state["network"][-1:],
        "optimizer": state["optimizer"][0]["running"][1],
        "steps": state["optimizer"][0]["steps"],
        "signal": [],
    }[part]:
        tensor.zero_()
    write(folder, kept)
    calm = train(trials, ids_of(trials), DATA)
    found = resumed(trials, place)
    with pytest.raises(AssertionError):
        oracle.same_bits(found[1], calm[1])


def test_interrupted_again_and_again(place: Callable[..., Checkpoint], notices: list[str]) -> None:
    trials = [Trial(recipe_of(optimizer="rprop"), seed) for seed in range(2)]
    interrupted(trials, place, epoch=2)
    for _ in range(2):  # each hears first of what was done before, and gets one epoch further
        interrupted(trials, place, epoch=3)
    for ours, calm in zip(resumed(trials, place), train(trials, ids_of(trials), DATA), strict=True):
        oracle.same_bits(ours, calm)
    assert notices == [f"trial t0 and its stack: goes on after epoch {n}, from its check-point" for n in (1, 2, 3)]


def test_a_stack_at_its_end_is_not_trained_again(place: Callable[..., Checkpoint]) -> None:
    trials = [Trial(recipe_of(), 1)]
    first = resumed(trials, place)
    with oracle.watched() as losses:
        again = resumed(trials, place)
    assert losses == []
    oracle.same_bits(again[0], first[0])
    assert again[0].record.seconds == first[0].record.seconds


def test_all_members_dead_is_an_end_too(place: Callable[..., Checkpoint]) -> None:
    trials = [Trial(recipe_of(init={"name": "normal", "std": 1e30}), seed) for seed in range(2)]
    first = resumed(trials, place)
    for again, before in zip(resumed(trials, place), first, strict=True):
        oracle.same_bits(again, before)
        assert again.record.status == "diverged"


def test_pretraining_is_not_done_again(monkeypatch: pytest.MonkeyPatch, place: Callable[..., Checkpoint]) -> None:
    trials = [Trial(recipe_of(activation="sigmoid", pretraining={"name": "dbn", "epochs": 1, "batch_size": 16}), 1)]
    calm = train(trials, ["t0"], DATA)
    interrupted(trials, place, epoch=1)  # in epoch 1: what is there was written before it

    def forbidden(*_: Any) -> None:
        raise AssertionError("pre-trained again")

    monkeypatch.setattr(training, "pretrain", forbidden)
    oracle.same_bits(resumed(trials, place)[0], calm[0])


# --- what cannot be used


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [truncated, flipped, emptied, replaced, Path.unlink]


@pytest.mark.parametrize("file", [FILE, "2.safetensors"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_files(
    damage: Callable[[Path], object], file: str, place: Callable[..., Checkpoint], tmp_path: Path, notices: list[str]
) -> None:
    trials = [Trial(recipe_of(), 1)]
    interrupted(trials, place)
    damage(tmp_path / name_of(["t0"]) / file)
    found = resumed(trials, place)
    oracle.same_bits(found[0], train(trials, ["t0"], DATA)[0])
    if damage is Path.unlink and file == FILE:  # as if it had been killed before it wrote any
        assert notices == []
    else:
        assert len(notices) == 1
        assert notices[0].startswith("trial t0: its check-point is not used, and it starts anew: ")
        assert "damaged" in notices[0] or "cannot be read" in notices[0]


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (HERE | {"torch": "3"}, "torch 2, now 3"),
        (HERE | {"matmul": "onednn"}, "matmul None, now onednn"),
        ({}, "isa AVX2, now None; torch 2, now None"),
    ],
)
def test_left_on_something_else(
    now: dict[str, str], words: str, place: Callable[..., Checkpoint], notices: list[str], tmp_path: Path
) -> None:
    trials = [Trial(recipe_of(), 1)]
    interrupted(trials, place)
    with oracle.watched() as losses:
        train(trials, ["t0"], DATA, checkpoint=place(["t0"], runs_on=now))
    assert len(losses) == EPOCHS * 4
    assert notices == [
        f"trial t0: its check-point is not used, and it starts anew: it was left on something else: {words}"
    ]
    kept = read(tmp_path / name_of(["t0"]))
    assert kept is not None
    assert kept.runs_on == now


def test_a_state_of_another_shape_stops_nobody(
    place: Callable[..., Checkpoint], notices: list[str], tmp_path: Path
) -> None:
    """Which a change of the code without a new version could leave."""
    trials = [Trial(recipe_of(), 1)]
    interrupted(trials, place)
    folder = tmp_path / name_of(["t0"])
    calm = train(trials, ["t0"], DATA)[0]
    for spoil in (
        lambda state: state["network"].append(torch.zeros(3)),
        lambda state: state["network"].__setitem__(0, state["network"][0].double()),
        lambda state: state["optimizer"][0]["running"].pop(),
        lambda state: state.pop("ledger"),
    ):
        kept = read(folder)
        assert kept is not None
        spoil(kept.state)
        write(folder, kept)
        oracle.same_bits(resumed(trials, place)[0], calm)
    assert len(notices) == 4
    assert all("not used" in notice for notice in notices)


def test_other_trials_find_nothing(place: Callable[..., Checkpoint]) -> None:
    interrupted([Trial(recipe_of(), 1), Trial(recipe_of(), 2)], place)
    assert place(["t0", "t1"]).load() is not None
    for ids in (["t0"], ["t1", "t0"], ["t0", "t1", "t2"]):
        assert place(ids).load() is None


# --- files


def test_plain_data_and_tensors_come_back(tmp_path: Path) -> None:
    tensors = torch.tensor([0.1, math.inf, -0.0]), torch.tensor(3.0, dtype=torch.float64), torch.arange(6).view(2, 3).T
    state = {"a": [1, 0.1, None, True, "x", [tensors[0]]], "b": {"c": tensors[1], "d": tensors[2]}, "e": 5e-324}
    write(tmp_path / "k", Kept(["a", "b"], 7, HERE, state))
    kept = read(tmp_path / "k")
    assert kept is not None
    assert (kept.trials, kept.epoch, kept.runs_on) == (["a", "b"], 7, HERE)
    assert kept.state["a"][:5] == [1, 0.1, None, True, "x"]
    assert kept.state["e"] == 5e-324
    for found, given in zip((kept.state["a"][5][0], kept.state["b"]["c"], kept.state["b"]["d"]), tensors, strict=True):
        assert found.dtype == given.dtype
        assert torch.equal(found, given)
        assert torch.equal(found.signbit(), given.signbit())
    assert trials_of(tmp_path / "k") == ["a", "b"]


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    write(tmp_path, Kept(["a"], 1, {}, {"x": [math.nan, math.inf, -math.inf]}))
    kept = read(tmp_path)
    assert kept is not None
    assert repr(kept.state["x"]) == "[nan, inf, -inf]"


def test_only_the_latest_is_there_as_safetensors_and_json(place: Callable[..., Checkpoint], tmp_path: Path) -> None:
    resumed([Trial(recipe_of(), 1)], place)
    folder = tmp_path / name_of(["t0"])
    assert sorted(path.name for path in folder.iterdir()) == ["4.safetensors", FILE]
    assert json.loads((folder / FILE).read_text())["content"]["trials"] == ["t0"]
    assert load_file(folder / "4.safetensors")["state.network.0"].shape[0] == 1
    remove(folder)
    remove(folder)  # there is none
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", range(3))
def test_a_writer_killed_between_its_files(count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After `count` of the files of the second check-point: it is the first or the second, and whole."""
    write(tmp_path, Kept(["a"], 1, {}, {"x": torch.ones(3)}))
    original, left = checkpoints.atomic.write, [count]

    def killed(path: Path, content: bytes) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        original(path, content)

    monkeypatch.setattr(checkpoints.atomic, "write", killed)
    second = Kept(["a"], 2, {}, {"x": torch.full((3,), 2.0)})
    if count < 2:
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, second)
    else:
        write(tmp_path, second)
    kept = read(tmp_path)
    assert kept is not None
    assert (kept.epoch, kept.state["x"].tolist()) == ((2, [2.0] * 3) if count == 2 else (1, [1.0] * 3))


def test_paths_in_a_file_are_not_followed(tmp_path: Path) -> None:
    """The epoch makes the name of the file of tensors; what is no epoch leads nowhere else."""
    outside = tmp_path / "outside.safetensors"
    write(tmp_path / "a", Kept(["a"], 1, {}, {"x": torch.ones(1)}))
    (tmp_path / "a" / "1.safetensors").rename(outside)
    text = json.dumps(json.loads((tmp_path / "a" / FILE).read_text())["content"] | {"epoch": "../outside"})
    checksum = checkpoints.crc32(text.encode())
    (tmp_path / "a" / FILE).write_text(f'{{"checksum": {checksum}, "content": {text}}}')
    with pytest.raises(UnusableError):
        read(tmp_path / "a")


@pytest.mark.parametrize("content", [[], {"format": 2}, {"format": 1, "trials": "x", "epoch": 1}, {"format": 1}])
def test_what_is_no_check_point_at_all(content: Any, tmp_path: Path) -> None:
    text = json.dumps(content)
    (tmp_path / FILE).write_text(f'{{"checksum": {checkpoints.crc32(text.encode())}, "content": {text}}}')
    with pytest.raises(UnusableError):
        read(tmp_path)
    with pytest.raises(UnusableError):
        trials_of(tmp_path)


# --- when


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that the test sets."""
    now = SimpleNamespace(time=1000.0)
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: now.time))
    return now


def test_a_check_point_after_so_much_work(clock: SimpleNamespace, place: Callable[..., Checkpoint]) -> None:
    checkpoint, written = place(seconds=60.0), []
    for epoch in range(1, 14):  # 20 s each
        clock.time += 20.0
        checkpoint.offer(epoch, lambda epoch=epoch: written.append(epoch) or {})
    assert written == [3, 6, 9, 12]


def test_a_folder_that_is_another_runs_now_is_not_written(tmp_path: Path) -> None:
    ours, written = [True], []
    checkpoint = Checkpoint(tmp_path, ["a"], seconds=0, runs_on={}, notice=print, ours=lambda: ours[0])
    for epoch in range(1, 4):
        checkpoint.offer(epoch, lambda epoch=epoch: written.append(epoch) or {})
        ours[0] = epoch < 2
    assert written == [1, 2]


def test_a_slow_disk_is_used_less_often(clock: SimpleNamespace, place: Callable[..., Checkpoint]) -> None:
    checkpoint, written = place(seconds=60.0), []

    def state() -> dict[str, Any]:
        clock.time += 10.0
        written.append(clock.time)
        return {}

    for epoch in range(1, 73):
        clock.time += 20.0
        checkpoint.offer(epoch, state)
    assert len(written) == 7  # at 60 s, and then every 200 s and 10 more: 5 % of 1200
    assert all(b - a == 210.0 for a, b in pairwise(written))


def test_a_short_training_leaves_no_file(place: Callable[..., Checkpoint], tmp_path: Path) -> None:
    trials = [Trial(recipe_of(), 1)]
    train(trials, ["t0"], DATA, checkpoint=place(["t0"], seconds=60.0))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_no_result(
    tmp_path: Path, place: Callable[..., Checkpoint], notices: list[str]
) -> None:
    (tmp_path / name_of(["t0"])).write_text("a file")
    trials = [Trial(recipe_of(), 1)]
    oracle.same_bits(resumed(trials, place)[0], train(trials, ["t0"], DATA)[0])
    assert [notice.partition(":")[2].partition(":")[0] for notice in notices][-1] == " no check-points are written"
    assert sum("no check-points are written" in notice for notice in notices) == 1
