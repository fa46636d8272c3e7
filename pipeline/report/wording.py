"""The wording of numbers in a report."""

from __future__ import annotations

import json
from typing import Any

from matplotlib.ticker import EngFormatter

SPACE = "\N{NO-BREAK SPACE}"


def as_number(value: float) -> str:
    """Return an integer in full, and any other number with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def as_seconds(value: float) -> str:
    """Return seconds as text, such as 12.3 ms, 12.3 s or 5,400 s."""
    return f"{value:,.0f}{SPACE}s" if value >= 1000 else EngFormatter("s", places=1, sep=SPACE)(value)


def as_bytes(value: float) -> str:
    """Return bytes as text, such as 12.3 MB."""
    return EngFormatter("B", places=1, sep=SPACE)(value)


def as_times(ratio: float) -> str:
    """Return a ratio as text, such as 2.5 × or 120 ×."""
    return f"{ratio:,.0f}{SPACE}×" if ratio >= 10 else f"{ratio:.1f}{SPACE}×"


def as_plain(value: Any) -> str:
    """Return an option of a sweep, or a fact about its dataset, as text."""
    if isinstance(value, list | tuple):
        return ", ".join(as_plain(each) for each in value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return as_number(value) if isinstance(value, int | float) else str(value)
