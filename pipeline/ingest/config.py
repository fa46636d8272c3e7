"""The options of an ingest."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from infrec.pipeline.ingest.reading.logs import Format, OnBadFile, Role
from infrec.pipeline.ingest.splits import Split
from infrec.pipeline.storage import InputError

ROWS_A_TASK = 1 << 20  # some 100 MB of working memory; large enough that Ray's cost per task does not show


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """What is read from a log, what is kept of it and how it is split."""

    format: Format = Format.AUTO
    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    """None: the column `rating`, if the log has one."""
    timestamp: str = "timestamp"
    split_column: str = "split"
    threshold: float | None = None
    """Interactions rated lower are dropped; None keeps every rating."""
    min_user_interactions: int = 1
    k_core: int = 1
    """Keep the largest set of interactions in which every user and every item has at least this many."""
    split: Split = Split.RANDOM
    validation_from: str | None = None
    """Where validation begins in a temporal split; None: after 80 % of what passes the filters."""
    test_from: str | None = None
    """Where test begins in a temporal split; None: after 90 % of them."""
    since: str | None = None
    """Rows of an earlier time are dropped."""
    until: str | None = None
    """Rows of this time or a later one are dropped."""
    seed: int = 0
    on_bad_file: OnBadFile = OnBadFile.ERROR
    items_from: str | None = None
    """An earlier dataset of a grown log, or a model: its items keep their indices, new ones follow."""
    known_items_only: bool = False
    """No new items: interactions with others than those of `items_from` are dropped."""
    piece_rows: int = ROWS_A_TASK
    """Rows of the log that one task reads at a time."""
    bucket_rows: int = ROWS_A_TASK
    """Rows of the log for each shard of the dataset, on average."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"--threshold must be a finite number, it is {self.threshold}.")
        for option, value in {
            "--min-user-interactions": self.min_user_interactions,
            "--k-core": self.k_core,
            "piece_rows": self.piece_rows,
            "bucket_rows": self.bucket_rows,
        }.items():
            if value < 1:
                raise InputError(f"{option} must be at least 1, it is {value}.")
        if self.split != Split.TEMPORAL and (self.validation_from or self.test_from):
            raise InputError("--validation-from and --test-from are for --split temporal only.")

    @property
    def described(self) -> dict[str, Any]:
        """The options as a manifest has them: without `items_from`, which is a place. Its content is an input."""
        return {name: value for name, value in asdict(self).items() if name != "items_from"}

    @property
    def names(self) -> dict[Role, str]:
        """What the column of each role is called."""
        return {
            Role.USER: self.user,
            Role.ITEM: self.item,
            Role.RATING: self.rating or "rating",
            Role.TIMESTAMP: self.timestamp,
            Role.SPLIT: self.split_column,
        }

    @property
    def needed(self) -> frozenset[Role]:
        """The roles without whose column this cannot be done."""
        optional = {
            Role.RATING: self.rating is not None or self.threshold is not None,
            Role.TIMESTAMP: self.split.needs_timestamp or self.since is not None or self.until is not None,
            Role.SPLIT: self.split == Split.COLUMN,
        }
        return frozenset(role for role in Role if optional.get(role, True))
