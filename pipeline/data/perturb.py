"""A dataset with noise: training users get false interactions among their own, and lose some of their true ones.

A method that learns from a perturbed dataset is evaluated on the true one. Both have the same users, items, shards,
validation and test parts. Each shard is a task of its own, whose random numbers follow from (seed, shard) only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from infrec.pipeline.cluster import Report, map_tasks, silent
from infrec.pipeline.data.dataset import ITEMS, Dataset, Histories, lists_of, shard_name
from infrec.pipeline.storage import ArtefactWriter, FileRecord, InputError, Location, parquet_bytes


@dataclass(frozen=True, kw_only=True)
class PerturbConfig:
    """The rates of noise, as fractions of each training user's train interactions.

    Raises `InputError` for values out of range.
    """

    noise: float = 0.0
    """The rate of false interactions. They are drawn uniformly from the items that the user has in no part."""
    remove: float = 0.0
    """The rate of true interactions that are taken away. A user's last one is never taken."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise InputError(f"The noise must lie in 0 … 1, it is {self.noise:g}.", "noise")
        if not 0 <= self.remove < 1:
            raise InputError(f"The fraction to remove must be at least 0 and below 1, it is {self.remove:g}.", "remove")


def perturb_dataset(
    dataset: Dataset, writer: ArtefactWriter, config: PerturbConfig, *, report: Report = silent
) -> Dataset:
    """Publish the perturbed dataset and return it. Call this inside a session."""
    files: dict[str, FileRecord] = {}
    train_counts = np.zeros(dataset.num_items, np.int64)
    added = removed = 0
    for shard in map_tasks(_write_shard, range(dataset.num_shards), dataset, writer.staging, config):
        files[shard_name(shard.index)] = shard.file
        train_counts += shard.train_counts
        added, removed = added + shard.added, removed + shard.removed
        report("Shards", len(files), dataset.num_shards)
    items = dataset.items()
    column = items.schema.get_field_index("train_count")
    items = items.set_column(column, items.schema.field(column), pa.array(train_counts))
    files[ITEMS] = writer.write_table(ITEMS, items)
    counts = dataset.counts_of_whole_shards()
    artefact = writer.publish(
        config=asdict(config),
        inputs={"dataset": dataset.manifest.fingerprint()},
        counts={**counts, "train": counts["train"] + added - removed, "added": added, "removed": removed},
        files=files,
    )
    return Dataset(artefact)


@dataclass(frozen=True)
class _Shard:
    """A shard that was written."""

    index: int
    file: FileRecord
    train_counts: np.ndarray
    """int64 [items]: train interactions of users who are not held out."""
    added: int
    removed: int


def _write_shard(index: int, dataset: Dataset, staging: Location, config: PerturbConfig) -> _Shard:
    table = dataset.shard_table(index)
    histories = Histories.of(table, dataset.num_items)
    train, added, removed = _perturbed(histories, config, np.random.default_rng([config.seed, index]))
    column = table.schema.get_field_index("train")
    table = table.set_column(column, table.schema.field(column), lists_of(train))
    content = parquet_bytes(table)
    (staging / shard_name(index)).write(content)
    counts = np.bincount(train[~histories.held_out].indices, minlength=dataset.num_items)
    return _Shard(index, FileRecord.of(content), counts, added, removed)


def _perturbed(histories: Histories, config: PerturbConfig, rng: np.random.Generator) -> tuple[sp.csr_array, int, int]:
    """Return the train matrix with noise, and how many interactions were added and removed."""
    touched = sp.csr_array(histories.train + histories.validation + histories.test)
    touched.sort_indices()
    counts = np.diff(histories.train.indptr)
    trained = counts * ~histories.held_out
    free = histories.train.shape[1] - np.diff(touched.indptr)
    added = np.minimum(_rounded(config.noise * trained, rng), free)
    removed = np.minimum(_rounded(config.remove * trained, rng), np.maximum(counts - 1, 0))
    rows = []
    for user in range(len(histories)):
        true = _row(histories.train, user)
        if removed[user]:
            true = rng.choice(true, counts[user] - removed[user], replace=False, shuffle=False)
        false = _outside(_row(touched, user), rng.choice(free[user], added[user], replace=False, shuffle=False))
        rows.append(np.sort(np.concatenate([true, false])))
    indptr = np.concatenate([[0], np.cumsum(counts + added - removed)])
    indices = np.concatenate([np.empty(0, np.int32), *rows])
    train = sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=histories.train.shape)
    return train, int(added.sum()), int(removed.sum())


def _rounded(expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return whole numbers with these expectations: each is rounded up as often as its fraction says."""
    return np.floor(expected + rng.random(len(expected))).astype(np.int64)


def _row(matrix: sp.csr_array, user: int) -> np.ndarray:
    return np.asarray(matrix.indices[matrix.indptr[user] : matrix.indptr[user + 1]])


def _outside(touched: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return the items of these ranks among all items that are not in `touched`, which is sorted."""
    # There are touched[k] − k untouched items before the k-th touched one
    return ranks + np.searchsorted(touched - np.arange(len(touched)), ranks, side="right")
