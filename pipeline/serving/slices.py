"""The part that the actors of evaluation and of recommendation share: a model, and slices of a dataset's users."""

from __future__ import annotations

from infrec.pipeline.cluster import give_back_memory
from infrec.pipeline.data import USER_BLOCK, Dataset, Histories, ShardSlice
from infrec.pipeline.models import Recommender, load_recommender
from infrec.pipeline.storage import Artefact

SLICE_USERS = 2 * USER_BLOCK


class SliceWorker:
    """An actor that reads models, and slices of a dataset's users. It keeps the last model and the last shard."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._model: tuple[Artefact, Recommender] | None = None
        self._shard: tuple[int, Histories] | None = None

    def recommender(self, model: Artefact) -> Recommender:
        """Return the recommender of a model, which is loaded only if it is not the last one."""
        if self._model is None or self._model[0] != model:
            self._model = (model, load_recommender(model))
            give_back_memory()
        return self._model[1]

    def histories(self, cut: ShardSlice) -> Histories:
        """Return the histories of a slice's users. Its shard is read only if it is not the last one."""
        if self._shard is None or self._shard[0] != cut.shard:
            self._shard = (cut.shard, self._dataset.shard(cut.shard))
        return self._shard[1][cut.users]
