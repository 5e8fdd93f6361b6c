"""Keyed random streams: the bits of a trial depend on (seed, purpose, epoch, step, layer) and on nothing else.

A stream is a Philox4x64 counter-based generator (Salmon et al., 2011). Its key is derived from the seed and the
purpose, its starting counter is (0, layer, step, epoch); the first word counts blocks. So no stream depends on how many
numbers another drew, on the slot of a trial in a stack, or on global state; and only raw Philox bits are used, whose
definition is fixed, not numpy's distributions, which may change between versions. Trials with equal seeds share their
streams: arms of a study are paired.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtri

WORD = 2**64
BLOCK = 4  # 64-bit words per Philox block


@lru_cache(maxsize=4096)
def key_of(seed: int, purpose: str) -> int:
    """128-bit Philox key of a seed and a purpose."""
    return int.from_bytes(hashlib.blake2b(f"{purpose}/{seed}".encode(), digest_size=16).digest(), "little")


class Stream:
    """Random numbers for one purpose at one place of one trial; a second call continues where the first ended."""

    def __init__(self, seed: int, purpose: str, *, epoch: int = 0, step: int = 0, layer: int = 0) -> None:
        counter = np.array([0, layer, step, epoch], dtype=np.uint64)
        self._bits: Any = np.random.Philox(key=key_of(seed, purpose), counter=counter)

    def words(self, count: int) -> np.ndarray:
        """`count` raw 64-bit words. Whole blocks are drawn, so that the next call starts at a block of its own."""
        drawn = -(-count // BLOCK) * BLOCK
        return self._bits.random_raw(drawn)[:count]

    def uint16(self, count: int) -> np.ndarray:
        """`count` uniform 16-bit integers: four to a word, the lowest bits first."""
        return self.words(-(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]

    def uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        """float64 uniform on the open interval (0, 1): (k + 1/2) / 2^52 for a 52-bit integer k."""
        k = self.words(int(np.prod(shape))) >> np.uint64(12)
        return ((k.astype(np.float64) + 0.5) * 2.0**-52).reshape(shape)

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """float64 standard normal, by the inverse distribution function of `uniform`: one noise for every scheme."""
        return ndtri(self.uniform(shape))

    def permutation(self, n: int) -> np.ndarray:
        """A uniform permutation of range(n): the order that sorts n random words, by their highest bits.

        The lowest bits, as many as n needs, give way to the position itself: a plain sort of numbers is several times
        faster than one that keeps track of positions, and ties keep their order.
        """
        low = np.uint64(2 ** (n - 1).bit_length() - 1)
        return (np.sort(self.words(n) & ~low | np.arange(n, dtype=np.uint64)) & low).astype(np.int64)
