"""The settings of the methods that Distill-CF is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

from infrec.kernels.ntk import NTK
from infrec.pipeline.distillation.config import Method
from infrec.pipeline.models import check_search
from infrec.pipeline.storage import InputError

_USERS_LAMBDAS = (1e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
"""The candidates for λ with chosen users. Real users need a larger λ than learned ones."""
_LAMBDAS = {
    Method.RANDOM_INTERACTIONS: (1.0, 10.0, 100.0, 1000.0, 10000.0),  # its rows are nearly all noise
    Method.NYSTROM: (0.1, 0.5, 1.0, 2.0, 3.5, 5.0, 6.5, 10.0, 20.0),  # its λ is the exact ∞-AE's: 5 on ML-1M
}
_AT_LEAST_ONE = {"budget": "budget", "judged_users": "number of judged users", "parts": "number of parts"}
"""Field → its name in a sentence, for the fields that must be at least 1."""


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """The settings of a method other than Distill-CF.

    The bytes of the summary depend on them and on the dataset. Raises `InputError` for a value out of range.
    """

    method: Method
    budget: int = 500
    """The budget m: the number of users. For random interactions, one unit is the average user's interactions."""
    ntk: NTK = field(default_factory=NTK)
    lambdas: tuple[float, ...] | None = None
    """The grid of λ. None means a grid that suits the method."""
    judged_users: int = 10_000
    """The number of validation users that λ is judged by. They are drawn at random from all parts alike.

    If there are fewer, λ is judged by all of them.
    """
    select: str = "nDCG@10"
    parts: int = 4
    """The number of parts into which the users are divided. At most so many actors take part."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method == Method.DISTILL_CF:
            raise InputError(f"{self.method} is configured by DistillConfig.")
        for name, words in _AT_LEAST_ONE.items():
            if getattr(self, name) < 1:
                raise InputError(f"The {words} must be at least 1, it is {getattr(self, name)}.", name)
        check_search(self.grid, self.select)

    @property
    def grid(self) -> tuple[float, ...]:
        """The candidates for λ."""
        return _LAMBDAS.get(self.method, _USERS_LAMBDAS) if self.lambdas is None else self.lambdas
