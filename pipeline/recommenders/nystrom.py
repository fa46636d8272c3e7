"""Nyström: the ∞-AE of any number of users, as regression on the kernels with a few landmark users.

    landmarks.parquet   items, weights: the landmarks as the kernel sees them, lists of item indices and of float32
    dual-00000.arrow    landmarks × items float32: β
    validation.parquet  every candidate of the search with its metrics

scores(x) = K(x, Z) β (`kernels.nystrom`). Users are read slice by slice and never held: memory is that of a few
landmarks × items matrices, whatever the length of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float, Float32, Int

from kernels.kernel_matrix import KernelRows, LandmarkKernel, kernel_block
from kernels.landmarks import cluster_means, rpcholesky
from kernels.normalisation import DegreeNormalisation, Exponents
from kernels.ntk import NTK
from kernels.nystrom import NystromSystem
from pipeline.artefact import Artefact, ArtefactWriter
from pipeline.dataset import ITEMS, Dataset, csr_of, lists_of
from pipeline.errors import InputError
from pipeline.normal_equations import (
    SLICE_USERS,
    NormalEquationsWorker,
    Survey,
    chosen_users,
    normal_equations,
    train_counts,
)
from pipeline.plan import Plan, plan_normal_equations
from pipeline.progress import Report, silent
from pipeline.recommenders.base import (
    Trial,
    best_so_far,
    best_trial,
    check_dense,
    check_search,
    publish_model,
    read_tensors,
    tensor_name,
)
from pipeline.recommenders.infinite_ae import DEGREE_EXPONENTS
from pipeline.validation import UserBlock, Validation
from pipeline.workers import Pool, Workers, pool_size

NYSTROM_LAMBDAS = (1.0, 3.5, 5.0, 6.5, 10.0, 20.0, 50.0, 200.0, 500.0, 2000.0)
"""Around the best of the exact ∞-AE on ML-1M, which is 5, and on to what a log of 480,000 users wants."""

LANDMARKS = "landmarks.parquet"


class LandmarkSampling(StrEnum):
    """How the landmarks come about: see `kernels.landmarks`."""

    UNIFORM = "uniform"
    """Users at random."""
    RPCHOLESKY = "rpcholesky"
    """Users that differ."""
    K_MEANS = "k-means"
    """Means of like users."""


@dataclass(frozen=True, kw_only=True)
class NystromConfig:
    """What is searched; the validation part chooses. A grid of one value is a fixed value."""

    landmarks: int = 1000
    """M."""
    sampling: LandmarkSampling = LandmarkSampling.K_MEANS
    candidates: int = 20_000
    """Landmarks that are not uniform come from so many users at random, or twice as many as landmarks if it is more."""
    judged_users: int = 10_000
    """λ and exponents are judged by so many validation users, drawn at random; by all where there are no more."""
    lambdas: tuple[float, ...] = NYSTROM_LAMBDAS
    exponents: tuple[Exponents, ...] = DEGREE_EXPONENTS
    ntk: NTK = field(default_factory=NTK)
    select: str = "nDCG@10"
    seed: int = 0

    def __post_init__(self) -> None:
        check_search(self.lambdas, self.select)
        if self.landmarks < 1:
            raise InputError(f"--landmarks must be at least 1, it is {self.landmarks}.")


@dataclass(frozen=True)
class Nystrom:
    """A fitted ∞-AE on landmarks."""

    name: ClassVar[str] = "nystrom"

    normalisation: DegreeNormalisation
    kernel: Callable[[KernelRows], Float[np.ndarray, "users landmarks"]]
    """K(·, Z), of normalised rows."""
    dual: Float32[np.ndarray, "landmarks items"]
    """β."""

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        config = artefact.manifest.config
        degrees = artefact.table(ITEMS)["train_count"].to_numpy()
        normalisation = DegreeNormalisation.of_degrees(degrees, Exponents(**config["exponents"]), scale=config["scale"])
        table = artefact.table(LANDMARKS)
        landmarks = csr_of(table["items"], len(degrees))
        landmarks.data = table["weights"].combine_chunks().values.to_numpy()
        (dual,) = read_tensors(artefact, "dual")
        kernel = LandmarkKernel.of(NTK(**config["ntk"]), KernelRows.of(landmarks))
        return cls(normalisation, kernel, dual)

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """K(x, Z) β for every row x of `context`."""
        scores: np.ndarray = self.kernel(KernelRows.of(self.normalisation(context))) @ self.dual
        return scores


def plan_nystrom(dataset: Dataset, config: NystromConfig, *, workers: int | None = None) -> Plan:
    """The memory that `fit_nystrom` will take with so many workers; None: those of the connected cluster.

    Raises `InputError` for too many landmarks.
    """
    check_landmarks(config.landmarks, dataset)
    users = dataset.num_training_users
    return plan_normal_equations(
        users=users,
        items=dataset.num_items,
        interactions=dataset.manifest.counts["train"],
        shards=dataset.num_shards,
        landmarks=config.landmarks,
        chosen=_candidates(config, users),
        judged=min(config.judged_users, dataset.num_users),
        slice_users=SLICE_USERS,
        workers=workers or pool_size(),
    )


def fit_nystrom(
    dataset: Dataset, writer: ArtefactWriter, config: NystromConfig, pool: Pool, *, report: Report = silent
) -> Artefact:
    """Fit every (exponents, λ) of the grid, keep the best on validation, publish it as a model.

    One pass over the data counts it, one fetches landmarks and validation users, and one more for each pair of
    exponents serves all λ. Raises `InputError` for too many landmarks, and where nobody has validation interactions.
    """
    check_landmarks(config.landmarks, dataset)
    with pool.workers(NormalEquationsWorker, dataset) as workers:
        survey = Survey.of(workers, dataset, config.exponents, report=report)
        training, judging = _drawn(config, survey)
        candidates, sample = chosen_users(workers, dataset, survey, training=training, judging=judging)
        validation = Validation(dataset, seed=config.seed, histories=sample)
        trials: list[Trial] = []
        best: _Candidate | None = None
        for candidate in _solved(workers, dataset, config, survey, candidates, report):
            trials.append(Trial(candidate.parameters, validation.judge(candidate.scores)))
            best_yet = best_so_far(trials, config.select)
            report("Candidates", len(trials), len(config.exponents) * len(config.lambdas), best_yet)
            if best_trial(trials, config.select) is trials[-1]:
                best = candidate
    if best is None:
        raise InputError(f"No λ of {config.lambdas} has a finite solution: add a larger one.")
    return _publish(writer, dataset, config, best, trials, judged=len(judging))


@dataclass(frozen=True)
class _Candidate:
    """A solved pair of exponents and λ."""

    lam: float
    scale: float
    rank: int
    landmarks: KernelRows
    """Z, normalised."""
    model: Nystrom

    @property
    def parameters(self) -> dict[str, float]:
        exponents = self.model.normalisation.exponents
        return {"lambda": self.lam, "p": exponents.user, "q": exponents.item}

    def scores(self, block: UserBlock) -> Float[np.ndarray, "users items"]:
        return self.model.scores(block.context)


def check_landmarks(landmarks: int, dataset: Dataset) -> None:
    """Raise `InputError` for more landmarks than there are training users, or than one dense system may have."""
    check_dense(landmarks, "--landmarks")
    users = dataset.num_training_users
    if landmarks > users:
        raise InputError(f"--landmarks must lie in 1 … {users:,}, the number of training users; it is {landmarks:,}.")


def _candidates(config: NystromConfig, users: int) -> int:
    """How many users the landmarks are made of."""
    if config.sampling == LandmarkSampling.UNIFORM:
        return config.landmarks
    return min(users, max(config.candidates, 2 * config.landmarks))


def _landmarks(config: NystromConfig, candidates: sp.csr_array) -> sp.csr_array:
    """Made of the normalised candidates."""
    match config.sampling:
        case LandmarkSampling.UNIFORM:
            return candidates
        case LandmarkSampling.RPCHOLESKY:
            chosen = rpcholesky(config.ntk, KernelRows.of(candidates), config.landmarks, seed=config.seed)
            return candidates[chosen]
        case LandmarkSampling.K_MEANS:
            return cluster_means(candidates, config.landmarks, seed=config.seed)


def _drawn(config: NystromConfig, survey: Survey) -> tuple[Int[np.ndarray, " chosen"], Int[np.ndarray, " sample"]]:
    """The positions of the users that the landmarks are made of, and of those that are judged by."""
    users, judging = sum(survey.training), sum(survey.judging)
    drawn = np.random.default_rng(config.seed).choice(users, _candidates(config, users), replace=False)
    judged = np.random.default_rng([config.seed, 1]).choice(judging, min(config.judged_users, judging), replace=False)
    return np.sort(drawn), np.sort(judged)


def _solved(
    workers: Workers, dataset: Dataset, config: NystromConfig, survey: Survey, candidates: sp.csr_array, report: Report
) -> Iterator[_Candidate]:
    """Solve the grid, one pair of exponents after another: nothing but candidates outlives its own."""
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
) -> Iterator[_Candidate]:
    """The normal equations are made once, and decomposed once."""
    equations = normal_equations(workers, dataset, config.ntk, normalisation, landmarks, report=report)
    system = NystromSystem.of(config.ntk, landmarks, equations)
    for lam in config.lambdas:
        dual = system.dual(equations.ridge(lam))
        if np.isfinite(dual).all():
            model = Nystrom(normalisation, partial(kernel_block, config.ntk, columns=landmarks), dual)
            yield _Candidate(lam, scale, len(system.spectrum), landmarks, model)


def _publish(
    writer: ArtefactWriter,
    dataset: Dataset,
    config: NystromConfig,
    best: _Candidate,
    trials: Sequence[Trial],
    *,
    judged: int,
) -> Artefact:
    landmarks = best.landmarks.rows
    return publish_model(
        writer,
        dataset,
        config={
            "model": Nystrom.name,
            "search": asdict(config),
            "ntk": asdict(config.ntk),
            "lambda": best.lam,
            "exponents": asdict(best.model.normalisation.exponents),
            "scale": best.scale,
        },
        counts={
            "users": dataset.num_training_users,
            "items": dataset.num_items,
            "landmarks": config.landmarks,
            "rank": best.rank,
            "judged_users": judged,
            "candidates without a finite solution": len(config.exponents) * len(config.lambdas) - len(trials),
        },
        trials=trials,
        tables={LANDMARKS: pa.table({"items": lists_of(landmarks), "weights": _weights_of(landmarks)})},
        arrays=[(tensor_name("dual", 0), best.model.dual)],
    )


def _weights_of(rows: sp.csr_array) -> pa.ListArray:
    return pa.ListArray.from_arrays(rows.indptr.astype(np.int32), rows.data.astype(np.float32))
