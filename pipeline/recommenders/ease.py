"""EASE as a recommender: the strongest simple baseline, tuned as hard as our own model (maths: `kernels.ease`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from kernels.ease import item_gram, item_weights
from kernels.tiles import ArrayTiles, Layout, NotPositiveDefinite
from pipeline.artefact import Artefact, ArtefactWriter
from pipeline.dataset import Dataset
from pipeline.errors import InputError
from pipeline.plan import Plan, plan_item_system
from pipeline.progress import Report, silent
from pipeline.recommenders.base import (
    Trial,
    best_so_far,
    best_trial,
    check_search,
    publish_model,
    read_tensors,
    tensor_name,
)
from pipeline.validation import UserBlock, Validation

EASE_LAMBDAS = (10.0, 30.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)


@dataclass(frozen=True, kw_only=True)
class EASEConfig:
    """The grid of λ (in units of interactions); the validation part chooses."""

    lambdas: tuple[float, ...] = EASE_LAMBDAS
    select: str = "nDCG@10"
    seed: int = 0
    """Of the negatives sampled for the validation AUC."""

    def __post_init__(self) -> None:
        check_search(self.lambdas, self.select)


@dataclass(frozen=True)
class EASE:
    """A fitted EASE."""

    name: ClassVar[str] = "ease"

    weights: list[Float[np.ndarray, "_ items"]]
    """B, in blocks of rows."""

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        return cls(list(read_tensors(artefact, "weights")))

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """x B for every row x of `context`."""
        by_item = context.tocsc()
        total = np.zeros(context.shape, np.float32)
        start = 0
        for block in self.weights:
            total += by_item[:, start : start + len(block)] @ block
            start += len(block)
        return total


def plan_ease(dataset: Dataset, config: EASEConfig) -> Plan:
    """The memory that `fit_ease` will take."""
    return plan_item_system(
        items=dataset.num_items,
        interactions=dataset.manifest.counts["train"],
        weights=2 if len(config.lambdas) > 1 else 1,
    )


def fit_ease(
    dataset: Dataset,
    writer: ArtefactWriter,
    config: EASEConfig,
    *,
    train: sp.csr_array | None = None,
    report: Report = silent,
) -> Artefact:
    """Fit every λ of the grid, keep the best on validation, publish it as a model.

    X is `train` (rows × items, of any weights) where it is given, else the dataset's training users. Raises
    `InputError` if no candidate is positive definite in float32.
    """
    validation = Validation(dataset, seed=config.seed)
    if train is None:
        train = validation.histories.training_matrix()
    users, items = train.shape
    trials: list[Trial] = []
    best = np.empty((0, items), np.float32)
    for lam, weights in solved(train, config):

        def scores(
            block: UserBlock, weights: Float[np.ndarray, "items items"] = weights
        ) -> Float[np.ndarray, "users items"]:
            return np.asarray(block.context @ weights)

        metrics = validation.judge(scores)
        trials.append(Trial({"lambda": lam}, metrics))
        report("Candidates", len(trials), len(config.lambdas), best_so_far(trials, config.select))
        if best_trial(trials, config.select) is trials[-1]:
            best = weights.copy() if len(config.lambdas) > 1 else weights
    if not trials:
        raise InputError(f"No λ of {config.lambdas} is positive definite in float32: add a larger one.")
    return publish_model(
        writer,
        dataset,
        config={
            "model": EASE.name,
            "search": asdict(config),
            "lambda": best_trial(trials, config.select).parameters["lambda"],
        },
        counts={"users": users, "items": items, "interactions": train.nnz},
        trials=trials,
        arrays=((tensor_name("weights", i), best[span]) for i, span in enumerate(Layout(items).spans())),
    )


def solved(train: sp.csr_array, config: EASEConfig) -> Iterator[tuple[float, Float[np.ndarray, "items items"]]]:
    """(λ, B) over the grid; B is overwritten by the next one."""
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
