"""Raw histories that a model is to recommend for, as a dataset of that model's items."""

from __future__ import annotations

from collections.abc import Sequence

from infrec.pipeline.cluster import Report, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.ingest.config import IngestConfig
from infrec.pipeline.ingest.run import ingest
from infrec.pipeline.storage import MANIFEST, ArtefactWriter


def ingest_histories(
    logs: Sequence[str], model_uri: str, writer: ArtefactWriter, *, user: str, item: str, report: Report = silent
) -> Dataset:
    """Raw histories as a dataset of the model's items, which lies in the writer's work directory until it publishes.

    A log's rows in columns `user` and `item`, in any order; those of other items are dropped, and users of whom nothing
    is left then: the manifest counts both. What an interrupted run finished is kept. To be called before there is a
    `Pool`, which leaves no CPU to the tasks of an ingest.
    """
    place = writer.work / "histories"
    if not (place / MANIFEST).exists():
        config = IngestConfig(user=user, item=item, items_from=model_uri, known_items_only=True)
        ingest(logs, place, config, report=report)
    return Dataset.open(place)
