"""Freed memory that allocators keep for themselves: XLA's compiler and Arrow's readers leave a lot of it behind."""

from __future__ import annotations

import ctypes

import pyarrow as pa

HEAPS = 2
"""Of the C library in each process, where it is glibc: it would make one for every thread that allocates, up to eight a
core, and each keeps what is freed in it."""
_M_ARENA_MAX = -8
"""Of glibc's mallopt."""


def limit_heaps() -> None:
    """Have no more than `HEAPS` in this process from now on."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option:
        set_option(_M_ARENA_MAX, HEAPS)


def give_back_memory() -> None:
    """What this process has freed, to the system: of Arrow's pool, and of the C library where that is glibc."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
