"""What bits may depend on besides the recipe: how two records' environments differ in it, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Of engine.environment's entries; the others (stack, threads, Python, the system) change no bit by themselves.
KEYS = ("fanin", "torch", "numpy", "device", "cpu", "isa", "matmul")


def fingerprint(environment: Mapping[str, Any]) -> tuple[Any, ...]:
    """The environment's entries at KEYS; records with equal ones were computed by the same operations."""
    return tuple(environment.get(key) for key in KEYS)


def differences(earlier: Iterable[tuple[Any, ...]], now: tuple[Any, ...]) -> str:
    """`torch 2.12.0, now 2.13.0; isa ...`: how `now` differs from the nearest of the earlier fingerprints."""
    nearest = min(earlier, key=lambda known: sum(a != b for a, b in zip(known, now, strict=True)))
    return "; ".join(f"{key} {a}, now {b}" for key, a, b in zip(KEYS, nearest, now, strict=True) if a != b)
