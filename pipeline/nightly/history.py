"""What became of every run: one small file each, never rewritten, so that what a killed run had written stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from infrec.pipeline.storage import Location

_HISTORY = "history"


class Decision(StrEnum):
    PUBLISHED = "published"
    KEPT = "kept"
    """The new summary was worse: the old one stays."""
    ROLLED_BACK = "rolled back"
    FELL_BACK = "fell back"
    """The current version was damaged: an older one took its place."""


def entry(run: str, decision: Decision, version: str, **more: Any) -> dict[str, Any]:
    """A row of the history; `version` is the one that is current after it."""
    when = datetime.now(UTC).isoformat(timespec="microseconds")
    return {"when": when, "run": run, "decision": decision, "version": version, **more}


def hours_since(row: Mapping[str, Any]) -> float:
    """How long ago the run of a row ended."""
    return (datetime.now(UTC) - datetime.fromisoformat(row["when"])).total_seconds() / 3600


def record(root: Location, row: Mapping[str, Any]) -> None:
    """Add a row, unless it is there."""
    file = root / _HISTORY / f"{str(row['when'])[:26].replace(':', '')}.json"
    if not file.exists():
        file.write(json.dumps(row, indent=1, ensure_ascii=False).encode())


def rows(root: Location, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rows, the oldest first; says which cannot be read."""
    found = []
    for file in (root / _HISTORY).files():
        if file.name.endswith(".json"):
            try:
                row = json.loads(file.read().to_pybytes())
            except (ValueError, OSError):
                row = None
            if isinstance(row, dict) and row.keys() >= {"when", "decision", "version"}:
                found.append(row)
            else:
                say(f"{file} is damaged and left out: it does not say what became of a run.")
    return found
