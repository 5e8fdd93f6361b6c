"""What a trial's bits and seconds may depend on besides its recipe: versions, processor, device, matmul path, stack."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from fanin.engine.matmul import cpu_model, in_use


def environment(device: torch.device, *, members: int) -> dict[str, Any]:
    """Plain data for the record: what this process runs on."""
    return _machine() | {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "matmul": in_use(),
        "threads": torch.get_num_threads(),
        "stack": members,
    }


@cache
def _machine() -> dict[str, Any]:
    return {
        "fanin": version("fanin"),
        "torch": str(torch.__version__),  # plain data: it is a class of torch's own
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "isa": torch.backends.cpu.get_cpu_capability(),
    }
