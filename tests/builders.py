"""Small artefacts made directly from matrices, for tests that are not about ingest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from infrec.kernels.levels import RoundedRows
from infrec.kernels.ntk import NTK
from infrec.kernels.nystrom import LabelFactors
from infrec.pipeline.data import ITEMS, Dataset, lists_of, shard_name
from infrec.pipeline.distillation.labels import RoundedLabels
from infrec.pipeline.models import LabelledRows, publish_labelled_summary, publish_summary
from infrec.pipeline.storage import Artefact, ArtefactWriter, Kind
from tests.matrices import split_matrix, taste_matrix


def write_dataset(
    out: Path,
    train: sp.csr_array,
    validation: sp.csr_array,
    test: sp.csr_array,
    *,
    held_out: np.ndarray | None = None,
    shards: int = 2,
) -> Dataset:
    """A dataset artefact with integer user ids 1000, 1001, … and string item ids i0, i1, …."""
    users, items = train.shape
    held_out = np.zeros(users, dtype=bool) if held_out is None else held_out
    writer = ArtefactWriter(out, Kind.DATASET, purpose={})
    train_counts = np.bincount(train[~held_out].indices, minlength=items)
    item_table = pa.table({"item_id": [f"i{index}" for index in range(items)], "train_count": train_counts})
    files = {ITEMS: writer.write_table(ITEMS, item_table)}
    for shard, rows in enumerate(np.array_split(np.arange(users), shards)):
        parts = {"train": train, "validation": validation, "test": test}
        table = pa.table(
            {
                "user_id": pa.array(1000 + rows),
                "held_out": held_out[rows],
                **{name: lists_of(matrix[rows]) for name, matrix in parts.items()},
            }
        )
        files[shard_name(shard)] = writer.write_table(shard_name(shard), table)
    counts = {"users": users, "items": items, "shards": shards}
    counts |= {"held_out_users": int(held_out.sum()), "train": train[~held_out].nnz}
    writer.publish(config={}, inputs={}, counts=counts, files=files)
    return Dataset.open(str(out))


def taste_dataset(out: Path, users: int, items: int, *, seed: int, held_out: float = 0.0, shards: int = 2) -> Dataset:
    """Interactions that a model can learn, split at random. The first user has no history, only a test item.

    With `held_out`, that part of the users is for validation and test, the others wholly for training.
    """
    train, validation, test = (
        part.toarray() for part in split_matrix(taste_matrix(users, items, seed=seed), seed=seed)
    )
    others = np.random.default_rng(seed).random(users) < held_out
    others[0] = held_out > 0
    if held_out:
        train[~others] += (validation + test)[~others]
        validation[~others] = test[~others] = 0
    train[0] = validation[0] = test[0] = 0
    test[0, items // 2] = 1
    parts = (sp.csr_array(part) for part in (train, validation, test))
    return write_dataset(out, *parts, held_out=others, shards=shards)


def write_summary(out: Path, dataset: Dataset, weights: np.ndarray, labels: np.ndarray | None = None) -> Artefact:
    """A summary artefact of these rows, as if a method had found them. With labels, both are rounded."""
    writer = ArtefactWriter(out, Kind.SUMMARY, purpose={})
    described: dict[str, Any] = {"method": "given", "ntk": NTK(), "lam": 0.1, "config": {}}
    described["history"] = pa.table({"step": [0]})
    weights = weights.astype(np.float32)
    if labels is None:
        return publish_summary(writer, dataset, weights, **described)
    items = np.flatnonzero(weights.any(axis=0))
    counts = dataset.items()["train_count"].to_numpy()[items]
    factors = LabelFactors(np.eye(len(labels), dtype=np.float32), labels.astype(np.float32))
    rows = LabelledRows(
        items, RoundedRows.of(weights[:, items], counts, step=0.01), *RoundedLabels.of(factors, step=0.01)
    )
    return publish_labelled_summary(writer, dataset, rows, **described)
