"""What of the gathered histories goes into the dataset: filters by count, item indices, temporal cuts.

The driver's side of the tasks in `pipeline.ingest.shards`: each function sums small arrays over all buckets, in
which order does not matter.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset import Dataset
from pipeline.errors import InputError
from pipeline.ingest.hashing import hash_ids
from pipeline.ingest.partition import Dropped
from pipeline.ingest.shards import Numbering, Sharding, survivors, time_histogram
from pipeline.ingest.timestamps import RADIX_BITS, quantile
from pipeline.progress import Report
from pipeline.tasks import each


def filter_items(
    buckets: int,
    sharding: Sharding,
    num_items: int,
    *,
    rows: int,
    min_user_interactions: int,
    k_core: int,
    dropped: Counter[str],
    report: Report,
) -> np.ndarray:
    """Which items of the vocabulary stay (bool [num_items]); what goes is added to `dropped`.

    Gathers the buckets, which hold `rows` rows of the log, then removes items with fewer than `k_core` interactions
    until none is left. Users need no state of their own: who has enough interactions follows from the items that stay.
    """

    def count(phase: str, keep_item: np.ndarray, minimum: int) -> tuple[np.ndarray, int, int]:
        counts, distinct, duplicates = np.zeros(num_items, dtype=np.int64), 0, 0
        report(phase, 0, rows)
        for share in each(survivors, range(buckets), sharding, keep_item, minimum):
            counts += share.item_counts
            distinct += share.rows
            duplicates += share.duplicates
            report(phase, distinct + duplicates, rows)
        return counts, distinct, duplicates

    everything = np.ones(num_items, dtype=bool)
    counts, distinct, duplicates = count("gather users", everything, min_user_interactions)
    with_enough = int(counts.sum())
    dropped[Dropped.DUPLICATE] = duplicates
    dropped[Dropped.FEW_INTERACTIONS] = distinct - with_enough
    if k_core == 1:
        return counts > 0
    keep_item, turn = everything, 0
    minimum = max(min_user_interactions, k_core)
    while True:
        turn += 1
        counts, _, _ = count(f"{k_core}-core, round {turn}", keep_item, minimum)
        survived = counts >= k_core
        if (survived == keep_item).all():
            break
        keep_item = survived
    dropped[Dropped.CORE] = with_enough - int(counts[keep_item].sum())
    return keep_item


def number_kept(vocabulary: pa.Array, keep_item: np.ndarray, known: Dataset | None) -> tuple[pa.Array, Numbering]:
    """The ids of all items in the order of their indices, and the numbering of the vocabulary.

    Items of the `known` dataset keep their indices, whether or not they are met again; others follow, sorted
    by id.
    """
    old = pa.array([], vocabulary.type)
    if known is not None:
        old = known.items()["item_id"].combine_chunks()
        if pa.types.is_string(old.type) != pa.types.is_string(vocabulary.type):
            raise InputError(
                f"--items-from {known.artefact.location} has item ids of type {old.type}, "
                f"the log's are {vocabulary.type}."
            )
        wide = old.type if pa.types.is_string(old.type) else pa.int64()
        vocabulary, old = vocabulary.cast(wide), old.cast(wide)
    index = pc.fill_null(pc.index_in(vocabulary, old), -1).to_numpy().astype(np.int32)
    new = keep_item & (index < 0)
    index[new] = len(old) + np.arange(np.count_nonzero(new), dtype=np.int32)
    index[~keep_item] = -1
    item_ids = pa.concat_arrays([old, vocabulary.filter(pa.array(new))])
    return item_ids, Numbering(index, hash_ids(vocabulary), len(item_ids))


def cut_at(
    fraction: float, buckets: int, sharding: Sharding, numbering: Numbering, interactions: int, report: Report
) -> int:
    """The time before which the `fraction` of the `interactions` that pass the filters lie: their exact quantile."""
    done = 0

    def histogram(shift: int, prefix: int) -> np.ndarray:
        nonlocal done
        total = np.zeros(1 << RADIX_BITS, dtype=np.int64)
        for share, rows in each(time_histogram, range(buckets), sharding, numbering, shift, prefix):
            total += share
            done += rows
            report(f"find the cut at {fraction:.0%}", done, 64 // RADIX_BITS * interactions)
        return total

    return quantile(fraction, histogram)
