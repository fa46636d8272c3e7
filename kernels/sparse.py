"""Sparse × dense products at the speed of the cache."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

_STRIP = 128
"""Columns at a time: a strip of the dense factor, read in the sparse one's random order, then stays in a core's L2."""


def product(left: sp.csr_array, right: Float[np.ndarray, "inner columns"]) -> Float[np.ndarray, "rows columns"]:
    """left · right, dense and contiguous along the columns."""
    result = np.empty((left.shape[0], right.shape[1]), np.result_type(left.dtype, right.dtype))
    for strip in _strips(right.shape[1]):
        result[:, strip] = left @ np.ascontiguousarray(right[:, strip])
    return result


def transposed_product(
    left: sp.csr_array, right: Float[np.ndarray, "inner columns"]
) -> Float[np.ndarray, "columns rows"]:
    """(left · right)ᵀ, dense and contiguous along the rows of `left`."""
    result = np.empty((right.shape[1], left.shape[0]), np.result_type(left.dtype, right.dtype))
    for strip in _strips(right.shape[1]):
        result[strip] = (left @ np.ascontiguousarray(right[:, strip])).T
    return result


def _strips(columns: int) -> list[slice]:
    return [slice(start, start + _STRIP) for start in range(0, columns, _STRIP)]
