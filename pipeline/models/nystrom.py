"""Nyström: the ∞-AE of any number of users, as regression on the kernels with a few landmark users.

    landmarks.parquet   items, weights: the landmarks as the kernel sees them, lists of item indices and of float32
    dual-00000.arrow    landmarks × items float32: β
    validation.parquet  every candidate of the search with its metrics

scores(x) = K(x, Z) β (`kernels.nystrom`). Users are read slice by slice and never held: memory is that of a few
landmarks × items matrices, whatever the length of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from infrec.pipeline.models.infinite_ae import DEGREE_EXPONENTS
from infrec.pipeline.models.search import Candidate, check_dense, check_search
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, read_tensors, tensor_name

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

    def drawn_users(self, users: int) -> int:
        """How many of the training users the landmarks are made of."""
        if self.sampling == LandmarkSampling.UNIFORM:
            return self.landmarks
        return min(users, max(self.candidates, 2 * self.landmarks))


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


def check_landmarks(landmarks: int, dataset: Dataset) -> None:
    """Raise `InputError` for more landmarks than there are training users, or than one dense system may have."""
    check_dense(landmarks, "--landmarks")
    users = dataset.num_training_users
    if landmarks > users:
        raise InputError(f"--landmarks must lie in 1 … {users:,}, the number of training users; it is {landmarks:,}.")


def publish_nystrom(
    writer: ArtefactWriter,
    dataset: Dataset,
    config: NystromConfig,
    model: Nystrom,
    candidates: Sequence[Candidate],
    *,
    landmarks: sp.csr_array,
    lam: float,
    scale: float,
    rank: int,
    judged: int,
) -> Artefact:
    """Publish the best candidate of a search.

    Args:
        writer: of kind MODEL.
        dataset: what it was fitted to.
        config: of the search.
        model: the best candidate.
        candidates: all that were judged.
        landmarks: Z, normalised.
        lam: λ of the best candidate.
        scale: the factor of its degree normalisation.
        rank: that of its normal equations.
        judged: how many users judged.
    """
    return publish_model(
        writer,
        dataset,
        config={
            "model": Nystrom.name,
            "search": asdict(config),
            "ntk": asdict(config.ntk),
            "lambda": lam,
            "exponents": asdict(model.normalisation.exponents),
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
        arrays=[(tensor_name("dual", 0), model.dual)],
    )


def _weights_of(rows: sp.csr_array) -> pa.ListArray:
    return pa.ListArray.from_arrays(rows.indptr.astype(np.int32), rows.data.astype(np.float32))
