"""A dataset that grows with its log, at the cost of what is new.

`grow` is the whole of it, `folding` adds to one shard, `compaction` writes the shards anew when additions have become
many.
"""
