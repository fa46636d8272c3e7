"""What a sweep found: its trials as a table, the points that a reader compares, and the recipe that is recommended."""

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
"""Of Distill-CF, null for other methods; λ is the one that validation chose, and other methods have it, too."""
TRIALS_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),  # its name; a trial with several learners has a row for each
        ("method", pa.string()),  # a `Method`, or ALL_USERS
        ("learner", pa.string()),
        ("budget", pa.int64()),  # of ALL_USERS: the number of training users
        ("noise", pa.float64()),  # false train interactions for each true one
        ("seed", pa.int64()),
        ("status", pa.string()),  # done, stopped (by the scheduler, hopeless) or failed
        ("reason", pa.string()),  # why it failed
        ("chosen", pa.bool_()),  # whether validation chose its hyper-parameters: only then is it tested
        *HYPER_PARAMETERS.items(),
        ("steps", pa.int64()),  # of Distill-CF
        ("seconds", pa.float64()),  # to make the summary
        ("training_seconds", pa.float64()),  # to train the learner on it (or on all users), hyper-parameters known
        ("interactions", pa.int64()),  # weights that are not zero, in what the learner is trained on
        ("bytes", pa.int64()),  # of these, as Parquet
        *((f"validation {name}", pa.float64()) for name in METRICS),  # percentages; AUC in 0 … 1
        *((f"test {name}", pa.float64()) for name in METRICS),
    ]
)


@dataclass(frozen=True)
class Point:
    """The chosen trials of one method, learner, budget and noise rate: one for each seed."""

    method: str
    learner: str
    budget: int
    noise: float
    trials: Sequence[Mapping[str, Any]]
    """Rows of the table of trials."""

    def mean(self, column: str) -> float:
        return statistics.fmean(trial[column] for trial in self.trials)

    def spread(self, column: str) -> float:
        """The standard deviation over seeds; 0 where there is one seed."""
        values = [trial[column] for trial in self.trials]
        return statistics.stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Findings:
    """All that a report shows."""

    trials: pa.Table
    """As TRIALS_SCHEMA says."""
    select: str
    """The metric that chooses on validation, and by which quality is shown."""
    target: float
    """The share of full-data quality that a recipe has to reach, such as 0.96."""
    dataset: Mapping[str, Any]
    """Name → value: where it lies, users, items, train interactions, fingerprint."""
    config: Mapping[str, Any]
    """The options of the sweep."""
    versions: Mapping[str, str]
    """Package → version."""
    seconds: float
    """Of the whole sweep."""
    history: pa.Table = field(default_factory=lambda: pa.table({}))
    """Every validation: trial, step, lambda and metrics."""

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Sorted by method, learner, noise and budget; the reference (ALL_USERS) among them."""
        groups: dict[tuple[str, str, float, int], list[Mapping[str, Any]]] = defaultdict(list)
        for trial in self.trials.to_pylist():
            if trial["status"] == "done" and trial["chosen"]:
                groups[trial["method"], trial["learner"], trial["noise"], trial["budget"]].append(trial)
        return tuple(
            Point(method, learner, budget, noise, trials)
            for (method, learner, noise, budget), trials in sorted(groups.items())
        )

    def curve(self, method: str, learner: str, *, noise: float = 0.0) -> list[Point]:
        """The points of one line of the quality–budget figure, by budget."""
        return [
            point for point in self.points if (point.method, point.learner, point.noise) == (method, learner, noise)
        ]

    def reference(self, learner: str, *, noise: float = 0.0) -> Point | None:
        """The learner on all users; None where that failed."""
        (*_, found) = [None, *self.curve(ALL_USERS, learner, noise=noise)]
        return found

    def curves(self, learner: str) -> dict[str, list[Point]]:
        """Method → its points without noise, by budget; without the reference."""
        found = {method: self.curve(method, learner) for method in self._methods if method != ALL_USERS}
        return {method: points for method, points in found.items() if points}

    def noise_curves(self, learner: str) -> dict[str, list[Point]]:
        """Method → its points by noise rate, at `noise_budget`; the reference last. Empty where there is one rate."""
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
        """The share of its own test quality without noise that a point has: mean and spread over seeds.

        None where there is no such point without noise, or none of that quality.
        """
        column = f"test {self.select}"
        for clean in self.curve(point.method, point.learner):
            if clean.budget == point.budget or point.method == ALL_USERS:
                quality = clean.mean(column)
                return (point.mean(column) / quality, point.spread(column) / quality) if quality else None
        return None

    @cached_property
    def _methods(self) -> list[str]:
        """Those that have points: Distill-CF first, the reference last."""
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
        """Those that have points, as the sweep names them."""
        found = {point.learner for point in self.points}
        return [learner for learner in self.config["learners"] if learner in found]

    def share(self, point: Point) -> float | None:
        """Test quality as a part of that of the same learner on all users, without noise; None where that is none."""
        full, column = self.reference(point.learner), f"test {self.select}"
        return point.mean(column) / full.mean(column) if full and full.mean(column) else None

    @cached_property
    def recipe(self) -> Point | None:
        """The smallest budget of Distill-CF that reaches the target; where none does, the best point of it.

        Validation decides, as it does about hyper-parameters; the test part only reports.
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
