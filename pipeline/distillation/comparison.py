"""What a Distill-CF summary is compared with: summaries of the same budget that are chosen, not learned.

Every method makes the same artefact through `summarise`. All but Nyström are rows S of the dataset with the ∞-AE's own
α; their λ is chosen on validation. Nyström keeps m random users as well, but fits their dual coefficients to everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from kernels.inner_step import solve_summary
from kernels.kernel_matrix import KernelRows
from kernels.normalisation import DegreeNormalisation, Exponents
from kernels.ntk import NTK
from kernels.nystrom import NystromSystem
from pipeline.artefact import Artefact, ArtefactWriter
from pipeline.dataset import Dataset
from pipeline.distillation.config import DistillConfig
from pipeline.distillation.selection import head_users, random_interactions, random_users, svp_users
from pipeline.distillation.training import METHOD, check_budget, distill, plan_distillation
from pipeline.distillation.users import PartWorker, Users
from pipeline.errors import InputError
from pipeline.normal_equations import NormalEquationsWorker, normal_equations, train_counts
from pipeline.plan import Plan, plan_comparison
from pipeline.progress import OnValidation, Report, ignored, silent
from pipeline.recommenders.base import check_dense, check_search
from pipeline.recommenders.summary import publish_summary
from pipeline.workers import Pool, pool_size


class Method(StrEnum):
    """How a summary is made."""

    DISTILL_CF = METHOD
    RANDOM_USERS = "random-users"
    HEAD_USERS = "head-users"
    RANDOM_INTERACTIONS = "random-interactions"
    SVP_CF = "svp-cf"
    NYSTROM = "nystrom"


_USERS_LAMBDAS = (1e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
"""Real users want a larger λ than learned ones."""
_LAMBDAS = {
    Method.RANDOM_INTERACTIONS: (1.0, 10.0, 100.0, 1000.0, 10000.0),  # rows that are nearly all noise
    Method.NYSTROM: (0.1, 0.5, 1.0, 2.0, 3.5, 5.0, 6.5, 10.0, 20.0),  # that of the exact ∞-AE, which is 5 on ML-1M
}


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig:
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


def summarise(
    dataset: Dataset,
    writer: ArtefactWriter,
    config: DistillConfig | ComparisonConfig,
    pool: Pool,
    *,
    warm_start: Artefact | None = None,
    report: Report = silent,
    on_validation: OnValidation = ignored,
) -> Artefact:
    """Make and publish a summary by any method; `warm_start` and `on_validation` are for Distill-CF.

    Raises `InputError` for a budget above the number of users, and where no λ has a finite solution.
    """
    if isinstance(config, DistillConfig):
        return distill(dataset, writer, config, pool, warm_start=warm_start, report=report, on_validation=on_validation)
    check_budget(config.budget, dataset)
    if config.method == Method.NYSTROM:
        made = _fitted(dataset, config, pool, report)
    else:
        made = _chosen(dataset, config, report)
        check_dense(len(made.rows), "--budget")
    with pool.workers(PartWorker, dataset, config.parts, config.judged_users, config.seed) as workers:
        best = _Best.of(made, Users(workers, config.parts), config, report)
    return publish_summary(
        writer,
        dataset,
        made.rows,
        method=config.method,
        ntk=config.ntk,
        lam=best.lam,
        config=asdict(config),
        history=pa.Table.from_pylist([dict(row) for row in best.history]),
        counts=made.counts,
        dual=best.dual if made.keeps_dual else None,
    )


def plan_summarise(dataset: Dataset, config: DistillConfig | ComparisonConfig, *, workers: int | None = None) -> Plan:
    """The memory that `summarise` will take with so many workers; None: those of the connected cluster.

    Raises `InputError` for too large a budget.
    """
    check_budget(config.budget, dataset)
    if isinstance(config, DistillConfig):
        return plan_distillation(dataset, config, workers=workers)
    rows, interactions = config.budget, 0
    if config.method in (Method.RANDOM_INTERACTIONS, Method.SVP_CF):
        interactions = dataset.manifest.counts["train"]
    if config.method == Method.RANDOM_INTERACTIONS:
        rows = min(dataset.num_training_users, round(config.budget * dataset.mean_train_interactions))
    return plan_comparison(
        users=dataset.num_training_users,
        items=dataset.num_items,
        interactions=interactions,
        rows=rows,
        fitted=config.method == Method.NYSTROM,
        workers=min(workers or pool_size(), config.parts),
    )


@dataclass(frozen=True)
class _Candidates:
    """A summary but for its λ."""

    rows: Float32[np.ndarray, "budget items"]
    """S."""
    dual: Callable[[float], Float32[np.ndarray, "budget items"]]
    """α for a λ."""
    keeps_dual: bool = False
    """Whether α is to be stored: where it does not follow from S."""
    counts: Mapping[str, int] = field(default_factory=dict)


def _chosen(dataset: Dataset, config: ComparisonConfig, report: Report) -> _Candidates:
    match config.method:
        case Method.HEAD_USERS:
            rows = head_users(dataset, config.budget)
        case Method.SVP_CF:
            rows = svp_users(dataset, config.budget, seed=config.seed, report=report)
        case Method.RANDOM_INTERACTIONS:
            rows = random_interactions(dataset, config.budget, seed=config.seed)
        case _:
            rows = random_users(dataset, config.budget, seed=config.seed)
    summary = rows.toarray()
    return _Candidates(summary, lambda lam: solve_summary(config.ntk, summary, lam))


def _fitted(dataset: Dataset, config: ComparisonConfig, pool: Pool, report: Report) -> _Candidates:
    rows = random_users(dataset, config.budget, seed=config.seed)
    landmarks = KernelRows.of(rows)
    unnormalised = DegreeNormalisation.of_degrees(train_counts(dataset), Exponents())
    with pool.workers(NormalEquationsWorker, dataset) as workers:
        equations = normal_equations(workers, dataset, config.ntk, unnormalised, landmarks, report=report)
    system = NystromSystem.of(config.ntk, landmarks, equations)
    return _Candidates(
        rows.toarray(),
        lambda lam: system.dual(equations.ridge(lam)),
        keeps_dual=True,
        counts={"rank": len(system.spectrum)},
    )


@dataclass(frozen=True)
class _Best:
    """The λ that validation chose."""

    lam: float
    dual: Float32[np.ndarray, "budget items"]
    history: list[dict[str, Any]]
    """One row for each λ that had a finite α."""

    @classmethod
    def of(cls, made: _Candidates, users: Users, config: ComparisonConfig, report: Report) -> _Best:
        """One λ after another, so that only two α are held."""
        history: list[dict[str, Any]] = []
        best: tuple[float, np.ndarray] | None = None
        highest = -np.inf
        for number, lam in enumerate(config.grid):
            dual = made.dual(lam)
            if np.isfinite(dual).all():
                (metrics,) = users.judge(config.ntk, made.rows, [dual])
                history.append({"step": 0, "lambda": lam, **metrics})
                if metrics[config.select] > highest:
                    highest, best = metrics[config.select], (lam, dual)
            report("Candidates", number + 1, len(config.grid), {f"best {config.select}": highest} if history else {})
        if best is None:
            raise InputError(f"No λ of {config.grid} has a finite solution: add a larger one.")
        return cls(*best, history)
