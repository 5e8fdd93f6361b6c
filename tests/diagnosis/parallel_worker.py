"""One of two processes that train one network: what watching, diagnosing and one batch by heart do there; prints JSON.

Run by test_parallel: `python -m tests.diagnosis.parallel_worker RANK FILE`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as parallel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from fanin.diagnosis import diagnose
from fanin.diagnosis.lr_find import lr_find
from fanin.diagnosis.one_batch import overfit_one_batch
from fanin.diagnosis.watch import watch
from fanin.diagnosis.watch.watching import Watch
from fanin.errors import FaninError
from fanin.training.wrappers import local

Wrap = Callable[[nn.Module], nn.Module]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def data(rank: int) -> tuple[Tensor, Tensor]:
    """Of each process its own."""
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(rank))
    return x, x[:, :3].argmax(1)


def trained(
    wrap: Wrap, rank: int, *, watched: bool, broken: bool = False, lr: float = 0.1
) -> tuple[nn.Module, torch.optim.Optimizer, Watch]:
    """After six steps; broken: the fourth batch of process 0 is no number."""
    model, criterion, (x, y) = wrap(net()), nn.CrossEntropyLoss(), data(rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    look = watch(model, optimizer, every=2, loss=criterion, on_finding=lambda _: None)
    if watched:
        look.__enter__()
    for step in range(6):
        optimizer.zero_grad()
        criterion(model(x * torch.nan if broken and step == 3 and rank == 0 else x), y).backward()
        optimizer.step()
    if watched:
        look.__exit__(None, None, None)
    return model, optimizer, look


def state(model: nn.Module) -> list[Tensor]:
    """This process's part of all that a network holds, and its gradients."""
    tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None)]
    return [local(t).detach().clone() for t in tensors]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def watching(wrap: Wrap, rank: int) -> dict[str, Any]:
    plain, seen = (trained(wrap, rank, watched=watched) for watched in (False, True))
    other = trained(wrap, rank, watched=False, lr=0.11)
    lone = trained(wrap, rank, watched=rank == 0)
    account = seen[2].to_dict()
    _, _, broke = trained(wrap, rank, watched=True, broken=True)
    return {
        "same": same(state(plain[0]), state(seen[0])),
        "lone": same(state(plain[0]), state(lone[0])),
        "other": same(state(plain[0]), state(other[0])),
        "layers": [row["name"] for row in account["layers"]],
        "weights": [row["name"] for row in account["weights"] if row["gradient"]],
        "findings": [finding.cause for finding in seen[2].findings],
        "unseen": list(seen[2].unseen),
        "broken": [[finding.cause, finding.layer, finding.evidence] for finding in broke.findings],
        "hooks": [sum(len(part._forward_hooks) for part in one[0].modules()) for one in (plain, seen)],
    }


def said(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    try:
        return str(function(*args, **options))
    except FaninError as error:
        return f"FaninError: {error}"


def main(rank: int, store: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    parallel.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))

    def sharded(model: nn.Module) -> nn.Module:
        return fully_shard(model, mesh=mesh)

    found: dict[str, Any] = {"ddp": watching(DistributedDataParallel, rank), "fsdp": watching(sharded, rank)}
    model, optimizer, _ = trained(DistributedDataParallel, rank, watched=False)
    if rank == 0:  # alone: nothing waits for the other process
        before, random = state(model), torch.get_rng_state()
        found["diagnose"] = said(diagnose, model, data(0), optimizer=optimizer, steps=10)
        found["by heart"] = said(overfit_one_batch, model, data(0), optimizer=optimizer, steps=40)
        found["untouched"] = same(before, state(model)) and torch.equal(random, torch.get_rng_state())
    shards, _, _ = trained(sharded, rank, watched=False)
    if rank == 0:
        found["refused"] = [said(f, shards, data(0)) for f in (diagnose, overfit_one_batch, lr_find)]
    parallel.barrier()
    parallel.destroy_process_group()
    return found


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2])))
