"""Numerics on arrays: the NTK, sparse Grams, the tile algebra, metrics. It is pure: no ray, no files, no printing."""
