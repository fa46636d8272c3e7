"""When a new summary may take the place of the old one, by the figures alone."""

from __future__ import annotations

import pytest

from pipeline.resummarize.gate import Quality, objection

MANY = 1_000_000


@pytest.mark.parametrize(
    ("fresh", "known", "last_night", "tolerance", "sentence"),
    [
        (Quality(20.0, 20.0, MANY), Quality(30.0, 30.0, MANY), 20.0, 0.0, None),
        (Quality(20.0, 19.7, MANY), Quality(30.0, 29.5, MANY), 20.0, 0.02, None),
        (
            Quality(20.0, 19.5, MANY),
            Quality(30.0, 31.0, MANY),
            20.0,
            0.02,
            "worse on the new interactions of 1,000,000",
        ),
        (
            Quality(20.0, 21.0, MANY),
            Quality(30.0, 29.0, MANY),
            20.0,
            0.02,
            "worse on all test interactions of 1,000,000",
        ),
        (Quality(20.0, 19.5, MANY), Quality(30.0, 29.0, MANY), 20.0, 0.05, None),
        # A hundred users are known to a tenth
        (Quality(20.0, 18.0, 100), Quality(30.0, 30.0, MANY), 20.0, 0.02, None),
        (
            Quality(20.0, 17.5, 100),
            Quality(30.0, 30.0, MANY),
            20.0,
            0.02,
            "nDCG@10 17.50, 20.00 before, 17.60 would do",
        ),
        (Quality(20.0, 0.0, 1), Quality(30.0, 30.0, MANY), 20.0, 0.0, None),
        # The old summary does not know tonight again, though the new one has learned it
        (Quality(9.0, 15.0, MANY), Quality(30.0, 30.0, MANY), 20.0, 0.02, "look like garbage"),
        (Quality(10.0, 15.0, MANY), Quality(30.0, 30.0, MANY), 20.0, 0.02, None),
        (Quality(9.0, 15.0, MANY), Quality(30.0, 30.0, MANY), 20.0, 0.6, None),
        (Quality(4.0, 4.0, 36), Quality(30.0, 30.0, MANY), 20.0, 0.02, "look like garbage"),
        (Quality(6.0, 6.0, 36), Quality(30.0, 30.0, MANY), 20.0, 0.02, None),
        (Quality(0.0, 0.0, 9), Quality(30.0, 30.0, MANY), 20.0, 0.02, None),
        (Quality(9.0, 15.0, MANY), Quality(30.0, 30.0, MANY), None, 0.02, None),  # the first night
        (None, Quality(30.0, 29.0, MANY), 20.0, 0.02, "worse on all test interactions"),
        (None, Quality(None, 29.0, MANY), None, 0.02, None),  # the first version
        (None, None, None, 0.02, None),  # nothing to judge by
    ],
)
def test_the_gate(
    fresh: Quality | None, known: Quality | None, last_night: float | None, tolerance: float, sentence: str | None
) -> None:
    found = objection(known, fresh, last_night, tolerance)
    assert found is None if sentence is None else found and sentence in found
