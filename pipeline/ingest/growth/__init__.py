"""A dataset grows with its log, at the cost of what is new.

`grow` does the whole of it. `folding` adds new interactions to one shard. `compaction` writes the shards anew once
there are many additions.
"""
