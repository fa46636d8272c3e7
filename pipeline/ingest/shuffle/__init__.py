"""Rows gathered by user: the two passes between a log and the shards of a dataset.

`partition` deals the rows of a piece out to `buckets`; `selection` decides which items and users stay; `shards`
splits the histories of a bucket and writes them.
"""
