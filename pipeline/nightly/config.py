"""What a resummarization is told: how to read the log, how large a summary is to be, and when it may be published."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from infrec.pipeline.distillation import DistillConfig
from infrec.pipeline.ingest import IngestConfig, Split
from infrec.pipeline.nightly import clock
from infrec.pipeline.storage import InputError


@dataclass(frozen=True, kw_only=True)
class ResummarizeConfig:
    """How summaries are made of a log. What has no default of its own is as in `infrec ingest` and `infrec distill`."""

    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    timestamp: str = "timestamp"
    threshold: float | None = None
    budget: int = 500
    window: str | None = None
    """Such as `90d`: older interactions are left out. None: all count for ever."""
    seed: int = 0
    steps: int | None = None
    """Of a distillation from nothing, as in the first run; None: what suits the budget. A warm start takes a part."""
    tolerance: float = 0.02
    """The part of the old summary's quality that a new one may lose."""
    keep: int = 3
    """Versions that stay for a rollback, the current one among them."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise InputError(f"The tolerance must lie in 0 … 1, it is {self.tolerance:g}.", "tolerance")
        if self.keep < 1:
            raise InputError(f"The number of versions to keep must be at least 1, it is {self.keep}.", "keep")
        if self.window is not None:
            clock.days(self.window)
        self.ingest()  # these check what is theirs
        self.distill("000001", warm=False)

    @property
    def lasting(self) -> dict[str, Any]:
        """The options that all versions of a state have in common."""
        free = ("steps", "tolerance", "keep")
        return {name: value for name, value in asdict(self).items() if name not in free}

    def ingest(self, **more: Any) -> IngestConfig:
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
        """Every version has noise and batches of its own."""
        given = {} if self.steps is None else {"steps": self.steps}
        config = DistillConfig.for_budget(self.budget, seed=self.seed + int(version) - 1, **given)
        return config.warm() if warm else config
