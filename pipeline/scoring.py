"""Models at work on a dataset's users: evaluation and bulk recommendation, slice by slice on a pool of actors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kernels.metrics import BlockMetrics, combine, propensity_weights
from kernels.ranking import exclude, top_k
from pipeline.artefact import (
    Artefact,
    ArtefactWriter,
    FileRecord,
    Kind,
    finished,
    parquet_bytes,
    write_with_receipt,
)
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
    model: str, dataset: Dataset, pool: Pool, *, part: str = "test", seed: int = 0, report: Report = silent
) -> Evaluation:
    """`evaluate_all` for one model."""
    (evaluation,) = evaluate_all([model], dataset, pool, part=part, seed=seed, report=report)
    return evaluation


def evaluate_all(
    models: Sequence[str], dataset: Dataset, pool: Pool, *, part: str = "test", seed: int = 0, report: Report = silent
) -> Iterator[Evaluation]:
    """The metrics of each model on `part` ("validation" or "test") of the dataset, seen items left out.

    Raises `InputError` if a model knows other items than the dataset, or if nobody has anything to predict.
    """
    opened = [open_model(model, dataset) for model in models]
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


def recommend(
    model_uri: str, dataset: Dataset, writer: ArtefactWriter, pool: Pool, *, k: int, report: Report = silent
) -> Artefact:
    """Publish the k best unseen items of every user: user_id, rank (1 …), item_id, score, in part-*.parquet.

    A user's history is train ∪ validation ∪ test. Fewer than k rows where a user has fewer unseen items. Finished
    parts of an interrupted run are kept, damaged ones are made again.
    """
    if not 1 <= k <= dataset.num_items:
        raise InputError(f"--k must lie in 1 … {dataset.num_items:,}, the number of items; it is {k:,}.")
    model = open_model(model_uri, dataset)
    slices = dataset.slices(SLICE_USERS)
    files: dict[str, FileRecord] = {}
    rows = 0
    with pool.workers(ScoringWorker, dataset) as workers:
        calls = [(model, cut, k, writer.staging, _part_name(number)) for number, cut in enumerate(slices)]
        done = 0
        for number, (record, count) in enumerate(workers.map("recommend", calls)):
            files[_part_name(number)] = record
            rows += count
            done += len(slices[number])
            report("Users", done, dataset.num_users)
    return writer.publish(
        config={"k": k},
        inputs={"model": model.manifest.fingerprint(), "dataset": dataset.manifest.fingerprint()},
        counts={"users": dataset.num_users, "rows": rows},
        files=files,
    )


def open_model(uri: str, dataset: Dataset) -> Artefact:
    """The model or summary at `uri`, if its items are those of `dataset`."""
    model = Artefact.open(uri, Kind.MODEL, Kind.SUMMARY)
    if not model.table(ITEMS)["item_id"].equals(dataset.items()["item_id"]):
        raise InputError(
            f"{uri} knows other items than {dataset.artefact.location}: "
            f"fit it on this dataset, or ingest the logs with the --items-from of the model's dataset."
        )
    return model


class ScoringWorker:
    """Scores slices of a dataset's users with one model or another. Keeps the last model and the last shard."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        items = dataset.items()
        self._item_ids = items["item_id"].combine_chunks()
        self._weights = propensity_weights(numbers(items["train_count"]))
        self._model: tuple[Artefact, Recommender] | None = None
        self._shard: tuple[int, Histories] | None = None

    def metrics(self, model: Artefact, cut: ShardSlice, part: str, seed: int) -> list[BlockMetrics]:
        """The slice's share of the metrics, block by block."""
        recommender = self._loaded(model)
        # Blocks are numbered over the whole dataset, whatever the slices: negatives are keyed by that number
        first = cut.shard * 2**32 + cut.users.start
        return [
            block.metrics(recommender.scores(block.context), self._weights, seed)
            for block in user_blocks(self._histories(cut), part, first=first)
        ]

    def recommend(
        self, model: Artefact, cut: ShardSlice, k: int, staging: Location, name: str
    ) -> tuple[FileRecord, int]:
        """Write the slice's recommendations, unless they are there and whole; the file, and its number of rows."""
        if stored := finished(staging, name):
            return stored[1], stored[2]["rows"]
        recommender, histories = self._loaded(model), self._histories(cut)
        starts = range(0, len(histories), USER_BLOCK)
        blocks = [histories[start : start + USER_BLOCK] for start in starts]
        table = pa.concat_tables(self._top_k(recommender, users, k) for users in blocks)
        return write_with_receipt(staging, name, parquet_bytes(table), {"rows": len(table)}), len(table)

    def _top_k(self, recommender: Recommender, users: Histories, k: int) -> pa.Table:
        history = users.context("test") + users.test
        scores = recommender.scores(history)
        exclude(scores, history)
        items = top_k(scores, k)
        best = np.take_along_axis(scores, items, axis=1)
        unseen = np.isfinite(best)
        user_of, place = np.nonzero(unseen)
        return pa.table(
            {
                "user_id": users.user_ids.take(pa.array(user_of)),
                "rank": pa.array(place + 1, pa.int32()),
                "item_id": self._item_ids.take(pa.array(items[unseen])),
                "score": pa.array(best[unseen], pa.float32()),
            }
        )

    def _loaded(self, model: Artefact) -> Recommender:
        if self._model is None or self._model[0] != model:
            self._model = (model, load_recommender(model))
            give_back_memory()
        return self._model[1]

    def _histories(self, cut: ShardSlice) -> Histories:
        if self._shard is None or self._shard[0] != cut.shard:
            self._shard = (cut.shard, self._dataset.shard(cut.shard))
        return self._shard[1][cut.users]


def _part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"
