"""Keyed streams: their bits by an independent Philox4x64-10, frozen words, independence, and the shapes of chance."""

from __future__ import annotations

import hashlib
import itertools
from math import factorial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fanin.streams import Stream

WORD = 2**64


def philox_block(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64 with ten rounds, after Salmon et al. (2011), section 4: two products, two exchanges a round."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [second // WORD ^ c[1] ^ k[0], second % WORD, first // WORD ^ c[3] ^ k[1], first % WORD]
        k = [(k[0] + 0x9E3779B97F4A7C15) % WORD, (k[1] + 0xBB67AE8584CAA73B) % WORD]
    return c


def expected(seed: int, purpose: str, count: int, *, epoch: int = 0, step: int = 0, layer: int = 0) -> list[int]:
    digest = hashlib.blake2b(f"{purpose}/{seed}".encode(), digest_size=16).digest()
    key = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
    words: list[int] = []
    for block in range(1, -(-count // 4) + 1):  # numpy counts up before it draws
        words += philox_block([block, layer, step, epoch], key)
    return words[:count]


def test_philox_against_a_published_known_answer() -> None:
    # Random123's known-answer file kat_vectors, philox4x64 10 rounds, counter and key all zero
    assert philox_block([0] * 4, [0] * 2) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


@given(
    seed=st.integers(0, 2**63 - 1),
    purpose=st.sampled_from(["weight", "bias", "order", "dropout", "anything"]),
    where=st.tuples(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**20)),
    count=st.integers(0, 23),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_words_against_an_independent_philox(seed: int, purpose: str, where: tuple[int, int, int], count: int) -> None:
    place = dict(zip(("epoch", "step", "layer"), where, strict=True))
    assert Stream(seed, purpose, **place).words(count).tolist() == expected(seed, purpose, count, **place)


# Every stored result rests on these bits: if a line here fails, the definition has changed, and with it
# `recipe.ENGINE_REVISION` must.
FROZEN: list[tuple[int, str, dict[str, int], list[int]]] = [
    (0, "weight", {}, [0xE346BE7A8145D443, 0x7A42F4A60BCE8D51, 0xB5AABD850407553C]),
    (1, "weight", {}, [0x719DACB0C6DBD258, 0x0F48FCE1B92B80F7, 0xC96AD3CE9F86FA3A]),
    (0, "bias", {}, [0xF8093621FCA088AF, 0x55109CBD02B04F76, 0x16110E22394F3F71]),
    (0, "order", {"epoch": 1}, [0xEE483640C8FEB98D, 0x1E25C7D61C999F82, 0x75B4E57577259B25]),
    (0, "order", {"epoch": 2}, [0x41AAE0146055CDCD, 0x985110748C8F7F2C, 0x9CDB166A974A2D61]),
    (
        7,
        "dropout",
        {"epoch": 1, "step": 2, "layer": 3},
        [0x6877D465FD8EB456, 0x0AFEC0619E7386AE, 0xE0B08806ABF55A4E],
    ),
    (2**63 - 1, "weight", {"layer": 1}, [0x7E5B61F9B0B493F8, 0x72489C9DCB46646A, 0xCBD3B060483F1C30]),
]


@pytest.mark.parametrize(("seed", "purpose", "place", "words"), FROZEN)
def test_frozen_words(seed: int, purpose: str, place: dict[str, int], words: list[int]) -> None:
    assert Stream(seed, purpose, **place).words(3).tolist() == words


def test_frozen_numbers() -> None:
    assert Stream(0, "order", epoch=1).permutation(10).tolist() == [1, 4, 8, 7, 9, 2, 3, 6, 5, 0]
    assert Stream(0, "dropout", epoch=1).uint16(6).tolist() == [39976, 29809, 51745, 62320, 26054, 16141]
    uniform = [0.8877982186397938, 0.47758416227207523, 0.7096365403886272]
    assert Stream(0, "weight").uniform((3,)).tolist() == uniform
    normal = [1.2149017593080647, -0.05621777074299818, 0.5523232278107374]
    assert Stream(0, "weight").normal((3,)).tolist() == pytest.approx(normal, rel=1e-15)


def test_keys_are_told_apart() -> None:
    places: list[dict[str, int]] = [{}, *({k: v} for k in ("epoch", "step", "layer") for v in (1, 2, 3))]
    keys = itertools.product((0, 1, 2, 10, 2**62), ("weight", "bias", "order", "dropout"), places)
    firsts = [tuple(Stream(seed, purpose, **place).words(4).tolist()) for seed, purpose, place in keys]
    assert len(set(firsts)) == len(firsts)


def test_streams_of_neighbouring_keys_do_not_overlap() -> None:
    # the first 4,000 words of each: shifted copies would share words, which 64 random bits practically never do
    words = [Stream(seed, p, layer=i).words(4000) for seed in (0, 1) for p in ("weight", "bias") for i in range(3)]
    assert len(np.unique(np.concatenate(words))) == 12 * 4000


@pytest.mark.parametrize("other", [{"seed": 1}, {"purpose": "bias"}, {"epoch": 1}, {"step": 1}, {"layer": 1}], ids=str)
def test_streams_of_neighbouring_keys_are_not_correlated(other: dict[str, Any]) -> None:
    def normal(seed: int = 0, purpose: str = "weight", **place: int) -> np.ndarray:
        return Stream(seed, purpose, **place).normal((20_000,))

    assert abs(np.corrcoef(normal(), normal(**other))[0, 1]) < 4 / 20_000**0.5


def test_what_others_drew_does_not_matter() -> None:
    alone = Stream(3, "weight", layer=1).words(8)
    other, ours = Stream(3, "weight", layer=0), Stream(3, "weight", layer=1)
    np.random.default_rng(0).random(10)
    other.words(1_000_001)
    assert np.array_equal(ours.words(8), alone)


@given(counts=st.lists(st.integers(0, 13), max_size=5))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_second_call_goes_on_at_a_block_of_its_own(counts: list[int]) -> None:
    stream, at = Stream(5, "weight"), 0
    everything = Stream(5, "weight").words(200)
    for count in counts:
        assert np.array_equal(stream.words(count), everything[at : at + count])
        at += -(-count // 4) * 4


def test_a_longer_draw_begins_with_a_shorter_one() -> None:
    for count in range(12):
        assert np.array_equal(Stream(0, "x").words(count), Stream(0, "x").words(50)[:count])
        assert np.array_equal(Stream(0, "x").uint16(count), Stream(0, "x").uint16(50)[:count])


def test_uint16_takes_the_lowest_bits_first() -> None:
    word = int(Stream(0, "x").words(1)[0])
    halves = [word >> shift & 0xFFFF for shift in (0, 16, 32, 48)]
    assert Stream(0, "x").uint16(4).tolist() == halves
    assert Stream(0, "x").uint16(3).tolist() == halves[:3]


def test_uniform_is_the_top_52_bits_at_the_middle_of_their_step() -> None:
    words = Stream(0, "x").words(6).tolist()
    uniform = Stream(0, "x").uniform((2, 3))
    assert uniform.shape == (2, 3)
    assert uniform.ravel().tolist() == [((w >> 12) + 0.5) / 2**52 for w in words]


@pytest.mark.parametrize(("word", "value"), [(0, 2.0**-53), (2**64 - 1, 1 - 2.0**-53)])
def test_uniform_never_reaches_its_ends(word: int, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "words", lambda self, count: np.full(count, word, dtype=np.uint64))
    assert Stream(0, "x").uniform((2,)).tolist() == [value] * 2
    assert np.isfinite(Stream(0, "x").normal((2,))).all()


@pytest.mark.parametrize("seed", range(3))
def test_distributions(seed: int) -> None:
    uniform, normal = Stream(seed, "x").uniform((50_000,)), Stream(seed, "x").normal((50_000,))
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert np.allclose(stats.norm.cdf(normal), uniform, rtol=1e-12, atol=0)  # one noise for every scheme
    pairs = np.histogram2d(uniform[::2], uniform[1::2], bins=8)[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3
    words = Stream(seed, "x").words(10_000)
    for bit in range(64):  # each of the 64 bits is fair: 5 standard deviations
        assert abs(int((words >> np.uint64(bit) & np.uint64(1)).sum()) - 5000) < 250
    counts = np.bincount(Stream(seed, "x").uint16(200_000) >> 8, minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-3


@given(n=st.integers(0, 300), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_permutation_is_one(n: int, seed: int) -> None:
    assert sorted(Stream(seed, "order").permutation(n).tolist()) == list(range(n))


def test_permutations_are_uniform() -> None:
    draws = 6000
    seen: dict[tuple[int, ...], int] = {}
    for epoch in range(draws):
        order = tuple(Stream(0, "order", epoch=epoch).permutation(4).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == factorial(4)
    assert stats.chisquare(list(seen.values())).pvalue > 1e-3


def test_a_permutation_sorts_its_words_and_keeps_the_order_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Stream(9, "order").words(1000)
    assert np.array_equal(words[Stream(9, "order").permutation(1000)], np.sort(words))
    monkeypatch.setattr(Stream, "words", lambda self, count: np.zeros(count, dtype=np.uint64))
    assert Stream(9, "order").permutation(50).tolist() == list(range(50))


@pytest.mark.parametrize("place", [{"epoch": -1}, {"step": 2**64}, {"layer": -3}], ids=str)
def test_places_outside_a_word_are_refused(place: dict[str, int]) -> None:
    with pytest.raises(OverflowError):
        Stream(0, "x", **place)
