"""Raw histories become a dataset of a model's items, so that the model can recommend for them."""

from __future__ import annotations

from collections.abc import Sequence

from infrec.pipeline.cluster import Report, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.ingest.config import IngestConfig
from infrec.pipeline.ingest.reading.logs import FoundFile
from infrec.pipeline.ingest.run import ingest
from infrec.pipeline.storage import MANIFEST, ArtefactWriter


def ingest_histories(
    logs: Sequence[str | FoundFile],
    model_uri: str,
    writer: ArtefactWriter,
    *,
    user: str,
    item: str,
    report: Report = silent,
) -> Dataset:
    """Make raw histories a dataset of the model's items, and return it.

    The dataset lies in the writer's work directory until the writer publishes. Raw histories are the rows of a log,
    with columns `user` and `item`, in any order. Rows with items that the model lacks are dropped, and so are users who
    have no rows left: the manifest counts both. What an interrupted run finished is kept. Call this before there is a
    `Pool`, which leaves no CPU to the tasks of an ingest.
    """
    place = writer.work / "histories"
    if not (place / MANIFEST).exists():
        config = IngestConfig(user=user, item=item, items_from=model_uri, known_items_only=True)
        ingest(logs, place, config, report=report)
    return Dataset.open(place)
