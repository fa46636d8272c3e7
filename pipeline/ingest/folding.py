"""One shard's share in the growth of a dataset: what its users gained, and what of that was held out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from pipeline.additions import keys_of, lists_of_keys
from pipeline.artefact import FileRecord, parquet_bytes
from pipeline.dataset import PARTS, Dataset, shard_name
from pipeline.ingest.buckets import gather
from pipeline.ingest.hashing import hash_ids
from pipeline.ingest.shards import Numbering
from pipeline.ingest.splits import TEST, Interactions, Split, assign
from pipeline.storage import Location


@dataclass(frozen=True)
class Growth:
    """What the folding of every shard has in common."""

    previous: Dataset
    shard_users: list[int]
    """Of the previous dataset."""
    user_type: pa.DataType
    numbering: Numbering
    seed: int
    work: Location
    parts: int
    fresh: Location
    """Where the dataset of what is new and held out is being written."""


@dataclass(frozen=True)
class Folded:
    """What one shard gained."""

    index: int
    addition: pa.Table
    """`pipeline.additions`."""
    newcomers: int
    counts: Counter[str]
    """By how much the counts of users and interactions grow, below 0 where they shrink."""
    duplicates: int
    """Rows whose user and item were known, or came twice."""
    fresh: FileRecord
    fresh_counts: Counter[str]


def fold(index: int, growth: Growth) -> Folded:
    """Gather the new rows of a shard's users, and leave out what the shard has."""
    bucket = gather(index, growth.work, growth.parts, keep_last=False)
    user_ids = bucket.user_ids.cast(growth.user_type)
    row, table = growth.previous.find(index, user_ids)
    known, newcomer = np.flatnonzero(row >= 0), row < 0
    row = np.where(newcomer, growth.shard_users[index] + np.cumsum(newcomer) - 1, row)

    hashes = growth.numbering.hashes[bucket.item]
    rows = Interactions(user=bucket.user, item_hash=hashes, user_hash=hash_ids(bucket.user_ids))
    part, _ = assign(Split.STABLE, rows, seed=growth.seed)
    key = bucket.user.astype(np.int64) << 32 | growth.numbering.index[bucket.item]
    old = [np.sort(keys_of(table[name], known), kind="stable") for name in PARTS]
    new = [_without(np.sort(key[part == number]), old[number]) for number in range(len(PARTS))]

    gained = np.zeros(len(row), dtype=bool)
    for keys in new:
        gained[keys >> 32] = True
    addition = {"row": pa.array(row, pa.int32()), "user_id": user_ids}
    addition |= {name: lists_of_keys(keys, len(row)) for name, keys in zip(PARTS, new, strict=True)}
    fresh = _fresh(user_ids, old, new)
    content = parquet_bytes(fresh)
    (growth.fresh / shard_name(index)).write(content)
    return Folded(
        index=index,
        addition=pa.table(addition).filter(pa.array(gained)),
        newcomers=int(newcomer.sum()),
        counts=_counts(newcomer, old, new),
        duplicates=bucket.duplicates + len(key) - sum(len(keys) for keys in new),
        fresh=FileRecord.of(content),
        fresh_counts=_counts(np.ones(len(fresh), dtype=bool), [], [keys_of(fresh[name]) for name in PARTS]),
    )


def _fresh(user_ids: pa.Array, old: list[np.ndarray], new: list[np.ndarray]) -> pa.Table:
    """The users with new test interactions: all of their train and validation ones, and these test ones."""
    judged = np.unique(new[TEST] >> 32)
    together = [np.sort(np.concatenate(keys), kind="stable") for keys in zip(old, new, strict=True)]
    together[TEST] = new[TEST]
    lists = [lists_of_keys(keys, len(user_ids)).take(pa.array(judged)) for keys in together]
    held_out = pa.array(np.zeros(len(judged), dtype=bool))
    return pa.table([user_ids.take(pa.array(judged)), held_out, *lists], names=["user_id", "held_out", *PARTS])


def _counts(
    newcomer: np.ndarray, old: list[Int64[np.ndarray, " known"]], new: list[Int64[np.ndarray, " gained"]]
) -> Counter[str]:
    """By how much `shards.USER_COUNTS` grow, of users (bool) and keys of user and item."""
    counts: Counter[str] = Counter(users=int(newcomer.sum()))
    counts.update({name: len(keys) for name, keys in zip(PARTS, new, strict=True)})
    for number, name in list(enumerate(PARTS))[1:]:
        had, has = np.zeros(len(newcomer), dtype=bool), np.zeros(len(newcomer), dtype=bool)
        has[new[number] >> 32] = True
        if old:
            had[old[number] >> 32] = True
        counts[f"users_without_{name}"] = int(np.sum(newcomer & ~has)) - int(np.sum(~newcomer & ~had & has))
    return counts


def _without(keys: Int64[np.ndarray, " keys"], known: Int64[np.ndarray, " known"]) -> Int64[np.ndarray, " new"]:
    """Those of the keys that are not known; both are sorted."""
    if len(known) == 0:
        return keys
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    missing: np.ndarray = keys[known[at] != keys]
    return missing
