"""The tasks on a bucket whose histories are gathered: count interactions for the filters, and write a shard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infrec.pipeline.data import PARTS, shard_name
from infrec.pipeline.ingest.hashing import hash_ids
from infrec.pipeline.ingest.reading.timestamps import radix_histogram
from infrec.pipeline.ingest.shuffle.buckets import Bucket, gather
from infrec.pipeline.ingest.shuffle.partition import Dropped
from infrec.pipeline.ingest.splits import Interactions, Split, assign
from infrec.pipeline.storage import FileRecord, Location, finished, parquet_bytes, write_with_receipt

USER_COUNTS = ("users", "held_out_users", *PARTS, "users_without_validation", "users_without_test")
"""The counts of each shard's users. `train`, `validation` and `test` count interactions."""


@dataclass(frozen=True)
class Sharding:
    """The arguments that all shards of a dataset share."""

    staging: Location
    """The staging directory of the dataset."""
    work: Location
    parts: int
    split: Split
    seed: int
    min_user_interactions: int

    def bucket(self, index: int) -> Bucket:
        return gather(index, self.work, self.parts, keep_last=self.split.needs_timestamp)


@dataclass(frozen=True)
class Survivors:
    """Counts of one bucket's interactions that pass the filters."""

    item_counts: np.ndarray
    """int64 [vocabulary]: the number of each item's interactions that pass."""
    rows: int
    """The number of interactions with kept items, whether or not their user has enough of them."""
    duplicates: int
    users: int
    """The number of the bucket's users, whether or not they pass."""


@dataclass(frozen=True)
class Numbering:
    """The numbering of the dataset's items."""

    index: np.ndarray
    """int32 [vocabulary]: the item index of every item of the log, −1 for those that were filtered out."""
    hashes: np.ndarray
    """uint64 [vocabulary]: the hash of every item of the log."""
    num_items: int


@dataclass(frozen=True)
class Shard:
    """A shard that was written."""

    index: int
    file: FileRecord
    counts: Counter[str]
    """The counts named by `USER_COUNTS`."""
    dropped: Counter[str]
    train_counts: np.ndarray
    """int64 [items]: train interactions of users who are not held out."""


def survivors(bucket: int, sharding: Sharding, keep_item: np.ndarray, min_user_interactions: int) -> Survivors:
    """Count each item's interactions with users who have enough interactions with kept items."""
    histories = sharding.bucket(bucket)
    alive = histories.surviving(keep_item, min_user_interactions)
    return Survivors(
        item_counts=np.bincount(histories.item[alive], minlength=len(keep_item)),
        rows=int(np.count_nonzero(keep_item[histories.item])),
        duplicates=histories.duplicates,
        users=len(histories.user_ids),
    )


def time_histogram(
    bucket: int, sharding: Sharding, numbering: Numbering, shift: int, prefix: int
) -> tuple[np.ndarray, int]:
    """Return the bucket's share of `timestamps.quantile`'s histogram, and how many interactions it counts.

    Only interactions that pass the filters are counted.
    """
    histories = sharding.bucket(bucket)
    assert histories.value is not None
    alive = histories.surviving(numbering.index >= 0, sharding.min_user_interactions)
    times = histories.value[alive]
    return radix_histogram(times, shift, prefix), len(times)


def write_shard(bucket: int, sharding: Sharding, numbering: Numbering, cuts: tuple[int, int] | None) -> Shard:
    """Split the bucket's interactions and write its shard, unless that is there and whole."""
    stored = finished(sharding.staging, shard_name(bucket))
    if stored is not None:
        content, file, dropped = stored
        table = pq.read_table(pa.BufferReader(content))
    else:
        table, dropped = _split_users(sharding.bucket(bucket), sharding, numbering, cuts)
        file = write_with_receipt(sharding.staging, shard_name(bucket), parquet_bytes(table), dropped)
    return Shard(bucket, file, user_counts(table), Counter(dropped), _train_counts(table, numbering.num_items))


def _split_users(
    bucket: Bucket, sharding: Sharding, numbering: Numbering, cuts: tuple[int, int] | None
) -> tuple[pa.Table, dict[str, int]]:
    """Return the bucket's table of users, and the number of rows dropped with users who have nothing to train on.

    All interactions of such a user come after the temporal cut, or are given as validation and test. So the user has no
    context for recommendations, in training or in evaluation. Only a split that is to last keeps such users.
    """
    alive = bucket.surviving(numbering.index >= 0, sharding.min_user_interactions)
    user, item = bucket.user[alive], bucket.item[alive]
    rows = Interactions(
        user=user,
        item_hash=numbering.hashes[item],
        user_hash=hash_ids(bucket.user_ids),
        value=None if bucket.value is None else bucket.value[alive],
    )
    part, held_out = assign(sharding.split, rows, seed=sharding.seed, cuts=cuts)

    slot = user.astype(np.int64) * len(PARTS) + part
    lengths = np.bincount(slot, minlength=len(bucket.user_ids) * len(PARTS)).reshape(-1, len(PARTS))
    kept = (lengths if sharding.split.keeps_untrained_users else lengths[:, :1]).sum(axis=1) > 0
    dropped = {Dropped.NOT_TRAINED.value: int(lengths[~kept].sum())}
    keys = slot << 32 | numbering.index[item]
    keys.sort()  # this sorts by user, part and item index at once
    keys = keys[kept[(keys >> 32) // len(PARTS)]]
    part_of_key = (keys >> 32) % len(PARTS)
    columns = {
        "user_id": bucket.user_ids.filter(pa.array(kept)),
        "held_out": pa.array(held_out[kept]),
    }
    for number, name in enumerate(PARTS):
        offsets = np.concatenate([[0], np.cumsum(lengths[kept, number])]).astype(np.int32)
        indices = keys[part_of_key == number].astype(np.int32)  # the lower half of a key: the item
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(indices))
    return pa.table(columns), dropped


def user_counts(table: pa.Table) -> Counter[str]:
    """Return the counts named by `USER_COUNTS` for the users in a shard's table."""
    lengths = {name: pc.list_value_length(table[name]).to_numpy() for name in PARTS}
    return Counter(
        users=len(table),
        held_out_users=pc.sum(table["held_out"]).as_py() or 0,
        users_without_validation=int(np.count_nonzero(lengths["validation"] == 0)),
        users_without_test=int(np.count_nonzero(lengths["test"] == 0)),
        **{name: int(length.sum()) for name, length in lengths.items()},
    )


def _train_counts(table: pa.Table, num_items: int) -> np.ndarray:
    trained = table.filter(pc.invert(table["held_out"]))["train"]
    return np.bincount(pc.list_flatten(trained).to_numpy(), minlength=num_items)
