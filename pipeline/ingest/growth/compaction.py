"""A dataset that has grown is written anew: additions move into the shards, and large shards become several."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from infrec.pipeline.cluster import Report, map_tasks
from infrec.pipeline.data import PARTS, Dataset, shard_name
from infrec.pipeline.ingest.hashing import hash_ids
from infrec.pipeline.storage import FileRecord, Location, finished, parquet_bytes, write_with_receipt


def compact(grown: Dataset, staging: Location, bucket_rows: int, report: Report) -> tuple[dict[str, FileRecord], int]:
    """Write all shards to `staging` anew, additions included. Return the new files and the new number of shards.

    Each shard becomes as many as it takes for about `bucket_rows` interactions a shard. A user's shard is the user's
    hash modulo the number of shards. The new number is a multiple of the old one, so each new shard is made of one old
    shard.
    """
    interactions = sum(grown.manifest.counts[part] for part in PARTS)
    pieces = max(1, round(interactions / (grown.num_shards * bucket_rows)))
    files: dict[str, FileRecord] = {}
    for done, written in enumerate(map_tasks(_rewrite, range(grown.num_shards), grown, staging, pieces), start=1):
        files |= written
        report("write shards", done, grown.num_shards)
    return files, grown.num_shards * pieces


def _rewrite(index: int, grown: Dataset, staging: Location, pieces: int) -> dict[str, FileRecord]:
    """Write the shards that one shard becomes, unless they are there and whole: the body of a task."""
    table: pa.Table | None = None
    files: dict[str, FileRecord] = {}
    for target in range(index, grown.num_shards * pieces, grown.num_shards):
        name = shard_name(target)
        if stored := finished(staging, name):
            files[name] = stored[1]
            continue
        if table is None:
            table = grown.shard_table(index).sort_by("user_id")
            bucket = hash_ids(table["user_id"].combine_chunks()) % np.uint64(grown.num_shards * pieces)
        content = parquet_bytes(table.filter(pa.array(bucket == target)))
        files[name] = write_with_receipt(staging, name, content, {})
    return files
