"""Summaries of the same budget as Distill-CF's that are chosen or fitted, not learned.

All but Nyström are rows S of the dataset with the ∞-AE's own α. Validation chooses their λ. Nyström keeps m random
users as well, but fits their dual coefficients to all users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from infrec.kernels.inner_regression import solve_summary
from infrec.kernels.kernel_matrix import KernelRows, kernel_diagonal_block
from infrec.kernels.normalisation import DegreeNormalisation, Exponents
from infrec.kernels.nystrom import NystromSystem
from infrec.pipeline.cluster import Pool, Report, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation.baselines.chosen import head_users, random_interactions, svp_users
from infrec.pipeline.distillation.baselines.config import BaselineConfig
from infrec.pipeline.distillation.config import Method
from infrec.pipeline.distillation.initial import check_budget, random_users
from infrec.pipeline.distillation.part_worker import Coefficients, PartWorker
from infrec.pipeline.distillation.users import Users
from infrec.pipeline.models import check_dense, publish_summary
from infrec.pipeline.solvers import NormalEquationsWorker, sum_normal_equations, train_counts
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError


def make_baseline(
    dataset: Dataset, writer: ArtefactWriter, config: BaselineConfig, pool: Pool, *, report: Report = silent
) -> Artefact:
    """Make a summary, let validation choose its λ, and publish it.

    Raises `InputError` if the budget is above the number of training users, or if no λ has a finite solution.
    """
    check_budget(config.budget, dataset)
    if config.method == Method.NYSTROM:
        made = _fitted(dataset, config, pool, report)
    else:
        made = _chosen(dataset, config, report)
        check_dense(len(made.rows), "budget")
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


@dataclass(frozen=True)
class _Candidates:
    """A summary whose λ is not yet chosen."""

    rows: Float32[np.ndarray, "budget items"]
    """The matrix S."""
    dual: Callable[[float], Float32[np.ndarray, "budget items"]]
    """A function from λ to α."""
    keeps_dual: bool = False
    """Whether the artefact stores α, because α does not follow from S."""
    counts: Mapping[str, int] = field(default_factory=dict)


def _chosen(dataset: Dataset, config: BaselineConfig, report: Report) -> _Candidates:
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


def _fitted(dataset: Dataset, config: BaselineConfig, pool: Pool, report: Report) -> _Candidates:
    rows = random_users(dataset, config.budget, seed=config.seed)
    landmarks = KernelRows.of(rows)
    unnormalised = DegreeNormalisation.of_degrees(train_counts(dataset), Exponents())
    with pool.workers(NormalEquationsWorker, dataset) as workers:
        equations = sum_normal_equations(workers, dataset, config.ntk, unnormalised, landmarks, report=report)
    system = NystromSystem.of(kernel_diagonal_block(config.ntk, landmarks).astype(np.float64), equations)
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
    """One row for each λ that has a finite α."""

    @classmethod
    def of(cls, made: _Candidates, users: Users, config: BaselineConfig, report: Report) -> _Best:
        """Judge one λ after another, so that memory holds only two α. Raises `InputError` if none has a finite α."""
        history: list[dict[str, Any]] = []
        best: tuple[float, np.ndarray] | None = None
        highest = -np.inf
        for number, lam in enumerate(config.grid):
            dual = made.dual(lam)
            if np.isfinite(dual).all():
                (metrics,) = users.judge(config.ntk, made.rows, [Coefficients(dual)])
                history.append({"step": 0, "lambda": lam, **metrics})
                if metrics[config.select] > highest:
                    highest, best = metrics[config.select], (lam, dual)
            report("Candidates", number + 1, len(config.grid), {f"best {config.select}": highest} if history else {})
        if best is None:
            raise InputError(f"No λ of {config.grid} has a finite solution: add a larger one.")
        return cls(*best, history)
