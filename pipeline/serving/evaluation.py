"""Evaluation of models on a dataset's users, slice by slice on a pool of workers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from infrec.kernels.metrics import BlockMetrics, combine, propensity_weights
from infrec.pipeline.cluster import Pool, Report, silent
from infrec.pipeline.data import Dataset, ShardSlice, numbers, user_blocks
from infrec.pipeline.models import Recommender, open_model
from infrec.pipeline.serving.slices import SLICE_USERS, SliceWorker
from infrec.pipeline.storage import Artefact, InputError, Location


@dataclass(frozen=True)
class Evaluation:
    """A model's metrics on one part of a dataset."""

    metrics: Mapping[str, float]
    """Percentages, but AUC lies in 0 … 1: see `kernels.metrics`."""
    users: int
    """The number of users that had something to predict."""
    skipped: int
    """The number of users that had nothing to predict."""
    seconds: float


def evaluate(
    model: str | Location, dataset: Dataset, pool: Pool, *, part: str = "test", seed: int = 0, report: Report = silent
) -> Evaluation:
    """Evaluate one model: see `evaluate_all`."""
    (evaluation,) = evaluate_all([model], dataset, pool, part=part, seed=seed, report=report)
    return evaluation


def evaluate_all(
    models: Sequence[str | Location],
    dataset: Dataset,
    pool: Pool,
    *,
    part: str = "test",
    seed: int = 0,
    report: Report = silent,
) -> Iterator[Evaluation]:
    """Yield the evaluation of each model on `part` ("validation" or "test") of the dataset. Seen items are left out.

    Items may have come to the dataset after a model was fitted. They are left out of the model's contexts, and they
    rank last. Raises `InputError` if a model knows other items than the dataset, or if nobody has anything to predict.
    """
    opened = [open_model(model, dataset, earlier=True) for model in models]
    slices = dataset.slices(SLICE_USERS)
    with pool.workers(ScoringWorker, dataset) as workers:
        for uri, model in zip(models, opened, strict=True):
            started = time.perf_counter()
            blocks: list[BlockMetrics] = []
            phase = f"Users evaluated ({uri})"
            calls = [(model, cut, part, seed) for cut in slices]
            done = 0
            for cut, metrics in zip(slices, workers.map("metrics", calls), strict=True):
                blocks += metrics
                done += len(cut)
                report(phase, done, dataset.num_users)
            users = sum(block.users for block in blocks)
            if not users:
                raise InputError(f"{dataset.artefact.location} has no {part} interactions to evaluate on.")
            seconds = time.perf_counter() - started
            yield Evaluation(combine(blocks), users, dataset.num_users - users, seconds)


class ScoringWorker(SliceWorker):
    """A worker that judges models on slices of a dataset's users."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self._weights = propensity_weights(numbers(dataset.items()["train_count"]))

    def metrics(self, model: Artefact, cut: ShardSlice, part: str, seed: int) -> list[BlockMetrics]:
        """Return the metrics of the slice's users, block by block."""
        recommender = self.recommender(model)
        known = model.manifest.counts["items"]
        # Blocks are numbered over the whole dataset, whatever the slices: the number keys the sampled negatives
        first = cut.shard * 2**32 + cut.users.start
        return [
            block.metrics(_scores(recommender, known, block.context), self._weights)
            for block in user_blocks(self.histories(cut), part, seed=seed, first=first)
        ]


def _scores(recommender: Recommender, known: int, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
    """Return the scores of a recommender that knows the first `known` items of the context; −∞ for other items."""
    if known == context.shape[1]:
        return recommender.scores(context)
    scores = np.full(context.shape, -np.inf, np.float32)
    scores[:, :known] = recommender.scores(context[:, :known])
    return scores
