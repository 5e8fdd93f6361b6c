"""What wraps a network or an optimiser: for several processes, for the compiler, by Accelerate; what is within."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from fanin.errors import FaninError


def unparallel(model: nn.Module) -> nn.Module:
    """The network within DataParallel and DistributedDataParallel, whose paths users know."""
    while type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
        inner = model.module
        assert isinstance(inner, nn.Module)
        model = inner
    return model


def bare(model: nn.Module) -> nn.Module:
    """The network within these, and within torch.compile."""
    model = unparallel(model)
    inner = getattr(model, "_orig_mod", None)
    return bare(inner) if isinstance(inner, nn.Module) else model


def alone(model: nn.Module) -> nn.Module:
    """The network that one process can train by itself: within DistributedDataParallel, DataParallel, torch.compile.

    So its copies exchange nothing with other processes, which need not train copies too. FaninError where they would
    have to: weights that are spread over processes (fully_shard, FullyShardedDataParallel, tensor parallelism), and
    SyncBatchNorm where there are several processes.
    """
    found = bare(model)
    words = next(filter(None, map(_shared, found.modules())), None)
    if words is not None:
        raise FaninError(f"model: expected a network that one process can run by itself; got {words}")
    return found


def needs_others(model: nn.Module) -> bool:
    """Whether a pass of the network within waits for other processes."""
    return any(_shared(part) is not None for part in bare(model).modules())


def _shared(part: nn.Module) -> str | None:
    """What of this module other processes have a part in, and what to do; None where it is all here."""
    kind = type(part).__name__
    if kind == "FullyShardedDataParallel" or any(map(sharded, part.parameters(recurse=False))):
        return (
            f"{kind}, whose weights are spread over several: give the network as it is before fully_shard (fanin.watch "
            "takes it as it is)"
        )
    if isinstance(part, nn.SyncBatchNorm) and _several():
        return "SyncBatchNorm, which waits for the others: give the network as it is before convert_sync_batchnorm"
    return None


def sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, of which each process holds a part."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """This process's part of a DTensor: asking for the whole would wait for the other processes. Others as they are."""
    return cast(Any, tensor).to_local() if sharded(tensor) else tensor


def unwrapped_optimizer(optimizer: Any) -> Any:
    """The optimiser of torch's that Accelerate's and Lightning's wrappers hold; anything else as it is."""
    while not hasattr(optimizer, "_optimizer_step_pre_hooks") and _holds_optimizer(optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def _holds_optimizer(value: Any) -> bool:
    inner = getattr(value, "optimizer", None)
    return isinstance(inner, torch.optim.Optimizer) or (inner is not None and _holds_optimizer(inner))


def _several() -> bool:
    parallel = torch.distributed
    return parallel.is_available() and parallel.is_initialized() and parallel.get_world_size() > 1
