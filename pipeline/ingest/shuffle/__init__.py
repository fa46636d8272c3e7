"""The shuffle gathers rows by user: two passes lead from a log to the shards of a dataset.

`partition` deals the rows of a piece out to `buckets`. `selection` decides which items and users stay. `shards` splits
the histories of a bucket and writes them.
"""
