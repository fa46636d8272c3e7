"""How long a test waits for something that is sure to come: a bound on hangs, which says nothing of speed."""

from __future__ import annotations

PATIENCE_SECONDS = 3600
"""Enough for a machine whose cores are busy with twenty other things."""
