"""One shard's share in the growth of a dataset: the interactions that its users gained, and which are held out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from infrec.pipeline.data import PARTS, Dataset, shard_name
from infrec.pipeline.data.additions import (
    addition_of,
    additions_name,
    keys_of,
    lists_of_keys,
    merged,
    with_additions,
    with_newcomers,
)
from infrec.pipeline.ingest.hashing import hash_ids
from infrec.pipeline.ingest.shuffle.buckets import gather
from infrec.pipeline.ingest.shuffle.shards import Numbering, user_counts
from infrec.pipeline.ingest.splits import TEST, TRAIN, Interactions, Split, assign
from infrec.pipeline.storage import FileRecord, Location, parquet_bytes


@dataclass(frozen=True)
class Growth:
    """The arguments that the folding of every shard shares."""

    previous: Dataset
    numbering: Numbering
    seed: int
    work: Location
    parts: int
    grown: Location
    """The directory where additions are written."""
    fresh: Location
    """The directory where the dataset of the new held-out interactions is being written."""


@dataclass(frozen=True)
class Folded:
    """The gains of one shard."""

    index: int
    users: int
    """The number of all users that the shard has now."""
    addition: FileRecord | None
    """The shard's file of additions. None: nothing is new."""
    counts: Counter[str]
    """The growth of the counts of users and interactions. It is below 0 if a count shrinks."""
    duplicates: int
    """The number of rows whose user and item were known, or came twice."""
    fresh: FileRecord
    fresh_counts: Counter[str]


def fold(index: int, growth: Growth) -> tuple[Folded, Int64[np.ndarray, " items"]]:
    """Gather the new rows of a shard's users, leave out what the shard has, and write its additions anew.

    Also return how many new train interactions each item has (int64 [items]). `Folded` does not keep these counts: the
    driver only sums them.
    """
    bucket = gather(index, growth.work, growth.parts, keep_last=False)
    shard, before = growth.previous.layers(index)
    if before is None:
        before = addition_of(shard["user_id"].combine_chunks()[:0], dict.fromkeys(PARTS, np.empty(0, np.int64)))
    known_ids = with_newcomers(shard, before)["user_id"].combine_chunks()
    row = pc.fill_null(pc.index_in(bucket.user_ids.cast(known_ids.type), known_ids), -1).to_numpy()
    newcomer = row < 0
    row = np.where(newcomer, len(known_ids) + np.cumsum(newcomer) - 1, row)

    hashes = growth.numbering.hashes[bucket.item]
    rows = Interactions(user=bucket.user, item_hash=hashes, user_hash=hash_ids(bucket.user_ids))
    part, _ = assign(Split.STABLE, rows, seed=growth.seed)
    key = row[bucket.user] << 32 | growth.numbering.index[bucket.item]
    added = [keys_of(before[name], before["row"].to_numpy()) for name in PARTS]
    new = [_without(np.sort(key[part == number]), keys_of(shard[name])) for number, name in enumerate(PARTS)]
    new = [_without(keys, earlier) for keys, earlier in zip(new, added, strict=True)]

    came_before = before["user_id"].combine_chunks().drop_null()
    newcomers = pa.concat_arrays([came_before, bucket.user_ids.cast(known_ids.type).filter(pa.array(newcomer))])
    addition = addition_of(newcomers, dict(zip(PARTS, map(merged, added, new), strict=True)))
    judged = np.unique(new[TEST] >> 32)
    fresh = with_additions(shard, addition, judged)
    fresh = fresh.set_column(fresh.column_names.index("test"), "test", lists_of_keys(new[TEST], judged))
    users = len(known_ids) + int(newcomer.sum())
    folded = Folded(
        index=index,
        users=users,
        addition=_written(growth.grown / additions_name(index), addition) if any(map(len, new)) else None,
        counts=_grown_by(shard, added, new, len(known_ids), users),
        duplicates=bucket.duplicates + len(key) - sum(map(len, new)),
        fresh=_written(growth.fresh / shard_name(index), fresh),
        fresh_counts=user_counts(fresh),
    )
    # The cast keeps the lower half of a key: the item
    return folded, np.bincount(new[TRAIN].astype(np.int32), minlength=growth.numbering.num_items)


def _without(keys: Int64[np.ndarray, " keys"], known: Int64[np.ndarray, " known"]) -> Int64[np.ndarray, " new"]:
    """Return the keys that are not known. Both arrays are sorted."""
    if len(known) == 0:
        return keys
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    missing: np.ndarray = keys[known[at] != keys]
    return missing


def _grown_by(shard: pa.Table, added: list[np.ndarray], new: list[np.ndarray], known: int, users: int) -> Counter[str]:
    """Return the growth of `shards.USER_COUNTS`: from the `known` users with what was `added` before to all `users`."""
    counts = Counter(users=users - known)
    for number, name in enumerate(PARTS):
        counts[name] = len(new[number])
        if number != TRAIN:
            sizes = np.bincount(added[number] >> 32, minlength=users)
            sizes[: len(shard)] += pc.list_value_length(shard[name]).to_numpy()
            with_new = sizes + np.bincount(new[number] >> 32, minlength=users)
            counts[f"users_without_{name}"] = int(np.sum(with_new == 0)) - int(np.sum(sizes[:known] == 0))
    return counts


def _written(location: Location, table: pa.Table) -> FileRecord:
    content = parquet_bytes(table, dictionaries=False)  # users have few items each: smaller and faster without
    location.write(content)
    return FileRecord.of(content)
