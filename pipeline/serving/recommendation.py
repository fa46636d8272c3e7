"""Bulk recommendation: the best items for every user of a dataset, or of raw histories, slice by slice on workers.

part-00000.parquet  user_id, rank (1 …), item_id, score: a slice of the users, best items first
…
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from infrec.kernels.ranking import exclude, top_k
from infrec.pipeline.cluster import Pool, Report, silent
from infrec.pipeline.data import ITEMS, Dataset, Histories, Offer, ShardSlice, block_users
from infrec.pipeline.models import Recommender, open_model
from infrec.pipeline.serving.slices import SLICE_USERS, SliceWorker
from infrec.pipeline.storage import (
    Artefact,
    ArtefactWriter,
    FileRecord,
    InputError,
    Location,
    finished,
    parquet_bytes,
    write_with_receipt,
)


@dataclass(frozen=True, kw_only=True)
class RecommendConfig:
    """The settings of a bulk recommendation."""

    k: int
    """The number of items for each user. A user gets fewer if fewer may be recommended."""
    keep_seen: bool = False
    """Whether items of a user's own history may be recommended."""
    allow: str | None = None
    """The place of a list (`pipeline.data.item_lists`) of the items that may be recommended; None: all items."""
    deny: str | None = None
    """The place of a list of items that may not be recommended, even if `allow` has them."""

    def offer(self, model: Artefact) -> Offer:
        """Return the items that may be recommended. Raises `InputError` if k or the lists do not suit the model."""
        catalogue = model.table(ITEMS)["item_id"].combine_chunks()
        if not 1 <= self.k <= len(catalogue):
            raise InputError(f"k must lie in 1 … {len(catalogue):,}, the number of items; it is {self.k:,}.", "k")
        return Offer.of(catalogue, allow=self.allow, deny=self.deny)


def recommend(
    model_uri: str | Location,
    dataset: Dataset,
    writer: ArtefactWriter,
    pool: Pool,
    config: RecommendConfig,
    *,
    report: Report = silent,
) -> Artefact:
    """Publish the k best items for every user of the dataset.

    A user's history is train ∪ validation ∪ test. Finished parts of an interrupted run are kept; damaged parts are made
    again. Raises `InputError` if the model knows other items than the dataset, or none that may be recommended.
    """
    model = open_model(model_uri, dataset)
    offer = config.offer(model)
    slices = dataset.slices(SLICE_USERS)
    made, raw = dataset.manifest.counts, dataset.manifest.config.get("known_items_only")
    files: dict[str, FileRecord] = {}
    rows = 0
    with pool.workers(RecommendationWorker, dataset, model, offer, config, writer.staging) as workers:
        done = 0
        for number, (record, count) in enumerate(workers.map("part", list(enumerate(slices)))):
            files[_part_name(number)] = record
            rows += count
            done += len(slices[number])
            report("Users", done, dataset.num_users)
    return writer.publish(
        config={"k": config.k, "keep_seen": config.keep_seen},  # the lists are places: `inputs` has their content
        inputs={
            "model": model.manifest.fingerprint(),
            "dataset": dataset.manifest.fingerprint(),
            "offer": offer.fingerprint,
        },
        counts={
            "users": dataset.num_users,
            "rows": rows,
            "unknown_listed_items": offer.unknown,
            **({name: made[name] for name in ("users_left_out", "dropped")} if raw else {}),
        },
        files=files,
    )


class RecommendationWorker(SliceWorker):
    """A worker that ranks the items that may be recommended, for slices of a dataset's users."""

    def __init__(
        self, dataset: Dataset, model: Artefact, offer: Offer, config: RecommendConfig, staging: Location
    ) -> None:
        super().__init__(dataset)
        self._model_artefact, self._config, self._staging = model, config, staging
        self._allowed = offer.allowed
        ids = dataset.items()["item_id"].combine_chunks()
        self._item_ids = ids if self._allowed is None else ids.take(pa.array(self._allowed))

    def part(self, number: int, cut: ShardSlice) -> tuple[FileRecord, int]:
        """Write the recommendations for a slice, unless an undamaged file of them exists.

        Returns the record of the file and its number of rows.
        """
        name = _part_name(number)
        if stored := finished(self._staging, name):
            return stored[1], stored[2]["rows"]
        recommender, histories = self.recommender(self._model_artefact), self.histories(cut)
        size = block_users(self._dataset.num_items)
        starts = range(0, len(histories), size)
        table = pa.concat_tables(self._best(recommender, histories[start : start + size]) for start in starts)
        content = parquet_bytes(table, dictionaries=["user_id", "rank", "item_id"])
        return write_with_receipt(self._staging, name, content, {"rows": len(table)}), len(table)

    def _best(self, recommender: Recommender, users: Histories) -> pa.Table:
        history = users.context("test") + users.test
        scores = recommender.scores(history)
        if self._allowed is not None:
            scores, history = scores[:, self._allowed], history[:, self._allowed]
        if not self._config.keep_seen:
            exclude(scores, history)
        items = top_k(scores, min(self._config.k, len(self._item_ids)))
        best = np.take_along_axis(scores, items, axis=1)
        offered = np.isfinite(best)
        user_of, place = np.nonzero(offered)
        return pa.table(
            {
                "user_id": users.user_ids.take(pa.array(user_of)),
                "rank": pa.array(place + 1, pa.int32()),
                "item_id": self._item_ids.take(pa.array(items[offered])),
                "score": pa.array(best[offered], pa.float32()),
            }
        )


def _part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"
