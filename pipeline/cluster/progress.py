"""How long-running work says how far it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

Detail = str | Mapping[str, float]
"""How it goes: in words, or as figures by name, such as the loss."""


class Report(Protocol):
    """Called whenever `phase` has got to `done` of `total` units (rows, slices, users, …)."""

    def __call__(self, phase: str, done: int, total: int, detail: Detail = "") -> None: ...


def silent(phase: str, done: int, total: int, detail: Detail = "") -> None:
    """Nobody is watching."""


OnValidation = Callable[[Mapping[str, Any]], None]
"""Called with step, λ and metrics of every validation of something that is being learned."""


def ignored(validation: Mapping[str, Any]) -> None:
    """Nobody wants to know."""
