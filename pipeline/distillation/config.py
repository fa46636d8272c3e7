"""The settings of Distill-CF. Each is checked where a config is made."""

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
    """The method by which a summary is made."""

    DISTILL_CF = "distill-cf"
    RANDOM_USERS = "random-users"
    HEAD_USERS = "head-users"
    RANDOM_INTERACTIONS = "random-interactions"
    SVP_CF = "svp-cf"
    NYSTROM = "nystrom"


class Objective(StrEnum):
    """The items of a training user that the summary's ∞-AE has to predict."""

    OFFICIAL = "official"
    """The paper's objective: all items of the user are predicted from all of them."""
    HELD_OUT = "held-out"
    """Random items are dropped from the user's context and predicted among all items that are not in the context."""


class Labels(StrEnum):
    """What the ∞-AE of a summary learns to predict of each synthetic user."""

    SOLVED = "solved"
    """Labels of their own, which are fitted to all training users in closed form: see `distillation.labels`."""
    OWN = "own"
    """The items of the synthetic user itself, as in the paper."""


COVERED = 0.8
"""The part of all interactions that the items with weights have."""
LEAST_WEIGHTED, MOST_WEIGHTED = 4_000, 10_000
"""The least and the greatest number of items with weights, whatever part of the interactions they have."""


class Schedule(StrEnum):
    """The course of the learning rate over the steps."""

    COSINE = "cosine"
    """The rate rises in the first steps, then falls along a half-cosine to nearly nothing at the last step."""
    CONSTANT = "constant"


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """The settings of the outer optimisation.

    The defaults are the best found on ML-1M (benchmarks/README.md), not the paper's. The bytes of a summary depend on
    every field here and on the dataset, and on nothing else. Raises `InputError` for a value out of range.
    """

    budget: int = 500
    """The budget m: the number of synthetic users."""
    sampler: Sampler = field(default_factory=Sampler)
    ntk: NTK = field(default_factory=NTK)
    labels: Labels = Labels.SOLVED
    label_drop: float = 0.3
    """For `SOLVED`: the probability with which an interaction is left out of the users that labels are fitted to."""
    label_draws: int = 8
    """For `SOLVED`: the number of times that each user takes part, each time without other interactions."""
    label_user_weight: float = 0.5
    """For `SOLVED`: the exponent ω: a user with |x| interactions has the weight |x|^−ω in the fit."""
    label_rank: int = 160
    """For `SOLVED`: the greatest rank of the labels. Validation may choose a lower one."""
    label_agreement: float = 0.95
    """For `SOLVED`: the part of the first ten recommended items that must stay among them when the labels are rounded.

    If no levels that are tried keep so many, the finest are taken. The less, the fewer bytes.
    """
    weight_step: float = 0.7
    """For `SOLVED`: how coarsely weights are rounded, in units of their spread: see `kernels.levels.RoundedRows`."""
    weighted_items: int | None = None
    """For `SOLVED`: the number of items that synthetic users have weights for, the most popular ones.

    None means as many as have `COVERED` of all interactions, at least `LEAST_WEIGHTED` and at most `MOST_WEIGHTED`. All
    items have labels.
    """
    start_from_groups: int = 20
    """The number of like users whose mean a synthetic user begins with. With 1 it begins with one user's row."""
    objective: Objective = Objective.HELD_OUT
    drop: float = 0.5
    """For `HELD_OUT`: the fraction of a user's items that is dropped from the context and predicted."""
    user_weight: float = 1.0
    """The exponent ω: a user with |T| items to predict has the weight |T|^(1−ω) in the loss.

    With 0, the paper's value, active users count more. With 1, all users count the same, as they do in the metrics.
    """
    sharpness: float = 10.0
    """The factor κ: the loss sees the scores κP, which rank items as P does.

    The scores of a small summary are bounded, so without κ their softmax is flat.
    """
    cardinality: float = 0.001
    """The weight λ₂ of the ratio of the mean row sum of S to the mean row sum of the train matrix."""
    learning_rate: float = 0.04
    schedule: Schedule = Schedule.COSINE
    steps: int = 150
    """The number of updates of the logits before the first restart."""
    restarts: int = 0
    """The greatest number of times that the steps begin anew, each time half of `steps`, as long as the last ones found
    a better summary. They begin half-way between the best summary and a cold start from other users: cosine annealing
    with warm restarts (Loshchilov & Hutter, ICLR 2017), shrunk and perturbed as in `warm`."""
    batch: int = 1536
    """The number of users in a step. If the dataset has fewer, a step takes all of them."""
    accumulate: int = 1
    """The number of batches whose gradients are averaged before an update. They share one sample of the summary."""
    lambdas: tuple[float, ...] = (1e-5, 1e-3, 0.03)
    """The candidates for λ of the inner ridge regression. Validation chooses one, which the loss uses from then on.
    If labels are `SOLVED`, only the first validation chooses, otherwise every one."""
    validate_every: int = 25
    patience: int = 2
    """The number of validations without a better one after which the run ends."""
    judged_users: int = 10_000
    """The number of users that validation judges by. They are drawn at random from all parts alike.

    If there are fewer, validation judges by all of them.
    """
    select: str = "nDCG@10"
    refresh: float = 0.0
    """At a warm start, the fraction of the first logits that comes from a cold start of today: see `warm`."""
    parts: int = 4
    """The number of parts into which the users, and so each step, are divided. At most so many actors take part."""
    checkpoint_every: int = 25
    seed: int = 0

    @classmethod
    def for_budget(cls, budget: int, **given: Any) -> Self:
        """Return the best settings found for such a budget on ML-1M, except for those that are `given`.

        The fewer synthetic users there are, the more each of them has to change. If `steps` are given, there are so
        many: without restarts, unless these are given as well.
        """
        least = max(bound for bound in _BY_BUDGET if bound <= max(budget, 1))
        counted = {"restarts": 0} if "steps" in given else {}
        return cls(budget=budget, **{**_BY_BUDGET[least], **counted, **given})

    def for_items(self, items: int) -> Self:
        """Return the same config for a catalogue of so many items: with few items, fewer of them are drawn."""
        return replace(self, sampler=self.sampler.for_items(items))

    def steps_after(self, restarts: int) -> int:
        """Return the number of steps that follow this many restarts."""
        return max(1, round(_WARM_STEPS * self.steps)) if restarts else self.steps

    def warm(self) -> Self:
        """Return the same config for a warm start from a summary of nearly the same log: fewer steps are enough.

        The steps begin half-way between the summary and a cold start, because networks that are trained further learn
        better when they are shrunk and perturbed first (Ash and Adams, NeurIPS 2020, arXiv 1910.08475). Steps from the
        summary itself hardly learn new interactions, and the summary falls behind night by night.
        """
        steps = self.steps_after(1)
        return replace(
            self, steps=steps, validate_every=max(1, steps // _WARM_VALIDATIONS), refresh=WARM_REFRESH, restarts=0
        )

    def __post_init__(self) -> None:
        for name, words in _AT_LEAST_ONE.items():
            if getattr(self, name) < 1:
                raise InputError(f"The {words} must be at least 1, it is {getattr(self, name)}.", name)
        if self.restarts < 0:
            raise InputError(f"The number of restarts must be at least 0, it is {self.restarts}.", "restarts")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(
                f"The learning rate must be positive and finite, it is {self.learning_rate:g}.", "learning_rate"
            )
        if not (math.isfinite(self.sharpness) and self.sharpness > 0):
            raise InputError(f"The sharpness must be positive and finite, it is {self.sharpness:g}.", "sharpness")
        if not 0 <= self.refresh <= 1:
            raise InputError(f"The refresh must lie in 0 … 1, it is {self.refresh:g}.", "refresh")
        if not 0 < self.drop < 1:
            raise InputError(f"The part to drop must lie between 0 and 1, it is {self.drop:g}.", "drop")
        if not 0 <= self.label_drop < 1:
            raise InputError(
                f"The part to drop for labels must be at least 0 and below 1, it is {self.label_drop:g}.",
                "label_drop",
            )
        if not 0 <= self.label_user_weight <= 1:
            raise InputError(
                f"The user weight of labels must lie in 0 … 1, it is {self.label_user_weight:g}.",
                "label_user_weight",
            )
        if not 0 <= self.label_agreement <= 1:
            raise InputError(
                f"The agreement of the labels must lie in 0 … 1, it is {self.label_agreement:g}.", "label_agreement"
            )
        if not (math.isfinite(self.weight_step) and self.weight_step > 0):
            raise InputError(
                f"The step of the weights must be positive and finite, it is {self.weight_step:g}.", "weight_step"
            )
        if self.weighted_items is not None and self.weighted_items < 1:
            raise InputError(
                f"The number of weighted items must be at least 1, it is {self.weighted_items}.", "weighted_items"
            )
        if not 0 <= self.user_weight <= 1:
            raise InputError(f"The user weight must lie in 0 … 1, it is {self.user_weight:g}.", "user_weight")
        if not (math.isfinite(self.cardinality) and self.cardinality >= 0):
            raise InputError(
                f"The cardinality must be finite and not negative, it is {self.cardinality:g}.", "cardinality"
            )
        check_search(self.lambdas, self.select)


_AT_LEAST_ONE = {
    "budget": "budget",
    "start_from_groups": "number of users in a group",
    "label_draws": "number of draws of a user",
    "label_rank": "rank of the labels",
    "steps": "number of steps",
    "batch": "number of users in a batch",
    "accumulate": "number of batches in an update",
    "validate_every": "number of steps between validations",
    "patience": "patience",
    "judged_users": "number of judged users",
    "parts": "number of parts",
    "checkpoint_every": "number of steps between checkpoints",
}
"""Field → its name in a sentence, for the fields that must be at least 1."""

_BY_BUDGET: dict[int, dict[str, Any]] = {
    1: {"learning_rate": 0.15, "steps": 500, "drop": 0.3, "validate_every": 50, "restarts": 6},
    30: {"learning_rate": 0.2, "steps": 300, "drop": 0.3, "validate_every": 50, "restarts": 4},
    80: {"learning_rate": 0.15, "steps": 300, "drop": 0.3, "validate_every": 50, "restarts": 2},
    150: {"learning_rate": 0.1, "steps": 200, "drop": 0.3},
    350: {},
}
"""Budget → the settings that hold from that budget on, where they differ from the defaults."""

_WARM_STEPS, _WARM_VALIDATIONS, WARM_REFRESH = 0.5, 5, 0.5
"""A warm start's steps as a fraction of a cold start's, its number of validations, and its `refresh`.

With a tenth of the steps at a third of the rate, a chain of nights falls behind summaries that are made from nothing
(97.6 % after five nights, benchmarks/README.md): new interactions need room.
"""
