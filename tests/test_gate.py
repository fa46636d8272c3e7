"""When a new summary may take the place of the old one, by the figures alone."""

from __future__ import annotations

import json

import pytest

from infrec.pipeline.nightly.gate import Quality, Verdict, last_night, objection

MANY = 1_000_000
LAST = Quality(15.0, 20.0, MANY)


@pytest.mark.parametrize(
    ("fresh", "known", "last_night", "tolerance", "sentence"),
    [
        (Quality(20.0, 20.0, MANY), Quality(30.0, 30.0, MANY), LAST, 0.0, None),
        (Quality(20.0, 19.7, MANY), Quality(30.0, 29.5, MANY), LAST, 0.02, None),
        (
            Quality(20.0, 19.5, MANY),
            Quality(30.0, 31.0, MANY),
            LAST,
            0.02,
            "worse on the new interactions of 1,000,000",
        ),
        (
            Quality(20.0, 21.0, MANY),
            Quality(30.0, 29.0, MANY),
            LAST,
            0.02,
            "worse on all test interactions of 1,000,000",
        ),
        (Quality(20.0, 19.5, MANY), Quality(30.0, 29.0, MANY), LAST, 0.05, None),
        # A hundred users are known to a tenth
        (Quality(20.0, 18.0, 100), Quality(30.0, 30.0, MANY), LAST, 0.02, None),
        (
            Quality(20.0, 17.5, 100),
            Quality(30.0, 30.0, MANY),
            LAST,
            0.02,
            "nDCG@10 17.50, 20.00 before, 17.60 would do",
        ),
        (Quality(20.0, 0.0, 1), Quality(30.0, 30.0, MANY), LAST, 0.0, None),
        # The old summary does not know tonight again, though the new one has learned it
        (Quality(9.0, 15.0, MANY), Quality(30.0, 30.0, MANY), LAST, 0.02, "look like garbage"),
        (Quality(10.0, 15.0, MANY), Quality(30.0, 30.0, MANY), LAST, 0.02, None),
        (Quality(9.0, 15.0, MANY), Quality(30.0, 30.0, MANY), LAST, 0.6, None),
        (Quality(4.0, 4.0, 36), Quality(30.0, 30.0, MANY), LAST, 0.02, "look like garbage"),
        (Quality(6.0, 6.0, 36), Quality(30.0, 30.0, MANY), LAST, 0.02, None),
        (Quality(0.0, 0.0, 9), Quality(30.0, 30.0, MANY), LAST, 0.02, None),
        # One lucky user of the last night says nothing, a hundred something
        (Quality(4.0, 4.0, MANY), Quality(30.0, 30.0, MANY), Quality(15.0, 100.0, 1), 0.02, None),
        (Quality(6.9, 6.9, MANY), Quality(30.0, 30.0, MANY), Quality(15.0, 20.0, 100), 0.02, "on 100 users' the last"),
        (Quality(7.1, 7.1, MANY), Quality(30.0, 30.0, MANY), Quality(15.0, 20.0, 100), 0.02, None),
        (Quality(5.7, 5.7, 100), Quality(30.0, 30.0, MANY), Quality(15.0, 20.0, 100), 0.02, "look like garbage"),
        (Quality(5.8, 5.8, 100), Quality(30.0, 30.0, MANY), Quality(15.0, 20.0, 100), 0.02, None),
        (Quality(9.0, 15.0, MANY), Quality(30.0, 30.0, MANY), None, 0.02, None),  # the first night
        (None, Quality(30.0, 29.0, MANY), LAST, 0.02, "worse on all test interactions"),
        (None, Quality(None, 29.0, MANY), None, 0.02, None),  # the first version
        (None, None, None, 0.02, None),  # nothing to judge by
    ],
)
def test_the_gate(
    fresh: Quality | None, known: Quality | None, last_night: Quality | None, tolerance: float, sentence: str | None
) -> None:
    found = objection(known, fresh, last_night, tolerance)
    assert found is None if sentence is None else found and sentence in found


def test_a_night_is_compared_with_the_last_one_that_had_figures() -> None:
    found = None
    for fresh, alike in ((None, False), (LAST, True), (None, True), (Quality(1.0, 1.0, MANY), False), (None, False)):
        verdict = Verdict.on(None, fresh, last_night=found, alike=alike, tolerance=0.02)
        assert verdict.objection is None  # not of a night that cannot be compared either
        found = last_night({"quality": json.loads(json.dumps(verdict.to_json()))})
        assert found == (LAST if fresh or found else None)
    verdict = Verdict.on(None, Quality(1.0, 1.0, MANY), last_night=found, alike=True, tolerance=0.02)
    assert verdict.objection and "look like garbage" in verdict.objection
    assert last_night({"quality": {"known": None, "fresh": None}}) is None  # of an older infrec
