"""Freed memory that allocators keep for themselves: XLA's compiler and Arrow's readers leave a lot of it behind."""

from __future__ import annotations

import ctypes

import pyarrow as pa


def give_back_memory() -> None:
    """What this process has freed, to the system: of Arrow's pool, and of the C library where that is glibc."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
