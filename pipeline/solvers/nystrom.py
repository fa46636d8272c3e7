"""The ∞-AE on landmarks, fitted to any number of users. They are read slice by slice and never held all at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Float32, Float64, Int

from infrec.kernels.kernel_matrix import KernelRows, LandmarkKernel, kernel_diagonal_block
from infrec.kernels.landmarks import cluster_means, rpcholesky
from infrec.kernels.normalisation import DegreeNormalisation
from infrec.kernels.nystrom import NystromSystem
from infrec.pipeline.cluster import Pool, Report, Workers, silent
from infrec.pipeline.data import Dataset, UserBlock, judging_users
from infrec.pipeline.models import (
    Candidate,
    LandmarkSampling,
    NystromConfig,
    Validation,
    best_candidate,
    best_so_far,
    check_landmarks,
    publish_nystrom,
)
from infrec.pipeline.solvers.normal_equations import (
    NormalEquationsWorker,
    Survey,
    chosen_users,
    strips_of_items,
    sum_normal_equations,
    train_counts,
)
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError


def fit_nystrom(
    dataset: Dataset, writer: ArtefactWriter, config: NystromConfig, pool: Pool, *, report: Report = silent
) -> Artefact:
    """Fit every (exponents, λ) of the grid, keep the best on validation, and publish it as a model.

    One pass over the data counts its users. A second pass fetches the users that landmarks are made of, and the
    validation users. One more pass for each pair of exponents serves all λ. Raises `InputError` if there are too many
    landmarks, if nobody has validation interactions, or if no λ has a finite solution.
    """
    check_landmarks(config.landmarks, dataset)
    with pool.workers(NormalEquationsWorker, dataset) as workers:
        survey = Survey.of(workers, dataset, config.exponents, report=report)
        training, judging = _drawn(dataset, config, survey)
        candidates, sample = chosen_users(workers, dataset, survey, training=training, judging=judging)
        validation = Validation(dataset, seed=config.seed, histories=sample)
        tried: list[Candidate] = []
        best: _Solved | None = None
        for candidate in _solved(workers, dataset, config, survey, candidates, report):
            tried.append(Candidate(candidate.parameters, validation.judge(candidate.scores)))
            best_yet = best_so_far(tried, config.select)
            report("Candidates", len(tried), len(config.exponents) * len(config.lambdas), best_yet)
            if best_candidate(tried, config.select) is tried[-1]:
                best = candidate
            del candidate  # the next pair of exponents needs its memory
    if best is None:
        raise InputError(f"No λ of {config.lambdas} has a finite solution: add a larger one.")
    return publish_nystrom(
        writer,
        dataset,
        config,
        tried,
        exponents=best.normalisation.exponents,
        landmarks=best.landmarks.rows,
        duals=best.duals(),
        lam=best.lam,
        scale=best.scale,
        rank=len(best.system.spectrum),
        judged=len(judging),
    )


@dataclass(frozen=True)
class _Solved:
    """A solved candidate: a pair of exponents and a λ. The candidates of a pair share everything but λ."""

    lam: float
    ridge: float
    """c."""
    shrunk: Float64[np.ndarray, "landmarks rank"]
    """`system.shrunk` for this ridge."""
    scale: float
    normalisation: DegreeNormalisation
    landmarks: KernelRows
    """Z, normalised."""
    kernel: LandmarkKernel
    """K(·, Z)."""
    system: NystromSystem

    @property
    def parameters(self) -> dict[str, float]:
        exponents = self.normalisation.exponents
        return {"lambda": self.lam, "p": exponents.user, "q": exponents.item}

    def scores(self, block: UserBlock) -> Float[np.ndarray, "users items"]:
        """Return the scores of K(x, Z) β for a block of users, without β: it is as large as PᵀR, which is there."""
        kernel = self.kernel(KernelRows.of(self.normalisation(block.context)))
        scores: np.ndarray = (kernel @ self.shrunk).astype(np.float32) @ self.system.targets
        return scores

    def duals(self) -> Iterator[Float32[np.ndarray, "landmarks items"]]:
        """Yield β in strips of items."""
        for strip in strips_of_items(*self.landmarks.rows.shape):
            yield self.system.dual(self.ridge, strip)


def _landmarks(config: NystromConfig, candidates: sp.csr_array) -> sp.csr_array:
    """Make the landmarks from users, which are the normalised rows of `candidates`."""
    match config.sampling:
        case LandmarkSampling.UNIFORM:
            return candidates
        case LandmarkSampling.RPCHOLESKY:
            chosen = rpcholesky(config.ntk, KernelRows.of(candidates), config.landmarks, seed=config.seed)
            return candidates[chosen]
        case LandmarkSampling.K_MEANS:
            return cluster_means(candidates, config.landmarks, seed=config.seed)


def _drawn(
    dataset: Dataset, config: NystromConfig, survey: Survey
) -> tuple[Int[np.ndarray, " chosen"], Int[np.ndarray, " sample"]]:
    """Draw the positions of the users that the landmarks are made of, and those of the users that judge."""
    users, judging = sum(survey.training), sum(survey.judging)
    drawn = np.random.default_rng(config.seed).choice(users, config.drawn_users(users), replace=False)
    most = judging_users(config.judged_users, dataset.num_items)
    judged = np.random.default_rng([config.seed, 1]).choice(judging, min(most, judging), replace=False)
    return np.sort(drawn), np.sort(judged)


def _solved(
    workers: Workers, dataset: Dataset, config: NystromConfig, survey: Survey, candidates: sp.csr_array, report: Report
) -> Iterator[_Solved]:
    """Solve the grid, one pair of exponents after another. Only solved candidates outlive their pair."""
    degrees = train_counts(dataset)
    for exponents, squares in zip(config.exponents, survey.squares, strict=True):
        scale = DegreeNormalisation.of_degrees(degrees, exponents).scale(int(degrees.sum()), squares)
        normalisation = DegreeNormalisation.of_degrees(degrees, exponents, scale=scale)
        landmarks = KernelRows.of(_landmarks(config, normalisation(candidates)))
        yield from _for_all_lambdas(workers, dataset, config, normalisation, landmarks, scale, report)


def _for_all_lambdas(
    workers: Workers,
    dataset: Dataset,
    config: NystromConfig,
    normalisation: DegreeNormalisation,
    landmarks: KernelRows,
    scale: float,
    report: Report,
) -> Iterator[_Solved]:
    """Solve for every λ of the grid. The normal equations are made once, and decomposed once."""
    equations = sum_normal_equations(workers, dataset, config.ntk, normalisation, landmarks, report=report)
    system = NystromSystem.of(kernel_diagonal_block(config.ntk, landmarks).astype(np.float64), equations)
    kernel = LandmarkKernel.of(config.ntk, landmarks)
    for lam in config.lambdas:
        ridge = equations.ridge(lam)
        shrunk = system.shrunk(ridge)
        if np.isfinite(shrunk).all():
            yield _Solved(lam, ridge, shrunk, scale, normalisation, landmarks, kernel, system)
