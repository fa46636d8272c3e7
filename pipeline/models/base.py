"""The interface of every model: it scores all items for blocks of users, and it is stored as an artefact."""

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
    """A trained model that is read from its artefact. It scores all items for users given by their histories."""

    name: ClassVar[str]

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        """Read the model from its artefact."""
        ...

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """Return a score of every item for every user, float32.

        `context` is a binary CSR matrix of users × items. Items that a user has seen get a score as well.
        """
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
    """Publish a model as an artefact: its tables and arrays, and the dataset's item table.

    Args:
        writer: writes the artefact.
        dataset: the dataset that the model was fitted to.
        config: the manifest's config.
        counts: the manifest's counts.
        candidates: the candidates of the search. Their parameters and metrics become `validation.parquet`.
        tables: the model's tables by file name.
        arrays: the model's arrays by file name. They are written one at a time, so a model may be larger than memory.
        written: the records of files that lie in the writer's staging directory already.
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
