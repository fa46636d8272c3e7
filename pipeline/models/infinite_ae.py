"""∞-AE: an infinitely wide autoencoder. It is a kernel ridge regression of the users' rows on themselves with its NTK.

Source: Sachdeva et al., NeurIPS 2022. The regression is in `kernels.dual`. The artefact stores either α
(users × items) or M (the lower tiles of the inverse), whichever is smaller. So nothing of size users × items exists
for wide catalogues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float

from infrec.kernels.dual import CoefficientDual, Dual, InverseDual
from infrec.kernels.kernel_matrix import KernelRows, kernel_block
from infrec.kernels.normalisation import DegreeNormalisation, Exponents
from infrec.kernels.ntk import NTK
from infrec.kernels.tiles import Layout
from infrec.pipeline.data import Dataset, UserBlock, csr_of, lists_of
from infrec.pipeline.models.base import publish_model
from infrec.pipeline.models.search import Candidate, check_search
from infrec.pipeline.storage import Artefact, ArtefactWriter, FileRecord, read_tensors, stored_tiles

PAPER_LAMBDAS = (0.0, 1.0, 5.0, 20.0, 50.0, 100.0)
PAPER_EXPONENTS = (Exponents(),)
DEGREE_EXPONENTS = (
    Exponents(),
    Exponents(user=0.3, item=0.25),
    Exponents(user=0.4, item=0.25),
    Exponents(user=0.5, item=0.25),
)
"""The paper's kernel, and the exponents around the best normalisation on two real logs (benchmarks/README.md)."""

SUPPORT = "support.parquet"


class Solver(StrEnum):
    """The way to fit an ∞-AE. The manifest of the model records it."""

    EXACT = "exact"
    """Solves the kernel system in memory."""
    TILED = "tiled"
    """Solves the same system in files, for more users than fit in memory."""
    NYSTROM = "nystrom"
    """Solves a smaller system on landmarks, for any number of users."""


@dataclass(frozen=True, kw_only=True)
class InfiniteAEConfig:
    """The search of the exact solvers. The validation part chooses λ and exponents; a grid of one value fixes them."""

    lambdas: tuple[float, ...] = PAPER_LAMBDAS
    exponents: tuple[Exponents, ...] = DEGREE_EXPONENTS
    ntk: NTK = field(default_factory=NTK)
    select: str = "nDCG@10"
    seed: int = 0
    """The seed of the negatives that are sampled for the validation AUC. Nothing else here is random."""

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
        """Return K(x, X) α for every row x of `context`."""
        users = KernelRows.of(self.normalisation(context))
        return self.dual.scores(kernel_block(self.ntk, self.support, users))


def tried_lambdas(dataset: Dataset, config: InfiniteAEConfig) -> tuple[float, ...]:
    """Return the values of the grid of λ that the validation users can judge, each once.

    A λ of 0 interpolates the training rows. If the training users are also the validation users, all scores of their
    unseen items are then 0 in exact arithmetic. In that case 0 is left out, unless it is the only value.
    """
    lambdas = tuple(dict.fromkeys(config.lambdas))
    if dataset.has_held_out_users:
        return lambdas
    return tuple(lam for lam in lambdas if lam > 0) or lambdas


def validation_scores(
    ntk: NTK, exponents: Exponents, train: sp.csr_array, dual: Dual, *, in_sample: bool
) -> Callable[[UserBlock], Float[np.ndarray, "users items"]]:
    """Return the function by which a solved system scores a block of validation users.

    With `in_sample` these are the users that the system was trained on. For them K M X = X − cα, so their unseen items
    rank as −α. Other users need a kernel block of their own.
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


def publish_infinite_ae(
    writer: ArtefactWriter,
    dataset: Dataset,
    config: InfiniteAEConfig,
    train: sp.csr_array,
    best: Candidate,
    tried: Sequence[Candidate],
    *,
    solver: Solver,
    residual: float,
    skipped: int,
    tile: int | None,
    arrays: Iterable[tuple[str, np.ndarray]] = (),
    written: Mapping[str, FileRecord] | None = None,
) -> Artefact:
    """Publish the best candidate of a search as a model.

    Args:
        writer: writes the artefact.
        dataset: the dataset that the model was fitted to.
        config: the config of the search.
        train: X, the training users (CSR, users × items).
        best: the best candidate.
        tried: all candidates that were judged.
        solver: the solver that fitted the model.
        residual: the relative residual of the best candidate's system.
        skipped: the number of candidates that were not positive definite.
        tile: the rows of a tile of M; None if the model stores α.
        arrays: the blocks of α or the tiles of M, by file name.
        written: the records of tiles of M that lie in the writer's staging directory already.
    """
    users, items = train.shape
    return publish_model(
        writer,
        dataset,
        config={
            "model": InfiniteAE.name,
            "solver": solver,
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
        candidates=tried,
        tables={SUPPORT: pa.table({"items": lists_of(train)})},
        arrays=arrays,
        written=written,
    )
