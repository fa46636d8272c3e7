"""Memory that allocators keep after it was freed. XLA's compiler and Arrow's readers leave a lot of it behind."""

from __future__ import annotations

import ctypes

import pyarrow as pa

HEAPS = 2
"""The number of heaps of the C library in each process, where it is glibc. By itself glibc would make one for every
thread that allocates, up to eight a core, and each heap keeps the memory that is freed in it."""
_M_ARENA_MAX = -8
"""The number of this option in glibc's mallopt."""


def limit_heaps() -> None:
    """Allow this process no more than `HEAPS` heaps from now on. Without glibc nothing happens."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option:
        set_option(_M_ARENA_MAX, HEAPS)


def give_back_memory() -> None:
    """Give the freed memory of this process back to the system: that of Arrow's pool, and that of the C library.

    The C library gives it back where it is glibc.
    """
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
