"""The exact ∞-AE of more users than fit in memory: its kernel system lies in files and is solved tile by tile.

The model is that of `pipeline.models.infinite_ae`. The outcome of every candidate is a file as well. So a killed run
goes on with the candidate, and the tile, at which it was killed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from infrec.kernels.dual import residual
from infrec.kernels.factorisation import Node, Stage
from infrec.kernels.kernel_matrix import KernelRows
from infrec.kernels.metrics import combine
from infrec.kernels.normalisation import DegreeNormalisation
from infrec.kernels.tiles import Layout, NotPositiveDefinite
from infrec.pipeline.cluster import Pool, Report, Workers, silent
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
)
from infrec.pipeline.solvers.kernel_system import KernelSystem, SystemWorker, solve
from infrec.pipeline.solvers.memory import tile_of
from infrec.pipeline.storage import Artefact, ArtefactWriter, FileRecord, InputError, Location, tile_name


def fit_tiled(
    dataset: Dataset,
    writer: ArtefactWriter,
    config: InfiniteAEConfig,
    pool: Pool,
    *,
    tile: int | None = None,
    report: Report = silent,
) -> Artefact:
    """Fit every (exponents, λ) of the grid, keep the best on validation, and publish it as a model.

    Tiles have `tile` rows. By default they have as many rows as suit the number of users. The fit goes on from the
    files in the writer's staging directory. Raises `InputError` if no candidate is positive definite in float32, or if
    the dataset has no validation interactions.
    """
    validation = Validation(dataset, seed=config.seed)
    train = validation.histories.training_matrix()
    layout = Layout(train.shape[0], tile or tile_of(train.shape[0]))
    lambdas = tried_lambdas(dataset, config)
    config = replace(config, lambdas=lambdas)
    outcomes: list[_Outcome] = []
    best: tuple[_Outcome, KernelSystem] | None = None
    of_an_earlier_run = False
    with pool.workers(SystemWorker, dataset, config.seed) as workers:
        for kernel, exponents in enumerate(config.exponents):
            rows = KernelRows.of(DegreeNormalisation.of(train, exponents)(train))
            mean_diagonal = float(np.mean(config.ntk.diagonal(rows.squares, items=train.shape[1]), dtype=np.float64))
            gram = writer.work / f"kernel-{kernel}"
            for number, lam in enumerate(lambdas):
                place = gram / f"lambda-{number}"  # named by position: two values may look the same as text
                system = KernelSystem(config.ntk, exponents, lam * mean_diagonal, layout, gram, place)
                phase = f"Tiles ({exponents} λ={lam:g})"
                known = _Outcome.load(place)
                outcome = known or _solved(workers, system, lam, validation, phase, report)
                outcome.save(place)
                outcomes.append(outcome)
                tried = [one.candidate for one in outcomes if one.solved]
                best_yet = best_so_far(tried, config.select)
                report("Candidates", len(outcomes), len(config.exponents) * len(lambdas), best_yet)
                if not outcome.solved:
                    continue
                if best_candidate(tried, config.select) is outcome.candidate:
                    if best:
                        (best[1].solution / Stage.INVERSE).remove()
                    best, of_an_earlier_run = (outcome, system), known is not None
                else:
                    (place / Stage.INVERSE).remove()
            (gram / Stage.GRAM).remove()
        if best is None:
            raise InputError(f"No λ of {config.lambdas} is positive definite in float32: add a larger one.")
        chosen, system = best
        inverse = {Node(Stage.INVERSE, i, j): writer.staging / tile_name("dual", i, j) for i, j in layout.lower()}
        if of_an_earlier_run:  # it may have been killed in the moves below, and tiles may be damaged
            for node, published in inverse.items():
                if published.exists():
                    published.move(system.location(node))
            solve(workers, system, phase="The best one's tiles", report=report)
    for node, published in inverse.items():
        system.location(node).move(published)
    return publish_infinite_ae(
        writer,
        dataset,
        config,
        train,
        chosen.candidate,
        [outcome.candidate for outcome in outcomes if outcome.solved],
        solver=Solver.TILED,
        residual=chosen.residual,
        skipped=sum(not outcome.solved for outcome in outcomes),
        tile=layout.tile,
        written=chosen.files,
    )


def _solved(
    workers: Workers, system: KernelSystem, lam: float, validation: Validation, phase: str, report: Report
) -> _Outcome:
    """Solve the system of one candidate, and let the validation users judge it."""
    parameters = {"lambda": lam, "p": system.exponents.user, "q": system.exponents.item}
    try:
        records = solve(workers, system, phase=phase, report=report)
    except NotPositiveDefinite:
        system.solution.remove()
        return _Outcome(Candidate(parameters, {}), float("nan"), {})
    for stage in (Stage.FACTOR, Stage.FACTOR_INVERSE):
        (system.solution / stage).remove()
    blocks = [(block, system) for block in range(len(validation.blocks))]
    judged = []
    for done, metrics in enumerate(workers.map("judge", blocks), start=1):
        judged.append(metrics)
        report(f"Blocks of users judged (λ={lam:g})", done, len(blocks))
    targets = validation.histories.training_matrix().T.tocsr()
    inverse = system.stage(Stage.INVERSE)
    return _Outcome(
        Candidate(parameters, combine(judged)),
        residual(system.stage(Stage.GRAM), inverse, system.layout, system.ridge, targets),
        {tile_name("dual", node.i, node.j): record for node, record in records.items()},
    )


@dataclass(frozen=True)
class _Outcome:
    """The outcome of a candidate."""

    candidate: Candidate
    """It has no metrics if its system was not positive definite."""
    residual: float
    files: Mapping[str, FileRecord]
    """The records of the model's tiles."""

    @property
    def solved(self) -> bool:
        return bool(self.candidate.metrics)

    @classmethod
    def load(cls, place: Location) -> Self | None:
        note = place / "outcome.json"
        if not note.exists():
            return None
        body: dict[str, Any] = json.loads(note.read().to_pybytes())
        files = {name: FileRecord(**record) for name, record in body["files"].items()}
        return cls(Candidate(**body["candidate"]), body["residual"], files)

    def save(self, place: Location) -> None:
        (place / "outcome.json").write(json.dumps(asdict(self)).encode())
