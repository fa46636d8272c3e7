"""The settings of an ingest."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from infrec.pipeline.ingest.reading.logs import Format, OnBadFile, Role
from infrec.pipeline.ingest.splits import Split
from infrec.pipeline.storage import InputError

ROWS_A_TASK = 1 << 20  # some 100 MB of working memory; a task is so large that Ray's cost per task does not show


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """The settings of an ingest: which rows of a log are read and kept, and how they are split.

    Raises `InputError` for values out of range.
    """

    format: Format = Format.AUTO
    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    """The column of ratings. None: the column `rating`, if the log has one."""
    timestamp: str = "timestamp"
    split_column: str = "split"
    threshold: float | None = None
    """Interactions rated lower are dropped; None keeps every rating."""
    min_user_interactions: int = 1
    k_core: int = 1
    """Keep the largest set of interactions in which every user and every item has at least this many."""
    split: Split = Split.RANDOM
    validation_from: str | None = None
    """The time at which validation begins in a temporal split. None: after 80 % of what passes the filters."""
    test_from: str | None = None
    """The time at which test begins in a temporal split. None: after 90 % of what passes the filters."""
    since: str | None = None
    """Rows before this time are dropped."""
    until: str | None = None
    """Rows at or after this time are dropped."""
    seed: int = 0
    on_bad_file: OnBadFile = OnBadFile.ERROR
    items_from: str | None = None
    """An earlier dataset of a grown log, or a model. Its items keep their indices, and new items follow them."""
    known_items_only: bool = False
    """Whether there are no new items: then interactions with items that `items_from` lacks are dropped."""
    piece_rows: int = ROWS_A_TASK
    """Rows of the log that one task reads at a time."""
    bucket_rows: int = ROWS_A_TASK
    """Rows of the log for each shard of the dataset, on average."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"The threshold must be a finite number, it is {self.threshold}.", "threshold")
        for setting, noun in {
            "min_user_interactions": "least number of interactions of a user",
            "k_core": "k of the k-core",
            "piece_rows": "number of rows of a piece",
            "bucket_rows": "number of rows of a bucket",
        }.items():
            value = getattr(self, setting)
            if value < 1:
                raise InputError(f"The {noun} must be at least 1, it is {value}.", setting)
        if self.split != Split.TEMPORAL and (self.validation_from or self.test_from):
            raise InputError(
                "The times at which validation and test begin are for the split temporal only.",
                "validation_from",
                "test_from",
                "split",
            )

    @property
    def described(self) -> dict[str, Any]:
        """The settings as a manifest has them: without `items_from`, which is a place. Its content is an input."""
        return {name: value for name, value in asdict(self).items() if name != "items_from"}

    @property
    def names(self) -> dict[Role, str]:
        """The name of each role's column."""
        return {
            Role.USER: self.user,
            Role.ITEM: self.item,
            Role.RATING: self.rating or "rating",
            Role.TIMESTAMP: self.timestamp,
            Role.SPLIT: self.split_column,
        }

    @property
    def needed(self) -> frozenset[Role]:
        """The roles whose columns the log must have."""
        optional = {
            Role.RATING: self.rating is not None or self.threshold is not None,
            Role.TIMESTAMP: self.split.needs_timestamp or self.since is not None or self.until is not None,
            Role.SPLIT: self.split == Split.COLUMN,
        }
        return frozenset(role for role in Role if optional.get(role, True))
