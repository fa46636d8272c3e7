"""Models at work on a dataset's users, slice by slice on a pool of actors: evaluation, and what it shares with
recommendation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from kernels.metrics import BlockMetrics, combine, propensity_weights
from pipeline.artefact import Artefact, Kind
from pipeline.dataset import ITEMS, Dataset, Histories, ShardSlice, numbers
from pipeline.errors import InputError
from pipeline.memory import give_back_memory
from pipeline.progress import Report, silent
from pipeline.recommenders import load_recommender
from pipeline.recommenders.base import Recommender
from pipeline.storage import Location
from pipeline.validation import USER_BLOCK, user_blocks
from pipeline.workers import Pool

SLICE_USERS = 2 * USER_BLOCK


@dataclass(frozen=True)
class Evaluation:
    """A model's metrics on one part of a dataset."""

    metrics: Mapping[str, float]
    """Percentages, AUC in 0 … 1: see `kernels.metrics`."""
    users: int
    """Users that had something to predict."""
    skipped: int
    """Users that had not."""
    seconds: float


def evaluate(
    model: str | Location, dataset: Dataset, pool: Pool, *, part: str = "test", seed: int = 0, report: Report = silent
) -> Evaluation:
    """`evaluate_all` for one model."""
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
    """The metrics of each model on `part` ("validation" or "test") of the dataset, seen items left out.

    Items that came to the dataset after a model are not in the contexts that it is given, and rank last. Raises
    `InputError` if a model knows other items than the dataset, or if nobody has anything to predict.
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


def open_model(uri: str | Location, dataset: Dataset, *, earlier: bool = False) -> Artefact:
    """The model or summary at `uri`, if its items are those of `dataset`: all, or as many as there were `earlier`."""
    model = Artefact.open(uri, Kind.MODEL, Kind.SUMMARY)
    known, items = model.table(ITEMS)["item_id"], dataset.items()["item_id"]
    if not known.equals(items[: len(known)] if earlier else items):
        raise InputError(
            f"{uri} knows other items than {dataset.artefact.location}: "
            f"fit it on this dataset, or ingest the logs with the --items-from of the model's dataset."
        )
    return model


class SliceWorker:
    """Has slices of a dataset's users and a model at hand. Keeps the last model and the last shard."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._model: tuple[Artefact, Recommender] | None = None
        self._shard: tuple[int, Histories] | None = None

    def recommender(self, model: Artefact) -> Recommender:
        if self._model is None or self._model[0] != model:
            self._model = (model, load_recommender(model))
            give_back_memory()
        return self._model[1]

    def histories(self, cut: ShardSlice) -> Histories:
        if self._shard is None or self._shard[0] != cut.shard:
            self._shard = (cut.shard, self._dataset.shard(cut.shard))
        return self._shard[1][cut.users]


class ScoringWorker(SliceWorker):
    """Judges one model or another on slices of a dataset's users."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self._weights = propensity_weights(numbers(dataset.items()["train_count"]))

    def metrics(self, model: Artefact, cut: ShardSlice, part: str, seed: int) -> list[BlockMetrics]:
        """The slice's share of the metrics, block by block."""
        recommender = self.recommender(model)
        known = model.manifest.counts["items"]
        # Blocks are numbered over the whole dataset, whatever the slices: negatives are keyed by that number
        first = cut.shard * 2**32 + cut.users.start
        return [
            block.metrics(_scores(recommender, known, block.context), self._weights, seed)
            for block in user_blocks(self.histories(cut), part, first=first)
        ]


def _scores(recommender: Recommender, known: int, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
    """The scores of a recommender that has the first `known` of the context's items; −∞ for the others."""
    if known == context.shape[1]:
        return recommender.scores(context)
    scores = np.full(context.shape, -np.inf, np.float32)
    scores[:, :known] = recommender.scores(context[:, :known])
    return scores
