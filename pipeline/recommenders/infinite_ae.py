"""∞-AE: an infinitely wide autoencoder, that is kernel ridge regression of the users' rows on themselves with its NTK.

Sachdeva et al., NeurIPS 2022; the regression is in `kernels.dual`. What is stored is whichever of α (users × items)
and M (the lower tiles of the inverse) is smaller, so nothing of size users × items exists for wide catalogues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float

from kernels.dual import CoefficientDual, Dual, InverseDual, residual, ridge_of, solve_ridge
from kernels.kernel_matrix import KernelRows, kernel_block
from kernels.normalisation import DegreeNormalisation, Exponents
from kernels.ntk import NTK
from kernels.tiles import ArrayTiles, Layout, NotPositiveDefinite
from pipeline.artefact import Artefact, ArtefactWriter, FileRecord
from pipeline.dataset import Dataset, csr_of, lists_of
from pipeline.errors import InputError
from pipeline.gram import GramWorker, assemble
from pipeline.plan import Plan, plan_kernel_system
from pipeline.progress import Report, silent
from pipeline.recommenders.base import (
    Trial,
    best_so_far,
    best_trial,
    check_search,
    publish_model,
    read_tensors,
    stored_tiles,
    tensor_name,
    tile_name,
)
from pipeline.validation import UserBlock, Validation
from pipeline.workers import Pool, Workers, pool_size

PAPER_LAMBDAS = (0.0, 1.0, 5.0, 20.0, 50.0, 100.0)
PAPER_EXPONENTS = (Exponents(),)
DEGREE_EXPONENTS = (
    Exponents(),
    Exponents(user=0.3, item=0.25),
    Exponents(user=0.4, item=0.25),
    Exponents(user=0.5, item=0.25),
)
"""The paper's kernel and the neighbourhood of the best normalisation on two real logs (benchmarks/README.md)."""

SUPPORT = "support.parquet"


@dataclass(frozen=True, kw_only=True)
class InfiniteAEConfig:
    """What is searched; the validation part chooses. A grid of one value is a fixed value."""

    lambdas: tuple[float, ...] = PAPER_LAMBDAS
    exponents: tuple[Exponents, ...] = DEGREE_EXPONENTS
    ntk: NTK = field(default_factory=NTK)
    select: str = "nDCG@10"
    seed: int = 0
    """Of the negatives sampled for the validation AUC: nothing else here is random."""

    def __post_init__(self) -> None:
        check_search(self.lambdas, self.select)


@dataclass(frozen=True)
class InfiniteAE:
    """A fitted ∞-AE."""

    name: ClassVar[str] = "infinite-ae"

    ntk: NTK
    normalisation: DegreeNormalisation
    support: KernelRows
    """The normalised training users."""
    dual: Dual

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        config = artefact.manifest.config
        train = csr_of(artefact.table(SUPPORT)["items"], artefact.manifest.counts["items"])
        normalisation = DegreeNormalisation.of(train, Exponents(**config["exponents"]))
        if config["dual"] == "coefficients":
            dual: Dual = CoefficientDual(list(read_tensors(artefact, "dual")))
        else:
            layout = Layout(train.shape[0], config["tile"])
            dual = InverseDual(stored_tiles(artefact, "dual"), layout, train.T.tocsr())
        return cls(NTK(**config["ntk"]), normalisation, KernelRows.of(normalisation(train)), dual)

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """K(x, X) α for every row x of `context`."""
        users = KernelRows.of(self.normalisation(context))
        return self.dual.scores(kernel_block(self.ntk, self.support, users))


def plan_infinite_ae(dataset: Dataset, config: InfiniteAEConfig, *, workers: int | None = None) -> Plan:
    """The memory that `fit_infinite_ae` will take with so many workers; None: those of the connected cluster."""
    counts = dataset.manifest.counts
    candidates = len(config.exponents) * len(tried_lambdas(dataset, config))
    return plan_kernel_system(
        users=counts["users"] - counts["held_out_users"],
        items=dataset.num_items,
        interactions=counts["train"],
        kept=2 if candidates > 1 else 1,
        workers=workers or pool_size(),
    )


def fit_infinite_ae(
    dataset: Dataset, writer: ArtefactWriter, config: InfiniteAEConfig, pool: Pool, *, report: Report = silent
) -> Artefact:
    """Fit every (exponents, λ) of the grid, keep the best on validation, publish it as a model.

    Raises `InputError` if no candidate is positive definite in float32.
    """
    with pool.workers(GramWorker, dataset) as workers:
        validation = Validation(dataset, seed=config.seed)
        train = validation.histories.training_matrix()
        config = replace(config, lambdas=tried_lambdas(dataset, config))
        candidates = len(config.exponents) * len(config.lambdas)
        trials: list[Trial] = []
        best: _Candidate | None = None
        error = 0.0
        spare: list[Any] = []
        for candidate in solved(workers, train, config, spare, report):
            scores = validation_scores(
                config.ntk, candidate.exponents, train, candidate.dual, in_sample=not dataset.has_held_out_users
            )
            trials.append(Trial(candidate.parameters, validation.judge(scores)))
            report("Candidates", len(trials), candidates, best_so_far(trials, config.select))
            beaten: _Candidate | None = candidate
            if best_trial(trials, config.select) is trials[-1]:
                best, beaten, error = candidate, best, candidate.residual()
            if beaten:
                spare.append(beaten.memory)
    if best is None:
        raise InputError(f"No λ of {config.lambdas} is positive definite in float32: add a larger one.")
    return publish_infinite_ae(
        writer,
        dataset,
        config,
        train,
        best_trial(trials, config.select),
        trials,
        residual=error,
        skipped=candidates - len(trials),
        arrays=_stored(best.dual),
        tile=best.dual.layout.tile if isinstance(best.dual, InverseDual) else None,
    )


def tried_lambdas(dataset: Dataset, config: InfiniteAEConfig) -> tuple[float, ...]:
    """The grid without what cannot be judged.

    A λ of 0 interpolates the training rows: where these are also the validation users, the scores of their unseen items
    are all 0 in exact arithmetic. It is left out then, unless it is the only one.
    """
    lambdas = tuple(dict.fromkeys(config.lambdas))
    if dataset.has_held_out_users:
        return lambdas
    return tuple(lam for lam in lambdas if lam > 0) or lambdas


def validation_scores(
    ntk: NTK, exponents: Exponents, train: sp.csr_array, dual: Dual, *, in_sample: bool
) -> Callable[[UserBlock], Float[np.ndarray, "users items"]]:
    """How a solved system scores validation users: those that it was trained on, or others.

    For its own K M X = X − cα, so that their unseen items rank as −α; others need a kernel block of their own.
    """
    if in_sample:

        def scores(block: UserBlock) -> Float[np.ndarray, "users items"]:
            coefficients = dual.coefficients(block.rows)
            np.negative(coefficients, out=coefficients)
            return coefficients

        return scores
    normalisation = DegreeNormalisation.of(train, exponents)
    model = InfiniteAE(ntk, normalisation, KernelRows.of(normalisation(train)), dual)
    return lambda block: model.scores(block.context)


@dataclass(frozen=True)
class _Candidate:
    """A solved system of the grid."""

    exponents: Exponents
    lam: float
    residual: Callable[[], float]
    """To be asked for before the next candidate is made."""
    dual: CoefficientDual | InverseDual
    memory: np.ndarray | ArrayTiles
    """What `dual` lies in, α or the tiles of M: the next candidate's, once this one is beaten."""

    @property
    def parameters(self) -> dict[str, float]:
        return {"lambda": self.lam, "p": self.exponents.user, "q": self.exponents.item}


def solved(
    workers: Workers, train: sp.csr_array, config: InfiniteAEConfig, spare: list[Any], report: Report = silent
) -> Iterator[_Candidate]:
    """Solve the grid: the Gram matrix is made once for each pair of exponents, and inverted once for each λ.

    A candidate is made in `spare` memory, where there is any.
    """
    layout = Layout(train.shape[0])
    gram, inverse = ArrayTiles(layout), ArrayTiles(layout)
    targets = train.T.tocsr()
    for exponents in config.exponents:
        assemble(workers, gram, layout, ntk=config.ntk, exponents=exponents, report=report)
        for lam in config.lambdas:
            ridge = ridge_of(gram, layout, lam)
            try:
                solve_ridge(gram, layout, ridge, inverse)
            except NotPositiveDefinite:
                continue
            solution = InverseDual(inverse, layout, targets)
            error = partial(residual, gram, inverse, layout, ridge, targets)
            if _items_are_fewer(train):
                alpha = spare.pop() if spare else np.empty(train.shape, np.float32)
                yield _Candidate(exponents, lam, error, CoefficientDual.of(solution, alpha), alpha)
            else:
                yield _Candidate(exponents, lam, error, solution, inverse)
                inverse = spare.pop() if spare else ArrayTiles(layout)


def _items_are_fewer(train: sp.csr_array) -> bool:
    """α is the smaller form then, and M is not kept."""
    return bool(train.shape[1] <= train.shape[0])


def publish_infinite_ae(
    writer: ArtefactWriter,
    dataset: Dataset,
    config: InfiniteAEConfig,
    train: sp.csr_array,
    best: Trial,
    trials: Sequence[Trial],
    *,
    residual: float,
    skipped: int,
    tile: int | None,
    arrays: Iterable[tuple[str, np.ndarray]] = (),
    written: Mapping[str, FileRecord] | None = None,
) -> Artefact:
    """Publish the best candidate: its α in `arrays`, or, with a `tile`, the tiles of M in `arrays` or `written`."""
    users, items = train.shape
    return publish_model(
        writer,
        dataset,
        config={
            "model": InfiniteAE.name,
            "search": asdict(config),
            "ntk": asdict(config.ntk),
            "lambda": best.parameters["lambda"],
            "exponents": {"user": best.parameters["p"], "item": best.parameters["q"]},
            **({"dual": "inverse", "tile": tile} if tile else {"dual": "coefficients"}),
        },
        counts={
            "users": users,
            "items": items,
            "interactions": train.nnz,
            "residual": residual,
            "candidates not positive definite": skipped,
        },
        trials=trials,
        tables={SUPPORT: pa.table({"items": lists_of(train)})},
        arrays=arrays,
        written=written,
    )


def _stored(dual: CoefficientDual | InverseDual) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(dual, CoefficientDual):
        yield from ((tensor_name("dual", i), block) for i, block in enumerate(dual.blocks))
    else:
        yield from ((tile_name("dual", i, j), dual.inverse[i, j]) for i, j in dual.layout.lower())
