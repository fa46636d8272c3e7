"""Popularity recommends to everyone the items that most training users have. It is the floor of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from infrec.pipeline.data import ITEMS, Dataset
from infrec.pipeline.models.base import publish_model
from infrec.pipeline.storage import Artefact, ArtefactWriter


@dataclass(frozen=True)
class Popularity:
    """A model whose scores are the train counts of the items."""

    name: ClassVar[str] = "popularity"

    counts: Float[np.ndarray, " items"]

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        return cls(artefact.table(ITEMS)["train_count"].to_numpy().astype(np.float32))

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """Return the train counts of all items, the same row for every user."""
        return np.tile(self.counts, (context.shape[0], 1))


def fit_popularity(dataset: Dataset, writer: ArtefactWriter) -> Artefact:
    """Publish the train counts of the dataset's items as a model."""
    counts = {"users": dataset.num_users, "items": dataset.num_items}
    return publish_model(writer, dataset, config={"model": Popularity.name}, counts=counts)
