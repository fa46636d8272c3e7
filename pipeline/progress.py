"""How long-running work says how far it is, without knowing who shows it."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Called whenever `phase` has got to `done` of `total` units (rows, slices, users, …); `detail` is how it goes."""

    def __call__(self, phase: str, done: int, total: int, detail: str = "") -> None: ...


def silent(phase: str, done: int, total: int, detail: str = "") -> None:
    """Nobody is watching."""
