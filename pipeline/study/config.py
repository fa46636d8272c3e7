"""The settings of a sweep, and the trials that follow from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from infrec.pipeline.distillation import BaselineConfig, DistillConfig, Method
from infrec.pipeline.report.findings import ALL_USERS, METRICS
from infrec.pipeline.serving import Learner
from infrec.pipeline.storage import InputError, fingerprint
from infrec.pipeline.study.space import Space, described, drawn, fixed, with_parameters


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial: a summary to be made, or the reference, which is learners on all users.

    Its result is a pure function of these fields and the dataset.
    """

    method: str
    """A `Method`, or ALL_USERS."""
    budget: int
    noise: float = 0.0
    seed: int = 0
    select: str = "nDCG@10"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters of Distill-CF that replace those that suit the budget."""
    chosen: bool = True
    """Whether validation chose its hyper-parameters. Only then is the trial judged on test."""

    @cached_property
    def name(self) -> str:
        """The name of the trial's files. Equal summaries have equal names."""
        noise = f"-noise-{self.noise:g}" if self.noise else ""
        settings = f"-{fingerprint([dict(self.parameters)])[:8]}" if self.parameters else ""
        return f"{self.method}-{self.budget}{noise}-seed-{self.seed}{settings}"

    @cached_property
    def config(self) -> DistillConfig | BaselineConfig:
        """The config of the summary: `infrec distill` with the same settings makes the same one.

        Raises `InputError` for a value out of range.
        """
        if self.method == Method.DISTILL_CF:
            suited = DistillConfig.for_budget(self.budget, seed=self.seed, select=self.select)
            return with_parameters(suited, self.parameters)
        return BaselineConfig(method=Method(self.method), budget=self.budget, seed=self.seed, select=self.select)

    @property
    def cost(self) -> float:
        """A number that grows with the time of the trial. Long trials begin first."""
        learned = {Method.DISTILL_CF: 1e6, ALL_USERS: 1e9}.get(self.method, 1.0)
        return learned * (1000 + self.budget)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The settings of a sweep: budgets × methods × noise rates × seeds.

    For Distill-CF a search at every budget comes first. Raises `InputError` for a value out of range.
    """

    budgets: tuple[int, ...]
    methods: tuple[Method, ...] = tuple(Method)
    learners: tuple[Learner, ...] = (Learner.INFINITE_AE,)
    noise: tuple[float, ...] = (0.0,)
    """The noise rates: false train interactions for each true one. The sweep always has the rate 0 as well.

    Validation and test stay as they are.
    """
    seeds: int = 3
    samples: int = 1
    """The number of recipes tried at every budget without noise. The first suits the budget, the space gives others."""
    space: Space = field(default_factory=dict)
    target: float = 0.96
    """The fraction of full-data quality on validation that is enough."""
    select: str = "nDCG@10"
    seed: int = 0
    """The first seed."""

    def __post_init__(self) -> None:
        if self.select not in METRICS:
            raise InputError(f"{self.select} is not among the metrics of a sweep: {', '.join(METRICS)}.", "select")
        if not self.budgets:
            raise InputError("There is no budget: name one at least, such as 100,200,500.", "budgets")
        if any(first >= second for first, second in zip(self.budgets, self.budgets[1:], strict=False)):
            raise InputError(f"The budgets must go up, they are {','.join(map(str, self.budgets))}.", "budgets")
        if self.budgets[0] < 1:
            raise InputError(f"The budgets must be at least 1, the least is {self.budgets[0]}.", "budgets")
        for name, one in (("methods", "method"), ("learners", "learner"), ("noise", "noise rate")):
            values = getattr(self, name)
            if not values:
                raise InputError(f"There is no {one}: name one at least.", name)
            if len({*values}) < len(values):
                raise InputError(f"A {one} is named twice: name each once.", name)
        for name in ("seeds", "samples"):
            if getattr(self, name) < 1:
                raise InputError(f"The number of {name} must be at least 1, it is {getattr(self, name)}.", name)
        if not all(0 <= rate <= 1 for rate in self.noise):
            raise InputError(
                f"The noise rates must lie in 0 … 1, they are {','.join(f'{rate:g}' for rate in self.noise)}.", "noise"
            )
        if not (math.isfinite(self.target) and self.target > 0):
            raise InputError(f"The target must be positive, such as 0.96, it is {self.target:g}.", "target")
        if self.samples > 1 and Method.DISTILL_CF not in self.methods:
            raise InputError(
                f"Samples are for {Method.DISTILL_CF}, which is not among the methods.", "samples", "methods"
            )
        if self.space and Method.DISTILL_CF not in self.methods:
            raise InputError(
                f"The space is for {Method.DISTILL_CF}, which is not among the methods.", "space", "methods"
            )
        if self.samples == 1 and len(fixed(self.space)) < len(self.space):
            raise InputError("The space has ranges or lists to draw from: take 2 samples or more.", "space", "samples")
        for trial in self.summaries():
            _ = trial.config  # raises for a value out of range before any trial has begun

    @property
    def described(self) -> dict[str, Any]:
        """Every setting as plain values."""
        return {**asdict(self), "space": described(self.space)}

    @property
    def all_seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    def candidates(self) -> Iterator[Trial]:
        """Yield the trials of the search: validation chooses from these recipes at each budget.

        With one sample there is no choice, and so no trial.
        """
        if self.samples == 1:
            return
        for budget in self.budgets:
            for number in range(self.samples):
                yield self._learned(budget, self._recipe(budget, number), chosen=False)

    def summaries(self) -> Iterator[Trial]:
        """Yield every trial that makes a summary, as far as they are known before the search."""
        yield from self.candidates()
        yield from (trial for trial in self.points({}) if trial.method != ALL_USERS)

    def points(self, recipes: Mapping[int, Mapping[str, Any]], *, all_users: int = 0) -> Iterator[Trial]:
        """Yield the trials that are judged on test: the references, and summaries by these recipes.

        `recipes` maps a budget to parameters of Distill-CF. `all_users` is the number of training users.
        """
        rates = sorted({0.0, *self.noise})
        for rate, seed in product(rates, self.all_seeds):
            if rate or seed == self.seed:  # without noise all seeds are alike
                yield Trial(method=ALL_USERS, budget=all_users, noise=rate, seed=seed, select=self.select)
        for method, budget, rate, seed in product(self.methods, self.budgets, rates, self.all_seeds):
            if method == Method.DISTILL_CF:
                recipe = recipes.get(budget, fixed(self.space))
                yield self._learned(budget, recipe, noise=rate, seed=seed)
            else:
                yield Trial(method=method, budget=budget, noise=rate, seed=seed, select=self.select)

    def _learned(self, budget: int, parameters: Mapping[str, Any], **given: Any) -> Trial:
        defaults = {"method": Method.DISTILL_CF, "seed": self.seed, "select": self.select}
        return Trial(**{**defaults, **given}, budget=budget, parameters=parameters)

    def _recipe(self, budget: int, number: int) -> dict[str, Any]:
        """Return the `number`-th recipe to try. The first one suits the budget."""
        if number == 0:
            return fixed(self.space)
        return drawn(self.space, np.random.default_rng([self.seed, budget, number]))
