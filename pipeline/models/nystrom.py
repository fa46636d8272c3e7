"""The Nyström model: an ∞-AE of any number of users, as a regression on their kernels with a few landmarks.

    landmarks.parquet   items, weights: the normalised landmarks, as lists of item indices and of float32
    dual-*.arrow        β in strips of items: landmarks × items of the strip, float32
    validation.parquet  every candidate of the search with its metrics

scores(x) = K(x, Z) β (`kernels.nystrom`). The solver reads users slice by slice and never holds them all. Its memory
is that of a few matrices of landmarks × items, whatever the length of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float, Float32

from infrec.kernels.kernel_matrix import KernelRows, LandmarkKernel
from infrec.kernels.normalisation import DegreeNormalisation, Exponents
from infrec.kernels.ntk import NTK
from infrec.pipeline.data import ITEMS, Dataset, csr_of, lists_of
from infrec.pipeline.models.base import publish_model
from infrec.pipeline.models.infinite_ae import DEGREE_EXPONENTS, Solver
from infrec.pipeline.models.search import Candidate, check_dense, check_search
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, read_tensors, tensor_name

NYSTROM_LAMBDAS = (1.0, 3.5, 5.0, 6.5, 10.0, 20.0, 50.0, 200.0, 500.0, 2000.0)
"""Values around 5, the best λ of the exact ∞-AE on ML-1M, and larger ones, which a log of 480,000 users needs."""

LANDMARKS = "landmarks.parquet"


class LandmarkSampling(StrEnum):
    """The way to make the landmarks: see `kernels.landmarks`."""

    UNIFORM = "uniform"
    """Users at random."""
    RPCHOLESKY = "rpcholesky"
    """Users that differ from one another."""
    K_MEANS = "k-means"
    """Means of clusters of similar users."""


@dataclass(frozen=True, kw_only=True)
class NystromConfig:
    """The landmarks, and the search. The validation part chooses λ and exponents; a grid of one value fixes them."""

    landmarks: int = 1000
    """M, the number of landmarks."""
    sampling: LandmarkSampling = LandmarkSampling.K_MEANS
    candidates: int = 20_000
    """The number of users at random that landmarks are made of, unless the sampling is uniform.

    There are at least twice as many of these users as landmarks, if there are so many training users.
    """
    judged_users: int = 10_000
    """The number of validation users, drawn at random, that judge λ and exponents.

    If there are fewer, all judge. With more than 100,000 items, fewer judge: see `judging_users`.
    """
    lambdas: tuple[float, ...] = NYSTROM_LAMBDAS
    exponents: tuple[Exponents, ...] = DEGREE_EXPONENTS
    ntk: NTK = field(default_factory=NTK)
    select: str = "nDCG@10"
    seed: int = 0

    def __post_init__(self) -> None:
        check_search(self.lambdas, self.select)
        if self.landmarks < 1:
            raise InputError(f"The number of landmarks must be at least 1, it is {self.landmarks}.", "landmarks")

    def drawn_users(self, users: int) -> int:
        """Return how many of the `users` training users are drawn to make landmarks of."""
        if self.sampling == LandmarkSampling.UNIFORM:
            return self.landmarks
        return min(users, max(self.candidates, 2 * self.landmarks))


@dataclass(frozen=True)
class Nystrom:
    """An ∞-AE that was fitted on landmarks."""

    name: ClassVar[str] = "nystrom"

    normalisation: DegreeNormalisation
    kernel: Callable[[KernelRows], Float[np.ndarray, "users landmarks"]]
    """K(·, Z), a function of normalised rows."""
    duals: Sequence[Float32[np.ndarray, "landmarks items"]]
    """β, the dual coefficients of the landmarks, in strips of items."""

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        config = artefact.manifest.config
        degrees = artefact.table(ITEMS)["train_count"].to_numpy()
        normalisation = DegreeNormalisation.of_degrees(degrees, Exponents(**config["exponents"]), scale=config["scale"])
        table = artefact.table(LANDMARKS)
        landmarks = csr_of(table["items"], len(degrees))
        landmarks.data = table["weights"].combine_chunks().values.to_numpy()
        kernel = LandmarkKernel.of(NTK(**config["ntk"]), KernelRows.of(landmarks))
        return cls(normalisation, kernel, list(read_tensors(artefact, "dual")))

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """Return K(x, Z) β for every row x of `context`."""
        kernel = self.kernel(KernelRows.of(self.normalisation(context)))
        scores = np.empty(context.shape, np.float32)
        first = 0
        for dual in self.duals:
            np.matmul(kernel, dual, out=scores[:, first : first + dual.shape[1]])
            first += dual.shape[1]
        return scores


def check_landmarks(landmarks: int, dataset: Dataset) -> None:
    """Raise `InputError` if there are more landmarks than training users, or than a dense system may have rows."""
    check_dense(landmarks, "landmarks")
    users = dataset.num_training_users
    if landmarks > users:
        raise InputError(
            f"The number of landmarks must lie in 1 … {users:,}, the number of training users; it is {landmarks:,}.",
            "landmarks",
        )


def publish_nystrom(
    writer: ArtefactWriter,
    dataset: Dataset,
    config: NystromConfig,
    candidates: Sequence[Candidate],
    *,
    exponents: Exponents,
    landmarks: sp.csr_array,
    duals: Iterable[Float32[np.ndarray, "landmarks items"]],
    lam: float,
    scale: float,
    rank: int,
    judged: int,
) -> Artefact:
    """Publish the best candidate of a search as a model.

    Args:
        writer: writes the artefact, of kind MODEL.
        dataset: the dataset that the model was fitted to.
        config: the config of the search.
        candidates: all candidates that were judged.
        exponents: the exponents of the best candidate.
        landmarks: Z, normalised (CSR, landmarks × items).
        duals: β in strips of items. They are written one at a time.
        lam: λ of the best candidate.
        scale: the factor of its degree normalisation.
        rank: the rank of its normal equations.
        judged: the number of users that judged.
    """
    return publish_model(
        writer,
        dataset,
        config={
            "model": Nystrom.name,
            "solver": Solver.NYSTROM,
            "search": asdict(config),
            "ntk": asdict(config.ntk),
            "lambda": lam,
            "exponents": asdict(exponents),
            "scale": scale,
        },
        counts={
            "users": dataset.num_training_users,
            "items": dataset.num_items,
            "landmarks": config.landmarks,
            "rank": rank,
            "judged_users": judged,
            "candidates without a finite solution": len(config.exponents) * len(config.lambdas) - len(candidates),
        },
        candidates=candidates,
        tables={LANDMARKS: pa.table({"items": lists_of(landmarks), "weights": _weights_of(landmarks)})},
        arrays=((tensor_name("dual", number), dual) for number, dual in enumerate(duals)),
    )


def _weights_of(rows: sp.csr_array) -> pa.ListArray:
    return pa.ListArray.from_arrays(rows.indptr.astype(np.int32), rows.data.astype(np.float32))
