"""What every recommender is to the rest of the pipeline: scores for blocks of users, and a model artefact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float

from infrec.pipeline.data import ITEMS, Dataset
from infrec.pipeline.models.search import Candidate
from infrec.pipeline.storage import Artefact, ArtefactWriter, FileRecord, tensor_bytes

VALIDATION = "validation.parquet"


class Recommender(Protocol):
    """A trained model, read from its artefact, that scores all items for users given by their histories."""

    name: ClassVar[str]

    @classmethod
    def load(cls, artefact: Artefact) -> Self: ...

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """A score for every item, float32; `context` is binary CSR users × items. Seen items are scored as well."""
        ...


def publish_model(
    writer: ArtefactWriter,
    dataset: Dataset,
    *,
    config: Mapping[str, Any],
    counts: Mapping[str, Any],
    candidates: Sequence[Candidate] = (),
    tables: Mapping[str, pa.Table] | None = None,
    arrays: Iterable[tuple[str, np.ndarray]] = (),
    written: Mapping[str, FileRecord] | None = None,
) -> Artefact:
    """Write a model's tables and arrays with the dataset's item table and publish it.

    Arrays are written as they come, one at a time, so that a model may be larger than memory. What is `written` lies in
    the writer's staging directory already.
    """
    files: dict[str, FileRecord] = {ITEMS: writer.write_table(ITEMS, dataset.items()), **(written or {})}
    for name, table in (tables or {}).items():
        files[name] = writer.write_table(name, table)
    for name, array in arrays:
        files[name] = writer.write(name, tensor_bytes(array))
    if candidates:
        rows = [{**one.parameters, **one.metrics} for one in candidates]
        files[VALIDATION] = writer.write_table(VALIDATION, pa.Table.from_pylist(rows))
    return writer.publish(config=config, inputs={"dataset": dataset.manifest.fingerprint()}, counts=counts, files=files)
