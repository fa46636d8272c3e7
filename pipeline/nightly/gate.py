"""The gate decides whether a new summary may replace the old one. It judges both on the same held-out interactions.

Tonight's held-out interactions show whether the new summary learned the new interactions. Those of the whole dataset
show whether it kept the known ones. With n users, the gate forgives 1/√n beside the tolerance, because the ratio of two
such summaries is known no better. So a night of a hundred users decides little, and one of ten thousand a lot.

A night of garbage teaches the new summary garbage, on which it may even be the better one. But the old summary has not
seen the garbage, and predicts it badly. If its quality is below half of the quality on the last night, nothing of this
night is folded in. The users differ from night to night. The mean over n of them is known to 3/√n of itself, because
most users have no hit at all. Its ratio to the mean over m users of another night is known to 3·√(1/n + 1/m).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from infrec.pipeline.cluster import Pool, Report
from infrec.pipeline.data import Dataset
from infrec.pipeline.serving import evaluate_all

METRIC = "nDCG@10"
COLLAPSE = 0.5
"""The fraction of last night's quality below which a night is garbage. A tolerance above one half lowers it."""

_ON_THE_SAME_USERS, _FROM_NIGHT_TO_NIGHT = 1.0, 3.0
"""The scatter of a user's quality as a fraction of the mean: in the ratio of two summaries, and by itself."""


@dataclass(frozen=True)
class Quality:
    """The quality (METRIC) of both summaries on the same users."""

    old: float | None
    """None if there was no old summary."""
    new: float
    users: int


@dataclass(frozen=True)
class Verdict:
    """The qualities that the gate found, and its decision."""

    known: Quality | None
    """The quality on the test part of the whole dataset."""
    fresh: Quality | None
    """The quality on tonight's share of that part. None if the night has none."""
    last_night: Quality | None
    """The quality that the next night is compared with: `fresh` of the last comparable night, tonight or before."""
    objection: str | None
    """The reason why the old summary stays. None if the new one may take its place."""

    @classmethod
    def on(
        cls, known: Quality | None, fresh: Quality | None, *, last_night: Quality | None, alike: bool, tolerance: float
    ) -> Self:
        """Return the verdict on these figures. `alike` says whether `fresh` can be compared with other nights."""
        comparable = fresh if alike else None
        because = objection(known, fresh, last_night if alike else None, tolerance)
        return cls(known, fresh, comparable or last_night, because)

    def to_json(self) -> dict[str, Any]:
        qualities = {"known": self.known, "fresh": self.fresh, "last_night": self.last_night}
        return {name: quality and asdict(quality) for name, quality in qualities.items()}


def last_night(record: Mapping[str, Any]) -> Quality | None:
    """Return the quality that the night after a version is compared with, from the record of that version."""
    found = record["quality"].get("last_night")
    return Quality(**found) if found else None


def judge(
    new: str,
    dataset: Dataset,
    pool: Pool,
    *,
    old: str | None,
    fresh: Dataset | None,
    last_night: Quality | None,
    alike: bool,
    tolerance: float,
    report: Report,
) -> Verdict:
    """Compare a new summary of `dataset` with the old one.

    Args:
        new: the address of the summary that was just made and is not published.
        dataset: the dataset that it was made from.
        pool: the actors that judge.
        old: the address of the current summary, if there is one.
        fresh: the users of tonight, with tonight's held-out interactions as their test part.
        last_night: the quality on the last night before, if there was one.
        alike: whether `fresh` was made in the same way on that night, so that the two can be compared.
        tolerance: the fraction of the old one's quality that the new one may lose.
        report: the function that is told the progress.
    """
    known = _quality(old, new, dataset, pool, report)
    tonight = _quality(old, new, fresh, pool, report) if fresh else None
    return Verdict.on(known, tonight, last_night=last_night, alike=alike, tolerance=tolerance)


def objection(known: Quality | None, fresh: Quality | None, last_night: Quality | None, tolerance: float) -> str | None:
    """Return why the old summary has to stay, as a part of a sentence; None if the new one may take its place."""
    if fresh and fresh.old is not None and last_night is not None:
        certain = _certain(_FROM_NIGHT_TO_NIGHT, last_night.users, fresh.users)
        least = last_night.new * min(COLLAPSE, 1 - tolerance) * certain
        if fresh.old < least:
            return (
                f"the new interactions look like garbage: {METRIC} of the published summary is {fresh.old:.2f} on "
                f"those of {fresh.users:,} users, after {last_night.new:.2f} on {last_night.users:,} users' the last "
                f"time"
            )
    for quality, where in ((fresh, "the new interactions"), (known, "all test interactions")):
        if quality and quality.old is not None:
            least = quality.old * (_certain(_ON_THE_SAME_USERS, quality.users) - tolerance)
            if quality.new < least:
                return (
                    f"the new summary is worse on {where} of {quality.users:,} users: {METRIC} {quality.new:.2f}, "
                    f"{quality.old:.2f} before, {least:.2f} would do"
                )
    return None


def _certain(scatter: float, *users: int) -> float:
    """Return the fraction of a mean over `users`, or of a ratio of two such means, that is beyond chance.

    `scatter` is that of one user's quality, as a fraction of the mean.
    """
    return max(0.0, 1 - scatter * math.sqrt(sum(1 / number for number in users)))


def _quality(old: str | None, new: str, dataset: Dataset, pool: Pool, report: Report) -> Quality | None:
    """Return the quality of both summaries on the test part; None if no user has anything to predict."""
    if not dataset.manifest.counts["test"]:
        return None
    models = [summary for summary in (old, new) if summary]
    *before, after = evaluate_all(models, dataset, pool, report=report)
    return Quality(before[0].metrics[METRIC] if before else None, after.metrics[METRIC], after.users)
