"""Slices of a dataset's users with a model at hand: what evaluation and recommendation have in common on an actor."""

from __future__ import annotations

from infrec.pipeline.cluster import give_back_memory
from infrec.pipeline.data import USER_BLOCK, Dataset, Histories, ShardSlice
from infrec.pipeline.models import Recommender, load_recommender
from infrec.pipeline.storage import Artefact

SLICE_USERS = 2 * USER_BLOCK


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
