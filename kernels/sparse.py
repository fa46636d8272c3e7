"""Sparse matrices: products with dense ones at the speed of the cache, some of the entries alone, padding."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

_STRIP = 512
"""Columns at a time, at most; fewer where so many would not stay in the cache."""

_STRIP_BYTES = 8 << 20
"""Of a strip of the dense factor, which is read in the sparse one's random order."""


def product(left: sp.csr_array, right: Float[np.ndarray, "inner columns"]) -> Float[np.ndarray, "rows columns"]:
    """left · right, dense and contiguous along the columns."""
    result = np.empty((left.shape[0], right.shape[1]), np.result_type(left.dtype, right.dtype))
    for strip in _strips(right):
        result[:, strip] = left @ np.ascontiguousarray(right[:, strip])
    return result


def strips(right: Float[np.ndarray, "inner columns"]) -> list[np.ndarray]:
    """A dense right factor of many products, cut into the strips of columns that `product` makes each time."""
    return [np.ascontiguousarray(right[:, strip]) for strip in _strips(right)]


def transposed_product(
    left: sp.csr_array, right: Float[np.ndarray, "inner columns"], out: Float[np.ndarray, "columns rows"] | None = None
) -> Float[np.ndarray, "columns rows"]:
    """(left · right)ᵀ, dense and contiguous along the rows of `left`; in `out`, where it is given."""
    result = out
    if result is None:
        result = np.empty((right.shape[1], left.shape[0]), np.result_type(left.dtype, right.dtype))
    for strip in _strips(right):
        result[strip] = (left @ np.ascontiguousarray(right[:, strip])).T
    return result


def add_transposed_product(
    left: sp.csr_array, right: Float[np.ndarray, "inner columns"], total: Float[np.ndarray, "columns rows"]
) -> None:
    """total ← total + (left · right)ᵀ, with no other matrix of that size."""
    for strip in _strips(right):
        total[strip] += (left @ np.ascontiguousarray(right[:, strip])).T


def chosen_entries(matrix: sp.csr_array, entries: Bool[np.ndarray, " entries"]) -> sp.csr_array:
    """The matrix with only those of its entries."""
    indptr = np.concatenate([[0], np.cumsum(entries)])[matrix.indptr].astype(matrix.indptr.dtype)
    return sp.csr_array((matrix.data[entries], matrix.indices[entries], indptr), shape=matrix.shape)


def rows_of_entries(matrix: sp.csr_array) -> Int[np.ndarray, " entries"]:
    """The row of every entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def with_empty_rows(matrix: sp.csr_array, step: int) -> sp.csr_array:
    """The matrix with all-zero rows up to the next multiple of `step`: what is compiled once a shape then sees few."""
    rows, columns = matrix.shape
    surplus = -rows % step
    indptr = np.pad(matrix.indptr, (0, surplus), mode="edge")
    return sp.csr_array((matrix.data, matrix.indices, indptr), shape=(rows + surplus, columns))


def _strips(right: Float[np.ndarray, "inner columns"]) -> list[slice]:
    inner, columns = right.shape
    width = min(_STRIP, max(32, _STRIP_BYTES // max(inner * right.itemsize, 1)))
    return [slice(start, start + width) for start in range(0, columns, width)]
