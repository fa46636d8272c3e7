"""The selection of gathered interactions for the dataset: filters by count, item indices, temporal cuts.

This is the driver's side of the tasks in `pipeline.ingest.shuffle.shards`. Each function sums small arrays over all
buckets. The order of the buckets does not matter.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

from infrec.pipeline.cluster import Report, map_tasks
from infrec.pipeline.data import ITEMS, known_index
from infrec.pipeline.ingest.hashing import hash_ids
from infrec.pipeline.ingest.reading.logs import Column
from infrec.pipeline.ingest.reading.timestamps import RADIX_BITS, quantile
from infrec.pipeline.ingest.shuffle.partition import Dropped
from infrec.pipeline.ingest.shuffle.shards import Numbering, Sharding, survivors, time_histogram
from infrec.pipeline.storage import Artefact, InputError


def filter_items(
    buckets: int,
    sharding: Sharding,
    keep_item: np.ndarray,
    *,
    rows: int,
    min_user_interactions: int,
    k_core: int,
    dropped: Counter[str],
    report: Report,
) -> tuple[np.ndarray, int]:
    """Return which of the items in `keep_item` (bool [vocabulary]) stay, and how many users the log has.

    Gather the buckets, which hold `rows` rows of the log. Then remove items with fewer than `k_core` interactions until
    no such item is left. The removed rows are counted in `dropped`. Users need no state of their own: the items that
    stay tell which users have enough interactions.
    """

    def count(phase: str, keep_item: np.ndarray, minimum: int) -> tuple[np.ndarray, int, int, int]:
        counts, of_kept, duplicates, users = np.zeros(len(keep_item), dtype=np.int64), 0, 0, 0
        report(phase, 0, rows)
        for share in map_tasks(survivors, range(buckets), sharding, keep_item, minimum):
            counts += share.item_counts
            of_kept += share.rows
            duplicates += share.duplicates
            users += share.users
            report(phase, of_kept + duplicates, rows)
        return counts, of_kept, duplicates, users

    counts, of_kept, duplicates, users = count("gather users", keep_item, min_user_interactions)
    with_enough = int(counts.sum())
    dropped[Dropped.DUPLICATE] = duplicates
    dropped[Dropped.UNKNOWN_ITEM] = rows - duplicates - of_kept
    dropped[Dropped.FEW_INTERACTIONS] = of_kept - with_enough
    if k_core == 1:
        return counts > 0, users
    turn = 0
    minimum = max(min_user_interactions, k_core)
    while True:
        turn += 1
        counts, *_ = count(f"{k_core}-core, round {turn}", keep_item, minimum)
        survived = counts >= k_core
        if (survived == keep_item).all():
            break
        keep_item = survived
    dropped[Dropped.CORE] = with_enough - int(counts[keep_item].sum())
    return keep_item, users


def known_ids(known: Artefact | None, item: Column) -> pa.Array:
    """Return the ids of the items whose indices are given, in the order of the indices.

    Raises `InputError` if these ids are strings and the log's are integers, or the reverse.
    """
    if known is None:
        return pa.array([], item.type)
    ids = known.table(ITEMS)["item_id"].combine_chunks()
    if pa.types.is_string(ids.type) != pa.types.is_string(item.type):
        raise InputError(f"The log's item ids ({item.name}) are {item.type}, those of {known.location} are {ids.type}.")
    return ids


def number_kept(vocabulary: pa.Array, keep_item: np.ndarray, known: pa.Array) -> tuple[pa.Array, Numbering]:
    """Return the ids of all items in the order of their indices, and the numbering of the vocabulary.

    `known` items keep their indices, whether or not they are met again. Other items follow, sorted by id.
    """
    index = known_index(vocabulary, known)
    new = keep_item & (index < 0)
    index[new] = len(known) + np.arange(np.count_nonzero(new), dtype=np.int32)
    index[~keep_item] = -1
    item_ids = known
    if new.any():
        wide = vocabulary.type if vocabulary.type == known.type else pa.int64()
        item_ids = pa.concat_arrays([known.cast(wide), vocabulary.filter(pa.array(new)).cast(wide)])
    return item_ids, Numbering(index, hash_ids(vocabulary), len(item_ids))


def cut_at(
    fraction: float, buckets: int, sharding: Sharding, numbering: Numbering, interactions: int, report: Report
) -> int:
    """Return the exact quantile of time: a `fraction` of the `interactions` that pass the filters lie before it."""
    done = 0

    def histogram(shift: int, prefix: int) -> np.ndarray:
        nonlocal done
        total = np.zeros(1 << RADIX_BITS, dtype=np.int64)
        for share, rows in map_tasks(time_histogram, range(buckets), sharding, numbering, shift, prefix):
            total += share
            done += rows
            report(f"find the cut at {fraction:.0%}", done, 64 // RADIX_BITS * interactions)
        return total

    return quantile(fraction, histogram)
