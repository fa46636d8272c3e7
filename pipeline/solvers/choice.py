"""The choice of a solver for a dataset, by the memory, disk and time that each solver would need here.

These are estimated before any of them is spent.

exact     the kernel system in memory                        pipeline.solvers.exact
tiled     the same system in files, for more users than fit  pipeline.solvers.tiled
nystrom   a few landmarks, for any number of users           pipeline.solvers.nystrom
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from infrec.kernels.tiles import one_blas_thread
from infrec.pipeline.cluster import NOMINAL_RATE, Cluster, Plan, Pool, Report, Work, gigabytes, silent
from infrec.pipeline.data import Dataset, judging_users
from infrec.pipeline.models import InfiniteAEConfig, NystromConfig, Solver, tried_lambdas
from infrec.pipeline.solvers.exact import fit_exact
from infrec.pipeline.solvers.memory import plan_exact, plan_nystrom, plan_tiled
from infrec.pipeline.solvers.nystrom import fit_nystrom
from infrec.pipeline.solvers.tiled import fit_tiled
from infrec.pipeline.storage import Artefact, ArtefactWriter, DoesNotFit

PATIENCE_SECONDS = 24 * 3600.0
"""The longest time that a solver may be expected to take if nobody asked for it."""

_TRIANGLES = 1.25
"""The operations of the tiled solver, relative to n³: it multiplies half-empty tiles as well."""
_START_SECONDS = 6.0
"""The time that Ray, the actors, imports and compilation take."""


@dataclass(frozen=True)
class Search:
    """The search that a fit makes: a config for each kind of solver."""

    exact: InfiniteAEConfig
    """The config of the exact solvers, in memory and in files."""
    nystrom: NystromConfig


@dataclass(frozen=True)
class Resources:
    """The resources that a fit may use."""

    cpus: int
    memory: int
    """Bytes."""
    disk: int | None
    """Bytes for files beside the model; None on an object store."""

    @classmethod
    def of(cls, cluster: Cluster, *, memory_limit: int | None, disk: int | None) -> Resources:
        """Return the resources of `cluster`, with this disk. A memory limit replaces the cluster's memory."""
        return cls(cluster.cpus, memory_limit or cluster.memory, disk)


@dataclass(frozen=True)
class Estimate:
    """The memory, disk and time that a solver would need."""

    solver: Solver
    plan: Plan
    work: Work
    shared: Work
    """The part of the work that the pool does. The rest is the driver's."""
    seconds: float
    """The time at the measured rate of this machine's matrix products."""
    nominal_seconds: float
    """The time at `NOMINAL_RATE`, whatever the machine: the choice must not depend on a clock."""

    def obstacle(self, resources: Resources) -> str:
        """Return the reason why the solver will not do; it is empty if the solver will do."""
        if self.plan.peak > resources.memory:
            return f"more memory than {gigabytes(resources.memory)}"
        if resources.disk is not None and self.plan.disk > resources.disk:
            return f"more disk than {gigabytes(resources.disk)}"
        return "more than a day" if self.nominal_seconds > PATIENCE_SECONDS else ""


def estimates(dataset: Dataset, search: Search, resources: Resources, *, workers: int | None = None) -> list[Estimate]:
    """Return an estimate for every solver, the preferred one first, with so many workers; None: as the cluster has."""
    users, items, interactions = dataset.num_training_users, dataset.num_items, dataset.manifest.counts["train"]
    nystrom = _of_nystrom(search, dataset)
    landmarks = nystrom.landmarks
    kernels, nystrom_kernels = len(search.exact.exponents), len(search.nystrom.exponents)
    candidates = kernels * len(tried_lambdas(dataset, search.exact))
    judged = min(judging_users(search.nystrom.judged_users, items), dataset.num_users)
    gram, judging = (2.0 * interactions * users * times for times in (kernels, candidates))
    return [
        _estimate(
            Solver.EXACT,
            plan_exact(dataset, search.exact, workers=workers),
            resources,
            Work(candidates * users**3.0, gram + judging),
            shared=Work(sparse=gram),
        ),
        _estimate(
            Solver.TILED,
            plan_tiled(dataset, search.exact, workers=workers),
            resources,
            Work(_TRIANGLES * candidates * users**3.0, gram + judging),
        ),
        _estimate(
            Solver.NYSTROM,
            plan_nystrom(dataset, nystrom, workers=workers),
            resources,
            Work(
                nystrom_kernels
                * (2.0 * users * landmarks**2 + len(nystrom.lambdas) * 2.0 * judged * landmarks * items),
                nystrom_kernels * 4.0 * interactions * landmarks,
                rows=interactions * (2 + nystrom_kernels),
            ),
        ),
    ]


def chosen(known: Sequence[Estimate], resources: Resources) -> Estimate:
    """Return the first estimate of a solver that will do. Raises `DoesNotFit` if no solver will do."""
    for estimate in known:
        if not estimate.obstacle(resources):
            return estimate
    reasons = "; ".join(f"{one.solver}: {one.plan} is {one.obstacle(resources)}" for one in known)
    raise DoesNotFit(
        f"No solver fits: {reasons}; so raise the memory limit, or take fewer landmarks.", "memory_limit", "landmarks"
    )


def choose(dataset: Dataset, search: Search, resources: Resources, solver: Solver | None = None) -> Estimate:
    """Return the estimate of `solver`; None: that of the first solver that will do.

    Raises `DoesNotFit` if no solver is asked for and none will do.
    """
    known = estimates(dataset, search, resources)
    if solver is None:
        return chosen(known, resources)
    (asked_for,) = (estimate for estimate in known if estimate.solver == solver)
    return asked_for


def fit_infinite_ae(
    solver: Solver, search: Search, dataset: Dataset, writer: ArtefactWriter, pool: Pool, *, report: Report = silent
) -> Artefact:
    """Fit an ∞-AE with this solver, and publish it as a model."""
    match solver:
        case Solver.EXACT:
            return fit_exact(dataset, writer, search.exact, pool, report=report)
        case Solver.TILED:
            return fit_tiled(dataset, writer, search.exact, pool, report=report)
        case Solver.NYSTROM:
            return fit_nystrom(dataset, writer, _of_nystrom(search, dataset), pool, report=report)


def _of_nystrom(search: Search, dataset: Dataset) -> NystromConfig:
    """Return the config of the Nyström solver, with no more landmarks than there are training users."""
    return replace(search.nystrom, landmarks=min(search.nystrom.landmarks, dataset.num_training_users))


def _estimate(solver: Solver, plan: Plan, resources: Resources, work: Work, *, shared: Work | None = None) -> Estimate:
    def seconds(rate: float) -> float:
        return _START_SECONDS + work.seconds(rate) / resources.cpus

    return Estimate(solver, plan, work, shared or work, seconds(gemm_rate()), seconds(NOMINAL_RATE))


@cache
def gemm_rate(size: int = 1024) -> float:
    """Return the rate of one core in a float32 matrix product, in operations a second. The first call measures it."""
    matrix = np.ones((size, size), np.float32)
    best = math.inf
    with one_blas_thread:
        for _ in range(3):
            started = time.perf_counter()
            matrix @ matrix
            best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best
