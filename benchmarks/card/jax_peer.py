"""JAX on the same card: benchmarks/peers/jax_scan.py, an epoch as one scan, its members under vmap."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import torch

from card.clock import Row, Scale, told
from card.peers import LARGEST
from way import Way

INSTALL = "pip install 'jax[cuda13]', or [cuda12] for an older driver"


def left_out(device: torch.device) -> str | None:
    """Why JAX is not measured, in one line; None if it can be."""
    if find_spec("jax") is None:
        return f"JAX is left out, for it is not installed ({INSTALL})"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of the card's memory
    import jax

    if device.type == "cuda" and jax.default_backend() != "gpu":
        return f"JAX is left out, for it sees no card ({INSTALL})"
    return None


def rows(sizes: Sequence[int], *, scale: Scale, device: torch.device) -> Iterator[Row]:
    """Ensembles in float32 and bfloat16; nothing if `left_out` has a reason."""
    if left_out(device) is not None:
        return
    for precision in ("float32", "bfloat16"):
        for members in (size for size in sizes if size <= LARGEST):
            yield _row(members, precision, scale)


class _Watch:
    """What the peer calls around its second epoch; the first compiles."""

    def start(self) -> None:
        self.begun = time.perf_counter()

    def stop(self) -> None:
        self.ended = time.perf_counter()


def _row(members: int, precision: str, scale: Scale) -> Row:
    short = {"float32": "fp32", "bfloat16": "bf16"}[precision]
    try:
        import jax

        from peers import jax_scan

        samples, preparation, loss = [], 0.0, 0.0
        # on a card XLA would otherwise compute float32 products in TF32
        with jax.default_matmul_precision("highest" if precision == "float32" else "default"):
            for i in range(scale.rounds):
                watch, begun = _Watch(), time.perf_counter()
                way = Way("", scale.steps, "blas", seed=i, members=members, precision=precision)
                loss = jax_scan.epoch(way, watch).loss
                samples.append((watch.ended - watch.begun) / scale.steps / members * 1e6)
                preparation = max(preparation, watch.begun - begun)  # of the first round, which compiles
        return Row("JAX, scan over vmap", members, short, tuple(samples), preparation, loss)
    except Exception as error:  # libraries raise what they like; the other ways are to be measured nevertheless
        return Row("JAX, scan over vmap", members, short, error=told(error))
