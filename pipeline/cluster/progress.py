"""The means by which a long-running job says how far it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

Detail = str | Mapping[str, float]
"""The description of how the work goes: words, or figures by name, such as the loss."""


class Report(Protocol):
    """A function that a job calls whenever `phase` has done `done` of its `total` units (rows, slices, users, …)."""

    def __call__(self, phase: str, done: int, total: int, detail: Detail = "") -> None: ...


def silent(phase: str, done: int, total: int, detail: Detail = "") -> None:
    """Show nothing: a `Report` for callers who do not watch."""


OnValidation = Callable[[Mapping[str, Any]], None]
"""A function that is called with step, λ and metrics of every validation during learning."""


def ignored(validation: Mapping[str, Any]) -> None:
    """Do nothing: an `OnValidation` for callers who do not want to know."""
