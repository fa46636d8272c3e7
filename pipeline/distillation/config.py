"""What Distill-CF is told: every option, checked where it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from infrec.kernels.ntk import NTK
from infrec.kernels.sampler import Sampler
from infrec.pipeline.models import check_search
from infrec.pipeline.storage import InputError


class Method(StrEnum):
    """How a summary is made."""

    DISTILL_CF = "distill-cf"
    RANDOM_USERS = "random-users"
    HEAD_USERS = "head-users"
    RANDOM_INTERACTIONS = "random-interactions"
    SVP_CF = "svp-cf"
    NYSTROM = "nystrom"


class Objective(StrEnum):
    """What the summary's ∞-AE has to predict of a training user."""

    OFFICIAL = "official"
    """The paper's: all items of the user, from all of them."""
    HELD_OUT = "held-out"
    """Items that were dropped from the user's context at random, among all items that are not in it."""


class Schedule(StrEnum):
    """How the learning rate goes on."""

    COSINE = "cosine"
    """Up in the first steps, then down along a half-cosine to nearly nothing at the last step."""
    CONSTANT = "constant"


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """The outer optimisation. Defaults are the best found on ML-1M (benchmarks/README.md), not the paper's.

    The bytes of a summary depend on every field here and on the dataset, and on nothing else.
    """

    budget: int = 500
    """m, the number of synthetic users."""
    sampler: Sampler = field(default_factory=Sampler)
    ntk: NTK = field(default_factory=NTK)
    objective: Objective = Objective.HELD_OUT
    drop: float = 0.5
    """Held-out: the part of a user's items that is dropped from its context and predicted."""
    user_weight: float = 1.0
    """ω: a user with |T| items to predict weighs in the loss as |T|^(1−ω). 0 is the paper's: active users count more;
    at 1 all users count the same, as they do in the metrics."""
    sharpness: float = 10.0
    """κ: the loss sees scores κP, which rank the same: those of a small summary are bounded, and their softmax flat."""
    cardinality: float = 0.001
    """λ₂, the weight of the mean row sum of S over the mean row sum of the train matrix."""
    learning_rate: float = 0.04
    schedule: Schedule = Schedule.COSINE
    steps: int = 150
    batch: int = 1536
    """Users of a step; all of them where there are no more."""
    accumulate: int = 1
    """Batches whose gradients are averaged before an update, on one and the same sample of the summary."""
    lambdas: tuple[float, ...] = (1e-5, 1e-3, 0.03)
    """λ of the inner ridge regression: chosen on validation, and used in the loss from then on."""
    validate_every: int = 25
    patience: int = 6
    """Validations without a better one after which the run ends."""
    judged_users: int = 10_000
    """Validation judges by so many users, drawn at random from all parts alike; by all where there are no more."""
    select: str = "nDCG@10"
    refresh: float = 0.0
    """At a warm start, how much of the first logits is of random users of today: see `warm`."""
    parts: int = 4
    """Parts into which users are divided, and a step with them: at most so many actors take part."""
    checkpoint_every: int = 25
    seed: int = 0

    @classmethod
    def for_budget(cls, budget: int, **given: Any) -> Self:
        """The best options found for such a budget on ML-1M, but for those that are given.

        The fewer the users, the more each of them has to change.
        """
        least = max(bound for bound in _BY_BUDGET if bound <= max(budget, 1))
        return cls(budget=budget, **{**_BY_BUDGET[least], **given})

    def warm(self) -> Self:
        """The same for a warm start from a summary of nearly the same log: fewer steps do.

        They begin half-way between the summary and random users, as networks that are trained on learn better when they
        are shrunk and perturbed first (Ash and Adams, NeurIPS 2020, arXiv 1910.08475). From the summary itself what is
        new is hardly learned, and the summary falls behind night by night.
        """
        steps = max(1, round(_WARM_STEPS * self.steps))
        return replace(self, steps=steps, validate_every=max(1, steps // _WARM_VALIDATIONS), refresh=_WARM_REFRESH)

    def __post_init__(self) -> None:
        for name in ("budget", "steps", "batch", "accumulate", "validate_every", "patience", "judged_users", "parts"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, it is {getattr(self, name)}.")
        if self.checkpoint_every < 1:
            raise InputError(f"--checkpoint-every must be at least 1, it is {self.checkpoint_every}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"--learning-rate must be positive and finite, it is {self.learning_rate:g}.")
        if not (math.isfinite(self.sharpness) and self.sharpness > 0):
            raise InputError(f"--sharpness must be positive and finite, it is {self.sharpness:g}.")
        if not 0 <= self.refresh <= 1:
            raise InputError(f"refresh must lie in 0 … 1, it is {self.refresh:g}.")
        if not 0 < self.drop < 1:
            raise InputError(f"--drop must lie between 0 and 1, it is {self.drop:g}.")
        if not 0 <= self.user_weight <= 1:
            raise InputError(f"--user-weight must lie in 0 … 1, it is {self.user_weight:g}.")
        if not (math.isfinite(self.cardinality) and self.cardinality >= 0):
            raise InputError(f"--cardinality must be finite and not negative, it is {self.cardinality:g}.")
        check_search(self.lambdas, self.select)


_BY_BUDGET: dict[int, dict[str, Any]] = {
    1: {"learning_rate": 0.15, "steps": 500, "drop": 0.3, "validate_every": 50},
    30: {"learning_rate": 0.2, "steps": 300, "drop": 0.3, "validate_every": 50},
    80: {"learning_rate": 0.15, "steps": 300, "drop": 0.3, "validate_every": 50},
    150: {"learning_rate": 0.1, "steps": 200, "drop": 0.3},
    350: {},
}
"""From that budget on."""

_WARM_STEPS, _WARM_VALIDATIONS, _WARM_REFRESH = 0.5, 5, 0.5
"""Of a cold start's steps, and how often a warm one is judged. With a tenth of the steps at a third of the rate a chain
of nights falls behind summaries made from nothing (97.6 % after five, benchmarks/README.md): what is new needs room."""
