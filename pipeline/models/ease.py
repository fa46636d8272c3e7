"""EASE as a recommender: the strongest simple baseline. It is tuned as hard as our own model.

The maths is in `kernels.ease`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from infrec.kernels.ease import item_gram, item_weights
from infrec.kernels.tiles import ArrayTiles, Layout, NotPositiveDefinite
from infrec.pipeline.cluster import COPIES, DRIVER, INTERACTION, Plan, Report, silent
from infrec.pipeline.data import Dataset, UserBlock, judging_threads, score_block
from infrec.pipeline.models.base import publish_model
from infrec.pipeline.models.search import Candidate, best_candidate, best_so_far, check_search
from infrec.pipeline.models.validation import Validation
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, read_tensors, tensor_name

EASE_LAMBDAS = (10.0, 30.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)


@dataclass(frozen=True, kw_only=True)
class EASEConfig:
    """The search of EASE: a grid of λ, in units of interactions. The validation part chooses λ."""

    lambdas: tuple[float, ...] = EASE_LAMBDAS
    select: str = "nDCG@10"
    seed: int = 0
    """The seed of the negatives that are sampled for the validation AUC."""

    def __post_init__(self) -> None:
        check_search(self.lambdas, self.select)


@dataclass(frozen=True)
class EASE:
    """A fitted EASE model."""

    name: ClassVar[str] = "ease"

    weights: list[Float[np.ndarray, "_ items"]]
    """B (items × items, float32), in blocks of rows."""

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        return cls(list(read_tensors(artefact, "weights")))

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """Return x B for every row x of `context`."""
        by_item = context.tocsc()
        total = np.zeros(context.shape, np.float32)
        start = 0
        for block in self.weights:
            total += by_item[:, start : start + len(block)] @ block
            start += len(block)
        return total


def plan_ease(dataset: Dataset, config: EASEConfig) -> Plan:
    """Return the memory that `fit_ease` will take."""
    return plan_item_system(
        items=dataset.num_items,
        interactions=dataset.manifest.counts["train"],
        judged=dataset.num_users,
        weights=2 if len(config.lambdas) > 1 else 1,
    )


def plan_item_system(*, items: int, interactions: int, weights: int, judged: int) -> Plan:
    """Return the memory that EASE takes, in bytes.

    It holds the lower tiles of the items' Gram matrix and of its inverse, and `weights` matrices of items × items.
    """
    return Plan(
        f"The item system of {items:,} items",
        {
            "Gram matrix": 4 * Layout(items).lower_entries,
            "inverse": 4 * Layout(items).lower_entries,
            "weights": 4 * items * items * weights,
            "score blocks": judging_threads(judged, items) * score_block(0, items),
            "driver": DRIVER + COPIES * INTERACTION * interactions,
        },
        remedy="fix λ to save a copy, take a model that has no matrix of items × items",
        remedy_settings=("lambdas", "model"),
    )


def fit_ease(
    dataset: Dataset,
    writer: ArtefactWriter,
    config: EASEConfig,
    *,
    train: sp.csr_array | None = None,
    report: Report = silent,
) -> Artefact:
    """Fit EASE with every λ of the grid, keep the best on validation, and publish it as a model.

    `train` is the matrix X (CSR, rows × items, any weights). By default X holds the dataset's training users. Raises
    `InputError` if no candidate is positive definite in float32, or if the dataset has no validation interactions.
    """
    validation = Validation(dataset, seed=config.seed)
    if train is None:
        train = validation.histories.training_matrix()
    users, items = train.shape
    tried: list[Candidate] = []
    best = np.empty((0, items), np.float32)
    for lam, weights in solve_ease(train, config):

        def scores(
            block: UserBlock, weights: Float[np.ndarray, "items items"] = weights
        ) -> Float[np.ndarray, "users items"]:
            return np.asarray(block.context @ weights)

        metrics = validation.judge(scores)
        tried.append(Candidate({"lambda": lam}, metrics))
        report("Candidates", len(tried), len(config.lambdas), best_so_far(tried, config.select))
        if best_candidate(tried, config.select) is tried[-1]:
            best = weights.copy() if len(config.lambdas) > 1 else weights
    if not tried:
        raise InputError(f"No λ of {config.lambdas} is positive definite in float32: add a larger one.")
    return publish_model(
        writer,
        dataset,
        config={
            "model": EASE.name,
            "search": asdict(config),
            "lambda": best_candidate(tried, config.select).parameters["lambda"],
        },
        counts={"users": users, "items": items, "interactions": train.nnz},
        candidates=tried,
        arrays=((tensor_name("weights", i), best[span]) for i, span in enumerate(Layout(items).spans())),
    )


def solve_ease(train: sp.csr_array, config: EASEConfig) -> Iterator[tuple[float, Float[np.ndarray, "items items"]]]:
    """Yield (λ, B) for every λ of the grid whose system is positive definite. The next B overwrites the last one."""
    items = train.shape[1]
    layout = Layout(items)
    gram, inverse = ArrayTiles(layout), ArrayTiles(layout)
    weights = np.empty((items, items), np.float32)
    item_gram(train, layout, gram)
    for lam in config.lambdas:
        try:
            item_weights(gram, layout, lam, inverse, weights)
        except NotPositiveDefinite:
            continue
        yield lam, weights
