"""∞-AE: an infinitely wide autoencoder, that is kernel ridge regression of the users' rows on themselves with its NTK.

Sachdeva et al., NeurIPS 2022; the regression is in `kernels.dual`. What is stored is whichever of α (users × items)
and M (the lower tiles of the inverse) is smaller, so nothing of size users × items exists for wide catalogues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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


def publish_infinite_ae(
    writer: ArtefactWriter,
    dataset: Dataset,
    config: InfiniteAEConfig,
    train: sp.csr_array,
    best: Candidate,
    tried: Sequence[Candidate],
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
        candidates=tried,
        tables={SUPPORT: pa.table({"items": lists_of(train)})},
        arrays=arrays,
        written=written,
    )
