"""Our own fixed 64-bit hash of user and item ids, vectorised.

Buckets, random splits and held-out users are keyed by it. So it must never change with the process, the worker count,
the library version or the Arrow type that an id happens to be stored in. Integers go through the splitmix64 finaliser.
Strings go through FNV-1a over their UTF-8 bytes, then through the same finaliser.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)


def mix(values: np.ndarray) -> np.ndarray:
    """Return splitmix64 of each value (uint64 in, uint64 out).

    It is a bijection on 64 bits in which every input bit moves about half of the output bits. Source: Steele, Lea and
    Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def keyed(values: np.ndarray, seed: int) -> np.ndarray:
    """Mix the hashes `values` (uint64) once more under a seed. Different seeds give independent streams (uint64)."""
    return mix(values ^ mix(np.array([seed], dtype=np.uint64)))


def hash_ids(ids: pa.Array) -> np.ndarray:
    """Return the hash of every id: uint64 [len(ids)].

    `ids` holds integers or strings of any width, layout (string, large_string, string_view, dictionary) or slicing
    offset. It holds no nulls. Equal integers hash equally whatever their width, and equal strings whatever their
    layout.
    """
    if pa.types.is_dictionary(ids.type):
        of_code: np.ndarray = hash_ids(ids.dictionary)[ids.indices.to_numpy()]
        return of_code
    if pa.types.is_integer(ids.type):
        wide = ids.to_numpy().astype(np.uint64 if ids.type == pa.uint64() else np.int64, copy=False)
        return mix(wide.view(np.uint64))
    return mix(_fnv1a(ids.cast(pa.large_string())))


def _fnv1a(strings: pa.LargeStringArray) -> np.ndarray:
    """Return FNV-1a of every string. Each byte position takes one vectorised step over the strings that reach it."""
    if len(strings) == 0:
        return np.empty(0, dtype=np.uint64)
    _, offset_buffer, byte_buffer = strings.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[strings.offset : strings.offset + len(strings) + 1]
    content = np.frombuffer(byte_buffer or b"", dtype=np.uint8)
    lengths = np.diff(offsets)
    longest_first = np.argsort(-lengths, kind="stable")
    starts = offsets[:-1][longest_first]
    reaching = np.cumsum(np.bincount(lengths)[::-1])[::-1]  # reaching[p] strings have at least p bytes
    hashes = np.full(len(strings), _FNV_OFFSET)
    for position, count in enumerate(reaching[1:]):
        head = hashes[:count]
        head ^= content[starts[:count] + position]
        head *= _FNV_PRIME
    result = np.empty_like(hashes)
    result[longest_first] = hashes
    return result
