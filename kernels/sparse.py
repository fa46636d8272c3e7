"""Sparse matrices: products with dense ones at the speed of the cache, a choice of entries, and padding."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

_STRIP = 512
"""The greatest number of columns in a strip. A strip has fewer where so many would not stay in the cache."""

_STRIP_BYTES = 8 << 20
"""The size of a strip of the dense factor. The sparse factor reads it in random order."""


_FEW = 0.3
"""The part of the rows below which it is faster to pick those that have entries."""


def product(left: sp.csr_array, right: Float[np.ndarray, "inner columns"]) -> Float[np.ndarray, "rows columns"]:
    """Return left · right, dense, with contiguous rows. The dtype is that of NumPy's promotion of both."""
    result = np.empty((left.shape[0], right.shape[1]), np.result_type(left.dtype, right.dtype))
    for strip in _strips(right):
        result[:, strip] = left @ np.ascontiguousarray(right[:, strip])
    return result


def strips(right: Float[np.ndarray, "inner columns"]) -> list[np.ndarray]:
    """Return a dense right factor of many products, cut into the strips of columns that `product` makes each time."""
    return [np.ascontiguousarray(right[:, strip]) for strip in _strips(right)]


def transposed_product(
    left: sp.csr_array, right: Float[np.ndarray, "inner columns"], out: Float[np.ndarray, "columns rows"] | None = None
) -> Float[np.ndarray, "columns rows"]:
    """Return (left · right)ᵀ, dense, contiguous along the rows of `left`.

    The result is `out` where that is given. Otherwise it is a new array with the dtype of NumPy's promotion of both.
    """
    result = out
    if result is None:
        result = np.empty((right.shape[1], left.shape[0]), np.result_type(left.dtype, right.dtype))
    for strip in _strips(right):
        result[strip] = (left @ np.ascontiguousarray(right[:, strip])).T
    return result


def add_transposed_product(
    left: sp.csr_array, right: Float[np.ndarray, "inner columns"], total: Float[np.ndarray, "columns rows"]
) -> None:
    """Add (left · right)ᵀ to `total`, in place. This needs no other matrix of that size.

    Where most rows of `left` have no entries, as items have that none of a few users has, only the others are added.
    """
    occupied = np.flatnonzero(np.diff(left.indptr))
    few = len(occupied) < _FEW * left.shape[0]
    left = left[occupied] if few else left
    for strip in _strips(right):
        added = (left @ np.ascontiguousarray(right[:, strip])).T
        if few:
            total[strip, occupied] += added
        else:
            total[strip] += added


def chosen_entries(matrix: sp.csr_array, entries: Bool[np.ndarray, " entries"]) -> sp.csr_array:
    """Return the matrix with only those of its stored entries for which `entries` is true."""
    indptr = np.concatenate([[0], np.cumsum(entries)])[matrix.indptr].astype(matrix.indptr.dtype)
    return sp.csr_array((matrix.data[entries], matrix.indices[entries], indptr), shape=matrix.shape)


def rows_of_entries(matrix: sp.csr_array) -> Int[np.ndarray, " entries"]:
    """Return the row of every stored entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def has_entries(matrix: sp.csr_array, columns: Int[np.ndarray, "rows chosen"]) -> Bool[np.ndarray, "rows chosen"]:
    """Tell for some columns of each row whether the matrix stores an entry there."""
    matrix = matrix if matrix.has_sorted_indices else matrix.sorted_indices()
    rows, width = matrix.shape
    stored = np.append(rows_of_entries(matrix) * width + matrix.indices, rows * width)  # what no entry is ends a search
    wanted = np.arange(rows)[:, None] * width + columns
    found: np.ndarray = stored[np.searchsorted(stored, wanted)] == wanted
    return found


def with_empty_rows(matrix: sp.csr_array, step: int) -> sp.csr_array:
    """Return the matrix with all-zero rows after its own, up to the next multiple of `step`.

    A function that is compiled once for each shape then sees few shapes.
    """
    rows, columns = matrix.shape
    surplus = -rows % step
    indptr = np.pad(matrix.indptr, (0, surplus), mode="edge")
    return sp.csr_array((matrix.data, matrix.indices, indptr), shape=(rows + surplus, columns))


def _strips(right: Float[np.ndarray, "inner columns"]) -> list[slice]:
    inner, columns = right.shape
    width = min(_STRIP, max(32, _STRIP_BYTES // max(inner * right.itemsize, 1)))
    return [slice(start, start + width) for start in range(0, columns, width)]
