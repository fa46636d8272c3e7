"""The history: the outcome of every run, in one small file each. No file is rewritten, so a killed run's row stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from infrec.pipeline.storage import Location

_HISTORY = "history"


class Decision(StrEnum):
    """The outcome of a run."""

    PUBLISHED = "published"
    KEPT = "kept"
    """The new summary was worse, so the old one stays."""
    ROLLED_BACK = "rolled back"
    FELL_BACK = "fell back"
    """The current version was damaged, so an older one took its place."""


def entry(run: str, decision: Decision, version: str, **more: Any) -> dict[str, Any]:
    """Return a row of the history. `version` is the version that is current after the run."""
    when = datetime.now(UTC).isoformat(timespec="microseconds")
    return {"when": when, "run": run, "decision": decision, "version": version, **more}


def hours_since(row: Mapping[str, Any]) -> float:
    """Return the hours since the run of a row ended."""
    return (datetime.now(UTC) - datetime.fromisoformat(row["when"])).total_seconds() / 3600


def record(root: Location, row: Mapping[str, Any]) -> None:
    """Write a row, unless it is there already."""
    file = root / _HISTORY / f"{str(row['when'])[:26].replace(':', '')}.json"
    if not file.exists():
        file.write(json.dumps(row, indent=1, ensure_ascii=False).encode())


def rows(root: Location, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return all rows, the oldest first. `say` gets a sentence for each row that cannot be read."""
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
