"""A dataset that grows with its log, at the cost of what is new.

`grow` is the whole of it, `folding` adds to one shard, `compaction` writes the shards anew when additions have become
many.
"""

from infrec.pipeline.ingest.growth.grow import Grown, grow

__all__ = ["Grown", "grow"]
