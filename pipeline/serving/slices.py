"""The part that the workers of evaluation and of recommendation share: a model, and slices of a dataset's users."""

from __future__ import annotations

from infrec.pipeline.cluster import Work, give_back_memory
from infrec.pipeline.data import USER_BLOCK, Dataset, Histories, ShardSlice
from infrec.pipeline.models import Recommender, load_recommender
from infrec.pipeline.storage import Artefact

SLICE_USERS = 2 * USER_BLOCK
_RANKED = 500.0
"""The operations of a product that take as long as to rank, or to judge, one item for one user."""


def scoring_work(model: Artefact, users: int) -> Work:
    """Return about the work of scoring and ranking all items for so many users.

    Each number of a model takes part in the scores of a user. A summary, whose files are compressed, has one for each
    synthetic user and item.
    """
    counts, stored = model.manifest.counts, sum(file.size for file in model.manifest.files.values())
    numbers = max(stored / 4, counts.get("budget", 0) * counts["items"])
    return Work(dense=2.0 * users * numbers + _RANKED * users * counts["items"])


class SliceWorker:
    """A worker that reads models, and slices of a dataset's users. It keeps the last model and the last shard."""

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
