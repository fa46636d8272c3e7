"""The findings of a sweep: its trials as a table, the points that a reader compares, and the recommended recipe."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from infrec.pipeline.distillation import Method
from infrec.pipeline.serving import Learner

ALL_USERS = "all-users"
"""The method of the reference: a learner trained on all users."""
METRICS = ("HR@10", "HR@100", "nDCG@10", "nDCG@100", "PSP@10", "Recall@20", "AUC")
HYPER_PARAMETERS = {
    "temperature": pa.float64(),
    "draws": pa.int64(),
    "cardinality": pa.float64(),
    "learning_rate": pa.float64(),
    "drop": pa.float64(),
    "sharpness": pa.float64(),
    "depth": pa.int64(),
    "lambda": pa.float64(),
}
"""The hyper-parameters of Distill-CF, null for other methods. But other methods have λ, too: validation chose it."""
TRIALS_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),  # its name; a trial with several learners has a row for each
        ("method", pa.string()),  # a `Method`, or ALL_USERS
        ("learner", pa.string()),
        ("budget", pa.int64()),  # for ALL_USERS, the number of training users
        ("noise", pa.float64()),  # false train interactions for each true one
        ("seed", pa.int64()),
        ("status", pa.string()),  # done, stopped (by the scheduler, as hopeless) or failed
        ("reason", pa.string()),  # the reason why it failed
        ("chosen", pa.bool_()),  # whether validation chose its hyper-parameters; only then is it tested
        *HYPER_PARAMETERS.items(),
        ("steps", pa.int64()),  # the steps of Distill-CF
        ("seconds", pa.float64()),  # the time to make the summary
        ("training_seconds", pa.float64()),  # the time to train the learner on it (or all users), all settings known
        ("interactions", pa.int64()),  # non-zero weights in the learner's training data
        ("bytes", pa.int64()),  # their size as Parquet
        *((f"validation {name}", pa.float64()) for name in METRICS),  # percentages; AUC in 0 … 1
        *((f"test {name}", pa.float64()) for name in METRICS),
    ]
)


@dataclass(frozen=True)
class Point:
    """The chosen trials of one method, learner, budget and noise rate, one for each seed."""

    method: str
    learner: str
    budget: int
    noise: float
    trials: Sequence[Mapping[str, Any]]
    """Rows of the table of trials."""

    def mean(self, column: str) -> float:
        """Return the mean over seeds."""
        return statistics.fmean(trial[column] for trial in self.trials)

    def spread(self, column: str) -> float:
        """Return the standard deviation over seeds, 0 if there is one seed."""
        values = [trial[column] for trial in self.trials]
        return statistics.stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Findings:
    """Everything that a report shows."""

    trials: pa.Table
    """The table of trials, as TRIALS_SCHEMA says."""
    select: str
    """The metric that chooses on validation. The report shows quality by it."""
    target: float
    """The fraction of full-data quality that a recipe has to reach, such as 0.96."""
    dataset: Mapping[str, Any]
    """Name → value: address, users, items, train interactions, fingerprint."""
    config: Mapping[str, Any]
    """The settings of the sweep."""
    versions: Mapping[str, str]
    """Package → version."""
    seconds: float
    """The seconds that the whole sweep took."""
    history: pa.Table = field(default_factory=lambda: pa.table({}))
    """Every validation: trial, step, lambda and metrics."""

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """All points, sorted by method, learner, noise and budget. The reference (ALL_USERS) is among them."""
        groups: dict[tuple[str, str, float, int], list[Mapping[str, Any]]] = defaultdict(list)
        for trial in self.trials.to_pylist():
            if trial["status"] == "done" and trial["chosen"]:
                groups[trial["method"], trial["learner"], trial["noise"], trial["budget"]].append(trial)
        return tuple(
            Point(method, learner, budget, noise, trials)
            for (method, learner, noise, budget), trials in sorted(groups.items())
        )

    def curve(self, method: str, learner: str, *, noise: float = 0.0) -> list[Point]:
        """Return the points of one line of the quality–budget figure, by budget."""
        return [
            point for point in self.points if (point.method, point.learner, point.noise) == (method, learner, noise)
        ]

    def reference(self, learner: str, *, noise: float = 0.0) -> Point | None:
        """Return the point of the learner on all users; None if that failed."""
        (*_, found) = [None, *self.curve(ALL_USERS, learner, noise=noise)]
        return found

    def curves(self, learner: str) -> dict[str, list[Point]]:
        """Return method → its points without noise, by budget. The reference is not among them."""
        found = {method: self.curve(method, learner) for method in self._methods if method != ALL_USERS}
        return {method: points for method, points in found.items() if points}

    def noise_curves(self, learner: str) -> dict[str, list[Point]]:
        """Return method → its points by noise rate, at `noise_budget`. The reference is last.

        The result is empty if there is one rate.
        """
        found = {
            method: [
                point
                for point in self.points
                if (point.method, point.learner) == (method, learner)
                and point.budget == (self.noise_budget if method != ALL_USERS else point.budget)
                and self.kept(point)
            ]
            for method in self._methods
        }
        return {method: points for method, points in found.items() if len(points) > 1}

    @cached_property
    def noise_budget(self) -> int | None:
        """The budget at which methods are compared under noise: the recipe's, or else the largest that was tried."""
        tried = {point.budget for point in self.points if point.method == Method.DISTILL_CF and point.noise}
        return self.recipe.budget if self.recipe and self.recipe.budget in tried else max(tried, default=None)

    def kept(self, point: Point) -> tuple[float, float] | None:
        """Return the fraction of its own test quality without noise that a point has: mean and spread over seeds.

        Return None if there is no such point without noise, or if its quality is 0.
        """
        column = f"test {self.select}"
        for clean in self.curve(point.method, point.learner):
            if clean.budget == point.budget or point.method == ALL_USERS:
                quality = clean.mean(column)
                return (point.mean(column) / quality, point.spread(column) / quality) if quality else None
        return None

    @cached_property
    def _methods(self) -> list[str]:
        """The methods that have points: Distill-CF first, the reference last."""
        order = {method: rank for rank, method in enumerate((*Method, "", ALL_USERS))}
        return sorted(
            {point.method for point in self.points}, key=lambda method: (order.get(method, len(Method)), method)
        )

    @property
    def learner(self) -> str:
        """The learner by which the recipe is judged: the first of the sweep."""
        return next(iter(self.config["learners"]), Learner.INFINITE_AE)

    @property
    def learners(self) -> list[str]:
        """The learners that have points, in the sweep's order."""
        found = {point.learner for point in self.points}
        return [learner for learner in self.config["learners"] if learner in found]

    def share(self, point: Point) -> float | None:
        """Return test quality as a fraction of the same learner's on all users without noise.

        Return None if there is no such reference, or if its quality is 0.
        """
        full, column = self.reference(point.learner), f"test {self.select}"
        return point.mean(column) / full.mean(column) if full and full.mean(column) else None

    @cached_property
    def recipe(self) -> Point | None:
        """The point of Distill-CF with the smallest budget that reaches the target. If none does, it is the best point.

        Validation decides, as it does about hyper-parameters. The test part only reports.
        """
        column = f"validation {self.select}"
        curve, full = self.curve(Method.DISTILL_CF, self.learner), self.reference(self.learner)
        if not curve:
            return None
        reaching = [point for point in curve if full and point.mean(column) >= self.target * full.mean(column)]
        return reaching[0] if reaching else max(curve, key=lambda point: point.mean(column))

    @property
    def sentence(self) -> str:
        """The answer, in one sentence."""
        point = self.recipe
        if point is None:
            return "No summary was learned, so there is no recipe."
        share, full = self.share(point), self.reference(point.learner)
        quality = f"{point.mean(f'test {self.select}'):.2f} {self.select} on test"
        users = f"{point.budget:,} synthetic users"
        if full is None:
            return f"{users} reach {quality}; what all users reach is not known, as that trial failed."
        if share is None:
            return f"{users} reach {quality}; all {full.budget:,} users reach none."
        of_full = f"{quality}, {100 * share:.1f} % of what all {full.budget:,} users reach"
        column = f"validation {self.select}"
        if point.mean(column) >= self.target * full.mean(column):
            return f"{users} are enough: they reach {of_full} (target: {100 * self.target:g} % on validation)."
        return f"No budget reaches {100 * self.target:g} % on validation; the best, {users}, reach {of_full}."
