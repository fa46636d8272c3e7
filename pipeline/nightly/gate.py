"""Whether a new summary may take the place of the old one: both are judged on the same held-out interactions.

Tonight's held-out interactions tell whether what is new was learned; those of the whole dataset, whether what was
known is kept. With n users, 1/√n is forgiven beside the tolerance, as the ratio of two such summaries is known no
better: a night of a hundred users decides little, one of ten thousand a lot.

A night of garbage teaches the new summary garbage, on which it may even be the better one. But the old summary has not
seen it, and predicts it badly: by less than half of what it did on the last night, nothing of this one is folded in.
From night to night the users are others. A mean of n of them is known to 3/√n of itself (most have no hit at all), and
the ratio to that of m on another night to 3·√(1/n + 1/m).
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
"""What is left of last night's quality on a night of garbage at most, unless the tolerance is for more."""

_ON_THE_SAME_USERS, _FROM_NIGHT_TO_NIGHT = 1.0, 3.0
"""How much a user's quality scatters, as a part of the mean: as the ratio of two summaries', and by itself."""


@dataclass(frozen=True)
class Quality:
    """Both summaries on the same users."""

    old: float | None
    """None: there was none."""
    new: float
    users: int


@dataclass(frozen=True)
class Verdict:
    """What was found, and what follows."""

    known: Quality | None
    """On the test part of the whole dataset."""
    fresh: Quality | None
    """On tonight's part of that; None where the night has none."""
    last_night: Quality | None
    """What the next night is to be compared with: `fresh` of the last one that had such, tonight or before."""
    objection: str | None
    """Why the old summary stays."""

    @classmethod
    def on(
        cls, known: Quality | None, fresh: Quality | None, *, last_night: Quality | None, alike: bool, tolerance: float
    ) -> Self:
        """Of these figures; `alike`: whether `fresh` is of the kind that other nights can be compared with."""
        comparable = fresh if alike else None
        because = objection(known, fresh, last_night if alike else None, tolerance)
        return cls(known, fresh, comparable or last_night, because)

    def to_json(self) -> dict[str, Any]:
        qualities = {"known": self.known, "fresh": self.fresh, "last_night": self.last_night}
        return {name: quality and asdict(quality) for name, quality in qualities.items()}


def last_night(record: Mapping[str, Any]) -> Quality | None:
    """What the night after a version is to be compared with, of that version's record."""
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
        new: the summary just made, not published.
        dataset: what it was made from.
        pool: the actors that judge.
        old: the summary that is current.
        fresh: the users of tonight, with tonight's held-out interactions for their test part.
        last_night: what was found on the last night before, where there was one.
        alike: whether `fresh` was made in the same way on that night, so that the two can be compared.
        tolerance: the part of the old one's quality that the new one may lose.
        report: of the progress.
    """
    known = _quality(old, new, dataset, pool, report)
    tonight = _quality(old, new, fresh, pool, report) if fresh else None
    return Verdict.on(known, tonight, last_night=last_night, alike=alike, tolerance=tolerance)


def objection(known: Quality | None, fresh: Quality | None, last_night: Quality | None, tolerance: float) -> str | None:
    """Why the old summary is to stay, as a part of a sentence; None if the new one may take its place."""
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
    """The part of a mean of so many users, or of a ratio of means, that is beyond chance, if a user's scatters so."""
    return max(0.0, 1 - scatter * math.sqrt(sum(1 / number for number in users)))


def _quality(old: str | None, new: str, dataset: Dataset, pool: Pool, report: Report) -> Quality | None:
    """None if nobody has anything to predict."""
    if not dataset.manifest.counts["test"]:
        return None
    models = [summary for summary in (old, new) if summary]
    *before, after = evaluate_all(models, dataset, pool, report=report)
    return Quality(before[0].metrics[METRIC] if before else None, after.metrics[METRIC], after.users)
