"""Timestamps of any column type become 64-bit integers in the same order, whose global quantiles are exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infrec.pipeline.storage import InputError

RADIX_BITS = 16
_SIGN = np.uint64(1 << 63)


def is_time(type_: pa.DataType) -> bool:
    """Return whether a column of this type can hold times: integers, floats, timestamps and dates can."""
    return bool(
        pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_timestamp(type_)
        or pa.types.is_date(type_)
    )


def sortable(times: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return int64 values in the order of the times. Nulls become 0.

    Floats keep all their bits, and NaN sorts beyond ±infinity.
    """
    if pa.types.is_floating(times.type):
        bits = pc.fill_null(times.cast(pa.float64()), 0.0).to_numpy().view(np.int64)
        ordered: np.ndarray = bits ^ ((bits >> np.int64(63)) & np.int64(2**63 - 1))
        return ordered
    if pa.types.is_date(times.type):
        times = times.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(times.type):
        times = times.cast(pa.int64())
    whole: np.ndarray = pc.fill_null(times, 0).to_numpy().astype(np.int64, copy=False)
    return whole


def parse_time(text: str, type_: pa.DataType, setting: str) -> int:
    """Return the `sortable` value of the time that a setting gives as text.

    The text is a number if the column holds numbers, else an ISO date or time. Raises `InputError`, with the name of
    the setting, if a column of `type_` cannot have such a value.
    """
    try:
        if pa.types.is_floating(type_):
            time = pa.scalar(float(text), pa.float64())
        else:
            target = pa.timestamp("ms") if pa.types.is_date(type_) else type_
            time = pc.cast(pa.scalar(text), target)
    except (ValueError, pa.ArrowInvalid):
        raise InputError(f"{text} is not a value that the timestamp column ({type_}) can have.", setting) from None
    return int(sortable(pa.array([time], time.type))[0])


def quantile(fraction: float, histogram: Callable[[int, int], np.ndarray]) -> int:
    """Return the exact order statistic at ⌊fraction · n⌋ of n distributed int64 values, by radix selection.

    `histogram(shift, prefix)` takes all values whose higher bits are `prefix`, and counts their `RADIX_BITS` bits above
    `shift` (see `radix_histogram`). It is called 64 / `RADIX_BITS` times. Each call is a pass over the data.
    """
    prefix = 0
    rank: int | None = None
    for shift in range(64 - RADIX_BITS, -1, -RADIX_BITS):
        counts = histogram(shift, prefix)
        if rank is None:
            rank = int(fraction * int(counts.sum()))
        reached = np.cumsum(counts)
        digit = int(np.searchsorted(reached, rank, side="right"))
        rank -= int(reached[digit] - counts[digit])
        prefix = prefix << RADIX_BITS | digit
    return int((np.array([prefix], dtype=np.uint64) ^ _SIGN).view(np.int64)[0])


def radix_histogram(values: np.ndarray, shift: int, prefix: int) -> np.ndarray:
    """Return the share of some int64 values in `quantile`'s histogram: int64 [2 ** RADIX_BITS]."""
    keys = (values.view(np.uint64) ^ _SIGN) >> np.uint64(shift)
    if shift + RADIX_BITS < 64:
        keys = keys[keys >> np.uint64(RADIX_BITS) == np.uint64(prefix)]
    digits = (keys & np.uint64(2**RADIX_BITS - 1)).astype(np.int64)
    return np.bincount(digits, minlength=2**RADIX_BITS)
