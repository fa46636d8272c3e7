"""The exact ∞-AE in memory: workers make tile rows of the Gram matrix; the driver assembles and solves the system."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp

from infrec.kernels.dual import CoefficientDual, InverseDual, residual, ridge_of, solve_ridge
from infrec.kernels.kernel_matrix import KernelRows, kernel_block, kernel_diagonal_block
from infrec.kernels.normalisation import DegreeNormalisation, Exponents
from infrec.kernels.ntk import NTK
from infrec.kernels.tiles import ArrayTiles, Layout, NotPositiveDefinite, Tiles
from infrec.pipeline.cluster import Pool, Report, Workers, give_back_memory, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.models import (
    Candidate,
    InfiniteAEConfig,
    Solver,
    Validation,
    best_candidate,
    best_so_far,
    publish_infinite_ae,
    tried_lambdas,
    validation_scores,
)
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, tensor_name, tile_name


def fit_exact(
    dataset: Dataset, writer: ArtefactWriter, config: InfiniteAEConfig, pool: Pool, *, report: Report = silent
) -> Artefact:
    """Fit every (exponents, λ) of the grid, keep the best on validation, and publish it as a model.

    Raises `InputError` if no candidate is positive definite in float32, or if the dataset has no validation
    interactions.
    """
    with pool.workers(GramWorker, dataset) as workers:
        validation = Validation(dataset, seed=config.seed)
        train = validation.histories.training_matrix()
        config = replace(config, lambdas=tried_lambdas(dataset, config))
        candidates = len(config.exponents) * len(config.lambdas)
        tried: list[Candidate] = []
        best: Solved | None = None
        error = 0.0
        spare: list[Any] = []
        for candidate in solve_exact(workers, train, config, spare, report):
            scores = validation_scores(
                config.ntk, candidate.exponents, train, candidate.dual, in_sample=not dataset.has_held_out_users
            )
            tried.append(Candidate(candidate.parameters, validation.judge(scores)))
            report("Candidates", len(tried), candidates, best_so_far(tried, config.select))
            beaten: Solved | None = candidate
            if best_candidate(tried, config.select) is tried[-1]:
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
        best_candidate(tried, config.select),
        tried,
        solver=Solver.EXACT,
        residual=error,
        skipped=candidates - len(tried),
        arrays=_stored(best.dual),
        tile=best.dual.layout.tile if isinstance(best.dual, InverseDual) else None,
    )


@dataclass(frozen=True)
class Solved:
    """A candidate of the grid whose system is solved."""

    exponents: Exponents
    lam: float
    residual: Callable[[], float]
    """Computes the relative residual. It must be called before the next candidate is made."""
    dual: CoefficientDual | InverseDual
    memory: np.ndarray | ArrayTiles
    """The memory of `dual`: α or the tiles of M. Once this candidate is beaten, a later one is made in it."""

    @property
    def parameters(self) -> dict[str, float]:
        return {"lambda": self.lam, "p": self.exponents.user, "q": self.exponents.item}


def solve_exact(
    workers: Workers, train: sp.csr_array, config: InfiniteAEConfig, spare: list[Any], report: Report = silent
) -> Iterator[Solved]:
    """Solve the systems of the grid, and yield those that are positive definite.

    The Gram matrix is made once for each pair of exponents, and inverted once for each λ. A candidate is made in
    `spare` memory if there is any.
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
                yield Solved(exponents, lam, error, CoefficientDual.of(solution, alpha), alpha)
            else:
                yield Solved(exponents, lam, error, solution, inverse)
                inverse = spare.pop() if spare else ArrayTiles(layout)


def _items_are_fewer(train: sp.csr_array) -> bool:
    """Return whether α is the smaller form. If it is, M is not kept."""
    return bool(train.shape[1] <= train.shape[0])


def _stored(dual: CoefficientDual | InverseDual) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(dual, CoefficientDual):
        yield from ((tensor_name("dual", i), block) for i, block in enumerate(dual.blocks))
    else:
        yield from ((tile_name("dual", i, j), dual.inverse[i, j]) for i, j in dual.layout.lower())


class GramWorker:
    """A worker that holds the sparse training users. It computes the kernels of some of them with all before them.

    A tile row is a pure function of (dataset, kernel, exponents, index). So a worker that died is replaced, and only
    the row that it was computing is lost.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._train = dataset.training_matrix()
        self._layout = Layout(self._train.shape[0])
        self._exponents: Exponents | None = None

    def tile_row(self, i: int, ntk: NTK, exponents: Exponents) -> list[np.ndarray]:
        """Return the lower tiles (i, 0) … (i, i), float32."""
        if exponents != self._exponents:
            self._rows = KernelRows.of(DegreeNormalisation.of(self._train, exponents)(self._train))
            self._exponents = exponents
        own, others = self._rows[self._layout.span(i)], self._layout.spans()[:i]
        row = [
            *(kernel_block(ntk, own, self._rows[span]) for span in others),
            kernel_diagonal_block(ntk, own),
        ]
        give_back_memory()
        return row


def assemble(
    workers: Workers,
    target: Tiles,
    layout: Layout,
    *,
    ntk: NTK,
    exponents: Exponents,
    report: Report = silent,
) -> None:
    """Let `GramWorker`s compute the lower tiles of the Gram matrix K(X, X) of the training users; fill `target`."""
    # Compute the longest rows first: then the workers end at about the same time
    order = list(reversed(range(layout.count)))
    rows = workers.map("tile_row", [(i, ntk, exponents) for i in order])
    for done, (i, tiles) in enumerate(zip(order, rows, strict=True), start=1):
        for j, tile in enumerate(tiles):
            target[i, j] = tile.copy()  # copy it out of the object store, which is bounded
        report(f"Gram rows ({exponents})", done, layout.count)
