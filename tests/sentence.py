"""How a job that cannot go on says so."""

from __future__ import annotations

import pytest


def assert_one_sentence(capsys: pytest.CaptureFixture[str], sentence: str) -> str:
    """Nothing on stdout, no traceback, and one line on stderr that explains, with these words in it: that line."""
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if line.startswith("infrec: ")]
    assert len(said) == 1 and sentence in said[0], captured.err
    assert "Traceback" not in captured.err and not captured.out, captured
    return said[0]
