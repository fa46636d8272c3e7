"""The id hash against a plain Python one, over every type and layout that ids come in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from infrec.pipeline.ingest.hashing import hash_ids, keyed, mix

MASK = 2**64 - 1


def splitmix64(value: int) -> int:
    z = (value + 0x9E3779B97F4A7C15) & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def fnv1a(text: str) -> int:
    result = 0xCBF29CE484222325
    for byte in text.encode():
        result = (result ^ byte) * 0x100000001B3 & MASK
    return result


def test_the_oracle_agrees_with_published_constants() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the first output of splitmix64 seeded with 0
    assert fnv1a("") == 0xCBF29CE484222325
    assert fnv1a("a") == 0xAF63DC4C8601EC8C
    assert fnv1a("foobar") == 0x85944171F73967E8


@pytest.mark.parametrize("type_", [pa.int8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64()])
def test_integers_hash_equally_whatever_their_width(type_: pa.DataType) -> None:
    values = [0, 1, 2, 77, 127] + ([-1, -128] if pa.types.is_signed_integer(type_) else [])
    assert hash_ids(pa.array(values, type_)).tolist() == [splitmix64(value & MASK) for value in values]


def test_integers_over_the_whole_range() -> None:
    signed = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 1000)
    assert hash_ids(pa.array(signed)).tolist() == [splitmix64(int(value) & MASK) for value in signed]
    assert hash_ids(pa.array([MASK], pa.uint64())).tolist() == [splitmix64(MASK)]


STRINGS = ["", "a", "foobar", "ü", "日本語", "a" * 300, "foobar", "b\0c", *(f"user-{n}" for n in range(200))]


@pytest.mark.parametrize(
    "layout",
    [
        pa.array,
        lambda strings: pa.array(strings, pa.large_string()),
        lambda strings: pa.array(strings, pa.string_view()),
        lambda strings: pa.array(strings).dictionary_encode(),
        lambda strings: pa.array(["x", "yy", *strings, "z"]).slice(2, len(strings)),
        lambda strings: pa.array(["x", "yy", *strings, "z"]).dictionary_encode().slice(2, len(strings)),
    ],
    ids=["string", "large_string", "string_view", "dictionary", "slice", "dictionary slice"],
)
def test_strings_hash_equally_whatever_their_layout(layout) -> None:
    assert hash_ids(layout(STRINGS)).tolist() == [splitmix64(fnv1a(string)) for string in STRINGS]


def test_no_ids_no_hashes() -> None:
    assert hash_ids(pa.array([], pa.string())).tolist() == []
    assert hash_ids(pa.array([], pa.int64())).tolist() == []


def test_seeds_give_independent_streams() -> None:
    hashes = mix(np.arange(10_000, dtype=np.uint64))
    low = [(keyed(hashes, seed) < 2**63) for seed in (0, 1)]
    assert abs(np.mean(low[0]) - 0.5) < 0.02
    assert abs(np.mean(low[0] == low[1]) - 0.5) < 0.02
