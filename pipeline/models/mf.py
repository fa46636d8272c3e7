"""Matrix factorisation of implicit feedback by alternating least squares (Hu, Koren, Volinsky, ICDM 2008).

The library `implicit` fits user factors z and item factors Y (items × factors) to

    Σ_ui c_ui (p_ui − z_u·y_i)² + λ (Σ_u |z_u|² + Σ_i |y_i|²),    p = 1, c = α·x for an interaction; p = 0, c = 1 else.

The model keeps only Y. The factors z of a user are the best ones for the user's own history x: scores(x) = z Yᵀ with

    z = (YᵀY + (α − 1) Y_xᵀ Y_x + λ·1)⁻¹ α Y_xᵀ 1,    Y_x the rows of Y that are in x.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from infrec.kernels.tiles import one_blas_thread
from infrec.pipeline.cluster import COPIES, DRIVER, INTERACTION, Plan, Report, silent
from infrec.pipeline.data import Dataset, block_users, judging_threads, score_block
from infrec.pipeline.models.base import publish_model
from infrec.pipeline.models.search import Candidate, best_candidate, best_so_far, check_search
from infrec.pipeline.models.validation import Validation
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, read_tensor

MF_LAMBDAS = (1.0, 10.0, 100.0)
FACTORS = "factors.arrow"


@dataclass(frozen=True, kw_only=True)
class MFConfig:
    """The search of a matrix factorisation. The validation part chooses among the candidates of the grid.

    Raises `InputError` if a λ is not positive, or if the library `implicit` is not installed.
    """

    factors: tuple[int, ...] = (32, 128)
    lambdas: tuple[float, ...] = MF_LAMBDAS
    alphas: tuple[float, ...] = (1.0, 10.0)
    """The confidence of an interaction, relative to that of an item without one."""
    iterations: int = 15
    select: str = "nDCG@10"
    seed: int = 0
    """The seed of the factors that ALS begins with, and of the negatives that are sampled for the validation AUC."""

    def __post_init__(self) -> None:
        check_search(self.lambdas, self.select)
        if not all(self.lambdas):
            raise InputError("λ of a matrix factorisation must be positive, it is 0.")
        if find_spec("implicit") is None:
            raise InputError("Matrix factorisation needs the library implicit: pip install 'infrec[mf]'.")


@dataclass(frozen=True)
class MF:
    """A fitted matrix factorisation."""

    name: ClassVar[str] = "mf"

    items: Float[np.ndarray, "items factors"]
    """Y, the factors of the items."""
    lam: float
    alpha: float

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        config = artefact.manifest.config
        return cls(read_tensor(artefact, FACTORS), config["lambda"], config["alpha"])

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """Return z Yᵀ for every row x of `context`. Each user has a small system; a batch solves them all at once."""
        systems = np.tile(self._everyone, (context.shape[0], 1, 1))
        if self.alpha != 1:
            for user, system in enumerate(systems):
                mine = self.items[context.indices[context.indptr[user] : context.indptr[user + 1]]]
                system += np.float32(self.alpha - 1) * (mine.T @ mine)
        right = np.float32(self.alpha) * np.asarray(context @ self.items)
        users = np.linalg.solve(systems, right[:, :, None])[:, :, 0]
        scores: np.ndarray = users @ self.items.T
        return scores

    @cached_property
    def _everyone(self) -> Float[np.ndarray, "factors factors"]:
        """YᵀY + λ·1, the part that the systems of all users have in common."""
        shared: np.ndarray = self.items.T @ self.items
        shared[np.diag_indices_from(shared)] += self.lam
        return shared


def plan_mf(dataset: Dataset, config: MFConfig) -> Plan:
    """Return the memory that `fit_mf` will take."""
    return plan_factorisation(
        users=dataset.num_training_users,
        items=dataset.num_items,
        interactions=dataset.manifest.counts["train"],
        judged=dataset.num_users,
        factors=max(config.factors),
    )


def plan_factorisation(*, users: int, items: int, interactions: int, factors: int, judged: int) -> Plan:
    """Return the memory that ALS takes, in bytes.

    It holds the factors of users and items (also the best candidate's), the rows and their transpose, and the systems
    of a block of users.
    """
    systems = block_users(items) * 2 * 4 * factors * factors
    return Plan(
        f"The factorisation of {users:,} × {items:,}",
        {
            "factors": 4 * factors * (users + 2 * items),
            "score blocks": judging_threads(judged, items) * (score_block(0, items) + systems),
            "driver": DRIVER + COPIES * INTERACTION * interactions,
        },
        remedy="take fewer factors",
        remedy_settings=("factors",),
    )


def fit_mf(
    dataset: Dataset,
    writer: ArtefactWriter,
    config: MFConfig,
    *,
    train: sp.csr_array | None = None,
    report: Report = silent,
) -> Artefact:
    """Fit every candidate of the grid, keep the best on validation, and publish it as a model.

    `train` holds the interactions (binary CSR, rows × items). By default they are those of the dataset's training
    users. Raises `InputError` if the dataset has no validation interactions.
    """
    validation = Validation(dataset, seed=config.seed)
    if train is None:
        train = validation.histories.training_matrix()
    tried: list[Candidate] = []
    best: MF | None = None
    grid = list(itertools.product(config.factors, config.alphas, config.lambdas))
    for factors, alpha, lam in grid:
        candidate = MF(item_factors(train, factors, alpha, lam, config), lam, alpha)
        metrics = validation.judge(lambda block, model=candidate: model.scores(block.context))  # type: ignore[misc]
        tried.append(Candidate({"factors": factors, "alpha": alpha, "lambda": lam}, metrics))
        report("Candidates", len(tried), len(grid), best_so_far(tried, config.select))
        if best_candidate(tried, config.select) is tried[-1]:
            best = candidate
    assert best is not None
    users, items = train.shape
    return publish_model(
        writer,
        dataset,
        config={"model": MF.name, "search": asdict(config), **best_candidate(tried, config.select).parameters},
        counts={"users": users, "items": items, "interactions": train.nnz},
        candidates=tried,
        arrays=[(FACTORS, best.items)],
    )


def item_factors(
    train: sp.csr_array, factors: int, alpha: float, lam: float, config: MFConfig
) -> Float[np.ndarray, "items factors"]:
    """Return the item factors Y (float32) that `implicit` fits to the rows of `train`."""
    from implicit.cpu.als import AlternatingLeastSquares  # the library is an extra: not everyone has it

    with one_blas_thread as threads:
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=lam,
            alpha=alpha,
            iterations=config.iterations,
            num_threads=threads,
            random_state=config.seed,
        )
        model.fit(sp.csr_matrix(train), show_progress=False)  # implicit knows only the older of SciPy's two classes
    return np.asarray(model.item_factors, dtype=np.float32)
