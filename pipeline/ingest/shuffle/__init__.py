"""Rows gathered by user: the two passes between a log and the shards of a dataset.

`partition` deals the rows of a piece out to `buckets`; `selection` decides which items and users stay; `shards`
splits the histories of a bucket and writes them.
"""

from infrec.pipeline.ingest.shuffle.buckets import gather
from infrec.pipeline.ingest.shuffle.partition import Dropped, Partitioning, number_items, partition
from infrec.pipeline.ingest.shuffle.selection import cut_at, filter_items, known_ids, number_kept
from infrec.pipeline.ingest.shuffle.shards import USER_COUNTS, Numbering, Sharding, user_counts, write_shard

__all__ = [
    "USER_COUNTS",
    "Dropped",
    "Numbering",
    "Partitioning",
    "Sharding",
    "cut_at",
    "filter_items",
    "gather",
    "known_ids",
    "number_items",
    "number_kept",
    "partition",
    "user_counts",
    "write_shard",
]
