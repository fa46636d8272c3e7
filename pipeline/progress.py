"""How long-running work says how far it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Report(Protocol):
    """Called whenever `phase` has got to `done` of `total` units (rows, slices, users, …); `detail` is how it goes."""

    def __call__(self, phase: str, done: int, total: int, detail: str = "") -> None: ...


def silent(phase: str, done: int, total: int, detail: str = "") -> None:
    """Nobody is watching."""


OnValidation = Callable[[Mapping[str, Any]], None]
"""Called with step, λ and metrics of every validation of something that is being learned."""


def ignored(validation: Mapping[str, Any]) -> None:
    """Nobody wants to know."""
