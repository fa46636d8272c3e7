"""The settings of a resummarization: how to read the log, how large the summary is, and when it may be published."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from infrec.pipeline.distillation import DistillConfig
from infrec.pipeline.ingest import IngestConfig, Split
from infrec.pipeline.nightly import clock
from infrec.pipeline.storage import InputError


@dataclass(frozen=True, kw_only=True)
class ResummarizeConfig:
    """The settings by which summaries are made of a log. All others are as in `infrec ingest` and `infrec distill`.

    Raises `InputError` for a value out of range.
    """

    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    timestamp: str = "timestamp"
    threshold: float | None = None
    budget: int = 500
    window: str | None = None
    """The age, such as `90d`, above which interactions are left out. None means that all count for ever."""
    seed: int = 0
    steps: int | None = None
    """The steps of a distillation from nothing, as in the first run. None means the number that suits the budget.

    A warm start takes a fraction of them.
    """
    tolerance: float = 0.02
    """The fraction of the old summary's quality that a new one may lose."""
    keep: int = 3
    """The number of versions that stay for a rollback, including the current one."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise InputError(f"The tolerance must lie in 0 … 1, it is {self.tolerance:g}.", "tolerance")
        if self.keep < 1:
            raise InputError(f"The number of versions to keep must be at least 1, it is {self.keep}.", "keep")
        if self.window is not None:
            clock.days(self.window)
        self.ingest()  # these configs check their own fields
        self.distill("000001", warm=False)

    @property
    def lasting(self) -> dict[str, Any]:
        """The settings that all versions of a state have in common."""
        free = ("steps", "tolerance", "keep")
        return {name: value for name, value in asdict(self).items() if name not in free}

    def ingest(self, **more: Any) -> IngestConfig:
        """Return the config of an ingest of the log, with `more` of its fields."""
        return IngestConfig(
            user=self.user,
            item=self.item,
            rating=self.rating,
            timestamp=self.timestamp,
            threshold=self.threshold,
            split=Split.STABLE,
            seed=self.seed,
            **more,
        )

    def distill(self, version: str, *, warm: bool) -> DistillConfig:
        """Return the config that distills a version. Every version has noise and batches of its own."""
        given = {} if self.steps is None else {"steps": self.steps}
        config = DistillConfig.for_budget(self.budget, seed=self.seed + int(version) - 1, **given)
        return config.warm() if warm else config
