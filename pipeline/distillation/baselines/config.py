"""What the methods are told that Distill-CF is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

from infrec.kernels.ntk import NTK
from infrec.pipeline.distillation.config import Method
from infrec.pipeline.models import check_search
from infrec.pipeline.storage import InputError

_USERS_LAMBDAS = (1e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
"""Real users want a larger λ than learned ones."""
_LAMBDAS = {
    Method.RANDOM_INTERACTIONS: (1.0, 10.0, 100.0, 1000.0, 10000.0),  # rows that are nearly all noise
    Method.NYSTROM: (0.1, 0.5, 1.0, 2.0, 3.5, 5.0, 6.5, 10.0, 20.0),  # that of the exact ∞-AE, which is 5 on ML-1M
}


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """A method other than Distill-CF, and what it needs. The bytes of the summary depend on this and the dataset."""

    method: Method
    budget: int = 500
    """m, the number of users; for random interactions, of the average user's interactions."""
    ntk: NTK = field(default_factory=NTK)
    lambdas: tuple[float, ...] | None = None
    """The grid of λ; None: one that suits the method."""
    judged_users: int = 10_000
    """λ is judged by so many validation users, drawn at random from all parts alike; by all where there are no more."""
    select: str = "nDCG@10"
    parts: int = 4
    """Parts into which users are divided: at most so many actors take part."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method == Method.DISTILL_CF:
            raise InputError(f"{self.method} is configured by DistillConfig.")
        for name in ("budget", "judged_users", "parts"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, it is {getattr(self, name)}.")
        check_search(self.grid, self.select)

    @property
    def grid(self) -> tuple[float, ...]:
        """The λ that are tried."""
        return _LAMBDAS.get(self.method, _USERS_LAMBDAS) if self.lambdas is None else self.lambdas
