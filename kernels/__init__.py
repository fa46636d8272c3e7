"""Numerics on arrays: the NTK, sparse Grams, the tile algebra, metrics. Pure: no ray, no files, no printing."""
