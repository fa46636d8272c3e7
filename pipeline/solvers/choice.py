"""Which solver for which dataset: what each would need of memory, disk and time here, before any of it is spent.

exact     the kernel system in memory                     pipeline.models.infinite_ae
tiled     the same in files, for more users than fit      pipeline.solvers.tiled
nystrom   on a few landmarks, for any number of users     pipeline.models.nystrom
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

import numpy as np

from infrec.kernels.tiles import one_blas_thread
from infrec.pipeline.cluster import Cluster, Plan, Pool, Report, gigabytes, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.models import InfiniteAEConfig, NystromConfig, tried_lambdas
from infrec.pipeline.solvers.exact import fit_exact
from infrec.pipeline.solvers.memory import plan_exact, plan_nystrom, plan_tiled
from infrec.pipeline.solvers.nystrom import fit_nystrom
from infrec.pipeline.solvers.tiled import fit_tiled
from infrec.pipeline.storage import Artefact, ArtefactWriter, DoesNotFit

PATIENCE_SECONDS = 24 * 3600.0
"""What a solver may be expected to take if nobody asked for it."""

# Measured on ML-1M and on synthetic logs of 30,000 × 40,000 and 480,000 × 17,770 (benchmarks/README.md)
_SPARSE_SHARE = 1 / 13
"""Rate of a sparse × dense product relative to a GEMM's."""
_SOLVER_SHARE = 0.75
"""Rate of the solvers relative to a GEMM's."""
_TRIANGLES = 1.25
"""Operations of the tiled solver relative to n³: half-empty tiles are multiplied as well."""
_ROWS_A_SECOND = 4e6
"""Interactions that a CPU reads."""
_START_SECONDS = 6.0
"""Ray, actors, imports, compilation."""


class Solver(StrEnum):
    EXACT = "exact"
    TILED = "tiled"
    NYSTROM = "nystrom"


@dataclass(frozen=True)
class Search:
    """The search that a fit makes, for whichever solver makes it."""

    exact: InfiniteAEConfig
    """Of the exact solvers."""
    nystrom: NystromConfig


@dataclass(frozen=True)
class Resources:
    """What a fit may use."""

    cpus: int
    memory: int
    disk: int | None
    """Bytes for files beside the model; None on an object store."""

    @classmethod
    def of(cls, cluster: Cluster, *, memory_limit: int | None, disk: int | None) -> Resources:
        """`cluster`'s, with a limit and a disk."""
        return cls(cluster.cpus, memory_limit or cluster.memory, disk)


@dataclass(frozen=True)
class Estimate:
    """What a solver would need."""

    solver: Solver
    plan: Plan
    operations: float
    """Floating-point operations."""
    seconds: float

    def obstacle(self, resources: Resources) -> str:
        """Why it will not do; empty where it will."""
        if self.plan.peak > resources.memory:
            return f"more memory than {gigabytes(resources.memory)}"
        if resources.disk is not None and self.plan.disk > resources.disk:
            return f"more disk than {gigabytes(resources.disk)}"
        return "more than a day" if self.seconds > PATIENCE_SECONDS else ""


def estimates(dataset: Dataset, search: Search, resources: Resources, *, workers: int | None = None) -> list[Estimate]:
    """Of every solver, in the order in which they are preferred, with so many workers; None: those of the cluster."""
    users, items, interactions = dataset.num_training_users, dataset.num_items, dataset.manifest.counts["train"]
    nystrom = _of_nystrom(search, dataset)
    landmarks = nystrom.landmarks
    kernels, nystrom_kernels = len(search.exact.exponents), len(search.nystrom.exponents)
    candidates = kernels * len(tried_lambdas(dataset, search.exact))
    judged = min(search.nystrom.judged_users, dataset.num_users)
    sparse = 2.0 * interactions * users * (kernels + candidates)
    return [
        _estimate(
            Solver.EXACT,
            plan_exact(dataset, search.exact, workers=workers),
            resources,
            candidates * users**3.0,
            sparse,
        ),
        _estimate(
            Solver.TILED,
            plan_tiled(dataset, search.exact, workers=workers),
            resources,
            _TRIANGLES * candidates * users**3.0,
            sparse,
        ),
        _estimate(
            Solver.NYSTROM,
            plan_nystrom(dataset, nystrom, workers=workers),
            resources,
            nystrom_kernels * (2.0 * users * landmarks**2 + len(nystrom.lambdas) * 2.0 * judged * landmarks * items),
            nystrom_kernels * 4.0 * interactions * landmarks,
            rows=interactions * (2 + nystrom_kernels),
        ),
    ]


def chosen(known: Sequence[Estimate], resources: Resources) -> Estimate:
    """The first that will do. Raises `DoesNotFit` where none does."""
    for estimate in known:
        if not estimate.obstacle(resources):
            return estimate
    reasons = "; ".join(f"{one.solver}: {one.plan} is {one.obstacle(resources)}" for one in known)
    raise DoesNotFit(f"No solver fits: {reasons}. Raise --memory-limit, or take fewer --landmarks.")


def choose(dataset: Dataset, search: Search, resources: Resources, solver: Solver | None = None) -> Estimate:
    """What `solver` would need; None: what the first that will do would need. Raises `DoesNotFit` where none does."""
    known = estimates(dataset, search, resources)
    if solver is None:
        return chosen(known, resources)
    (asked_for,) = (estimate for estimate in known if estimate.solver == solver)
    return asked_for


def fit_infinite_ae(
    solver: Solver, search: Search, dataset: Dataset, writer: ArtefactWriter, pool: Pool, *, report: Report = silent
) -> Artefact:
    """Fit an ∞-AE with this solver, and publish it."""
    match solver:
        case Solver.EXACT:
            return fit_exact(dataset, writer, search.exact, pool, report=report)
        case Solver.TILED:
            return fit_tiled(dataset, writer, search.exact, pool, report=report)
        case Solver.NYSTROM:
            return fit_nystrom(dataset, writer, _of_nystrom(search, dataset), pool, report=report)


def _of_nystrom(search: Search, dataset: Dataset) -> NystromConfig:
    """With as many landmarks as there are training users, where there are fewer."""
    return replace(search.nystrom, landmarks=min(search.nystrom.landmarks, dataset.num_training_users))


def _estimate(
    solver: Solver, plan: Plan, resources: Resources, dense: float, sparse: float, *, rows: float = 0.0
) -> Estimate:
    rate = resources.cpus * gemm_rate()
    seconds = (
        dense / (_SOLVER_SHARE * rate) + sparse / (_SPARSE_SHARE * rate) + rows / (_ROWS_A_SECOND * resources.cpus)
    )
    return Estimate(solver, plan, dense + sparse, _START_SECONDS + seconds)


@cache
def gemm_rate(size: int = 1024) -> float:
    """Floating-point operations a second of one core in a float32 matrix product, measured at the first call."""
    matrix = np.ones((size, size), np.float32)
    best = math.inf
    with one_blas_thread:
        for _ in range(3):
            started = time.perf_counter()
            matrix @ matrix
            best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best
